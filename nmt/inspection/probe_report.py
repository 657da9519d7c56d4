"""What the probes found: a table, a figure, a page, and a conclusion that follows from the numbers by a stated rule."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from matplotlib.figure import Figure

from nmt.errors import NMTError
from nmt.figures import COLOURS, figure, save
from nmt.inspection.probe import ITERATIONS, PENALTIES, SPLITS, Probed
from nmt.inspection.probe_tasks import LEVELS, Level, Task

CLAIM = "low layers see words, high layers see the sentence"
JSON, FIGURE, REPORT = "probes.json", "probes.png", "probes.md"
_TEST_SHARE = 0.2

RULE = (
    "A difference counts when it is more than the noise: twice the larger of its standard deviation over the splits and of the binomial "
    "standard error of one test part. A label can be read when the best layer beats the majority by that much. Reading rises or falls "
    "with depth when the highest and the lowest recurrent layer differ by that much, and it has learned to when they differ by more "
    "than in the untrained network, and by more than the noise of both (the root of the sum of squares). The claim's first half holds "
    "when reading words has learned to fall somewhere and to rise nowhere; its second half when reading sentences has learned to rise "
    "somewhere and to fall nowhere. A half fails when the opposite is found, and is not shown otherwise."
)


@dataclass(frozen=True)
class Finding:
    """What one task and readout say of the trained network, with the mean accuracy of every layer, the embedding first."""

    task: str
    level: Level
    readout: str
    accuracy: tuple[float, ...]
    untrained: tuple[float, ...]
    readable: bool
    trend: int  # from the lowest to the highest recurrent layer: 1 rises, -1 falls, 0 within the noise
    learned: bool  # the trend is more than that of the untrained network
    noise: float

    @property
    def vote(self) -> int:
        """The trend as far as it can be read and was learned."""
        return self.trend if self.readable and self.learned else 0


def findings(found: Sequence[Probed]) -> list[Finding]:
    """A finding for every task and readout, by `RULE`; there are two recurrent layers at least."""
    controls = {(one.task, one.readout): one for one in found if one.network == "untrained"}
    return [_finding(one, controls[one.task, one.readout]) for one in found if one.network == "trained"]


def _finding(one: Probed, control: Probed) -> Finding:
    means, of_control = _means(one.accuracy), _means(control.accuracy)
    best = one.accuracy[means.index(max(means))]
    above, doubt = _difference(best, one.majority, one.items)
    change, noise = _difference(one.accuracy[-1], one.accuracy[1], one.items)
    trend = 0 if abs(change) <= noise else 1 if change > 0 else -1
    untrained, noise_untrained = _difference(control.accuracy[-1], control.accuracy[1], control.items)
    beyond, doubt_beyond = change - untrained, math.hypot(noise, noise_untrained)
    return Finding(
        one.task,
        one.level,
        one.readout,
        tuple(means),
        tuple(of_control),
        readable=above > doubt,
        trend=trend,
        learned=trend * beyond > doubt_beyond,
        noise=noise,
    )


def conclusion(found: Sequence[Probed]) -> list[str]:
    """The conclusion, a sentence an entry, the last on the claim as a whole."""
    layers = len(found[0].accuracy) - 1
    if layers == 1:
        return [
            "The encoder has one recurrent layer: there are no low and high ones to compare, and the claim can't be told."
        ]
    made = findings(found)
    low = _half([-finding.vote for finding in made if finding.level == "word"])
    high = _half([finding.vote for finding in made if finding.level == "sentence"])
    whole = "does not hold" if "fails" in (low, high) else "holds" if low == high == "holds" else "is not shown"
    return [
        *(_sentence(finding) for finding in made),
        f"Low layers see words better than high ones: {low}.",
        f"High layers see the sentence better than low ones: {high}.",
        f'The claim "{CLAIM}" {whole} for this model and its {layers} encoder layers.',
    ]


def _half(votes: Sequence[int]) -> str:
    """What the votes say together of one half of the claim."""
    if 1 in votes and -1 not in votes:
        return "holds"
    return "fails" if -1 in votes and 1 not in votes else "not shown"


def _sentence(finding: Finding) -> str:
    name = f"{finding.level}, {finding.task} ({finding.readout})"
    trained, untrained = (" ".join(f"{100 * a:.1f}" for a in row) for row in (finding.accuracy, finding.untrained))
    layers = f"{trained} from the embedding up, untrained {untrained}"
    if not finding.readable:
        return f"{name}: {layers}; can't be read anywhere."
    change = 100 * (finding.accuracy[-1] - finding.accuracy[1])
    trend = {1: "rises", 0: "stays within the noise", -1: "falls"}[finding.trend]
    untaught = " (much as it does untrained)" if finding.trend and not finding.learned else ""
    ceiling = "; all but perfect, so that layers can hardly differ" if min(finding.accuracy[1:]) > 0.98 else ""
    return (
        f"{name}: {layers}; with depth it {trend}{untaught}: {change:+.1f}, noise {100 * finding.noise:.1f}{ceiling}."
    )


def _means(accuracy: Sequence[Sequence[float]]) -> list[float]:
    return [fmean(values) for values in accuracy]


def _difference(one: Sequence[float], other: Sequence[float], items: int) -> tuple[float, float]:
    """Mean difference over the splits, and what it has to exceed to count."""
    differences = [a - b for a, b in zip(one, other, strict=True)]
    mean = fmean(one)
    binomial = (max(mean * (1 - mean), 1 / items) / (_TEST_SHARE * items)) ** 0.5
    return fmean(differences), 2 * max(stdev(differences), binomial)


# --- as text ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Account:
    """A finished probing: what was probed, by which command, and what was found."""

    command: str
    model: str
    digest: str
    notes: tuple[str, ...]
    tasks: tuple[Task, ...]
    found: tuple[Probed, ...]

    def record(self) -> dict[str, Any]:
        """All of it, for JSON."""
        layered = len(self.found[0].accuracy) > 2
        return {
            "command": self.command,
            "model": self.model,
            "digest": self.digest,
            "notes": list(self.notes),
            "protocol": {"splits": SPLITS, "penalties": list(PENALTIES), "iterations": ITERATIONS, "rule": RULE},
            "tasks": [{"name": t.name, "level": t.level, "rule": t.rule, "items": len(t.items)} for t in self.tasks],
            "results": [asdict(one) for one in self.found],
            "findings": [asdict(finding) for finding in findings(self.found)] if layered else [],
            "conclusion": conclusion(self.found),
        }


def table(found: Sequence[Probed]) -> list[list[str]]:
    """Rows of cells, the head first: accuracies in per cent with their spread over the splits, and the selectivity in points."""
    layers = len(found[0].accuracy)
    rows = [
        [
            "level",
            "label",
            "read",
            "items",
            "majority",
            "network",
            "embedding",
            *(f"layer {i}" for i in range(1, layers)),
        ]
    ]
    for one in sorted(found, key=lambda one: (LEVELS.index(one.level), one.task, one.readout)):
        cells = [
            f"{100 * fmean(a):.1f} ±{100 * stdev(a):.1f} ({100 * (fmean(a) - fmean(c)):+.1f})"
            for a, c in zip(one.accuracy, one.control, strict=True)
        ]
        majority = f"{100 * fmean(one.majority):.1f}"
        rows.append([one.level, one.task, one.readout, str(one.items), majority, one.network, *cells])
    return rows


def render(account: Account) -> str:
    """The table and the conclusion for a terminal."""
    rows = table(account.found)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", _LEGEND, "", *(f"- {line}" for line in [*account.notes, *conclusion(account.found)])])


_LEGEND = (
    f"Accuracy on test sentences in per cent, ± its standard deviation over {SPLITS} splits; in brackets the selectivity: points above "
    "the same probe trained on random answers."
)
_PROTOCOL = f"""Each probe is a logistic regression on the standardised outputs of one layer, residual connections included.
It is trained on 60 % of the sentences; its L2 penalty (C from {", ".join(map(str, PENALTIES))}; {ITERATIONS} L-BFGS
iterations at most) is chosen on 20 %, and its accuracy measured on the other 20 %. All items of a sentence are in one part. Labels are
equally frequent. "last" reads the state at the last subword of a word or clause, or at the sentence's end mark; of a layer that reads
both ways, the backward half at the first. "mean" reads the mean of the states from the first to the last. The embedding of the end
mark is the same in every sentence. Random answers are the same for every occurrence of one word, one clause, one sentence (Hewitt and
Liang 2019). The untrained network has the same shape and one draw of random weights."""


def report(account: Account) -> str:
    """The page in Markdown, beside the figure."""
    head, *body = table(account.found)
    *lines, whole = conclusion(account.found)
    readings, halves = lines[:-2], lines[-2:]
    parts = [
        "# What the encoder's layers know",
        "",
        "```sh",
        account.command,
        "```",
        "",
        f"Linear probes of every encoder layer of {account.model} (weights sha256 {account.digest[:12]}), made to test the claim "
        f'"{CLAIM}". The command writes all of this page.',
        "",
        "## Conclusion",
        "",
        f"**{whole}**",
        "",
        *(f"- {line}" for line in (*halves, *readings)),
        "",
        RULE,
        "",
        f"![Accuracy and selectivity of every layer]({FIGURE})",
        "",
        "## Numbers",
        "",
        f"| {' | '.join(head)} |",
        f"|{'|'.join(['---'] * len(head))}|",
        *(f"| {' | '.join(row)} |" for row in body),
        "",
        _LEGEND,
        "",
        "## Labels",
        "",
        *(f"- {task.level}, {task.name}: {task.rule}." for task in account.tasks),
        *(f"- {note}" for note in account.notes),
        "",
        "The corpus's labels can mostly be seen in single words, so the mean of the embeddings tells them too; what a layer adds is what "
        "it has beyond that.",
        "",
        "## Protocol",
        "",
        _PROTOCOL,
    ]
    return "\n".join(parts) + "\n"


def write(account: Account, folder: Path) -> None:
    """Write probes.json, probes.png and probes.md; raise `NMTError` where the folder can't be written to."""
    save(draw(account.found), folder / FIGURE)
    texts = {JSON: json.dumps(account.record(), ensure_ascii=False, indent=1) + "\n", REPORT: report(account)}
    for name, text in texts.items():
        try:
            (folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise NMTError(f"{folder / name}: could not be written ({error.strerror or error})") from None


def draw(found: Sequence[Probed]) -> Figure:
    """Accuracy (above) and selectivity (below) by layer; a column for each level and readout, a colour for each label."""
    columns = list(dict.fromkeys((level, one.readout) for level in LEVELS for one in found if one.level == level))
    colours = dict(zip(dict.fromkeys(one.task for one in found), COLOURS, strict=False))
    made = figure(2.5 * len(columns) + 1.2, 5.4)
    panels = made.subplots(2, len(columns), squeeze=False, sharex=True, sharey="row")
    for column, (level, readout) in enumerate(columns):
        above, below = panels[0][column], panels[1][column]
        for one in (one for one in found if (one.level, one.readout) == (level, readout)):
            steps = range(len(one.accuracy))
            style = {"color": colours[one.task], "marker": "o", "markersize": 4, "capsize": 2}
            trained = one.network == "trained"
            style |= {"linestyle": "-"} if trained else {"linestyle": "--", "markerfacecolor": "white", "alpha": 0.7}
            gained = [
                [a - c for a, c in zip(*pair, strict=True)] for pair in zip(one.accuracy, one.control, strict=True)
            ]
            for panel, values in ((above, one.accuracy), (below, gained)):
                panel.errorbar(steps, _means(values), [stdev(v) for v in values], **style)
            if trained:
                above.axhline(fmean(one.majority), color=colours[one.task], linestyle=":", linewidth=1)
                above.plot([], [], color=colours[one.task], marker="o", markersize=4, label=one.task)
        above.set_title(f"{level}: {readout}", fontsize=10)
        above.legend(fontsize=8, loc="best")
        below.set_xlabel("layer (0: embedding)")
        below.set_xticks(range(len(found[0].accuracy)))
        below.axhline(0.0, color="#999999", linewidth=0.8)
    panels[0][0].set_ylabel("accuracy")
    panels[1][0].set_ylabel("selectivity")
    made.suptitle("solid: trained; dashed: untrained; dotted: majority", fontsize=9)
    return made
