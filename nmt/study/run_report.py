"""A training run as one HTML page: where it stands, its curves, what they say, and what it translated on the way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from typing import Any

import nmt
from nmt.pages import document, folded, mapping, plain, section, table, tile, tiles
from nmt.study.drawing import STYLE
from nmt.study.run_curves import curves, health
from nmt.study.run_log import CONFIG, LOG, REJECTED, Record, Run
from nmt.study.verdict import judge, rules

PAGE = "report.html"
_SHOWN = 5  # of translations of a sentence, and of warnings: the rest folds away
_REJECTED = 20  # left-out sentences that are shown

_STYLE = """
progress { width: 100%; max-width: 30rem; height: .6rem; accent-color: rgb(var(--blue)); }
.pairs th { vertical-align: top; } .pairs td { overflow-wrap: break-word; word-break: break-word; }
"""


def page(run: Run) -> str:
    """The page on a run; it holds all that it needs."""
    sections = [
        _head(run),
        section("Does it over-fit?", _verdict(run)),
        section("Warnings", _warnings(run)),
        section("Curves", curves(run)),
        section("Gradients, layer by layer", health(run)),
        section("Translations on the way", _samples(run)),
        section("Updates that were left out", _rejected(run.rejected)),
        section("Configuration", folded(CONFIG, f"<pre>{escape(run.config_text)}</pre>")),
        section("What auto came to", mapping(run.choices) if run.choices else ""),
        section("Environment", mapping(run.environment) if run.environment else ""),
        f"<p><small>Made by <code>nmt report</code> {escape(nmt.__version__)} from {plain(str(run.folder / LOG))}.</small></p>",
    ]
    return document(f"{run.name}: training run", "\n".join(part for part in sections if part), STYLE + _STYLE)


# --- the head -----------------------------------------------------------------------------------------------------------


def _head(run: Run) -> str:
    step, steps = run.log.last_step, run.config.train.max_steps
    made = [
        tile("step", f"{step:,} of {steps:,}", f"epoch {run.log.epoch(step):.2f}; {run.state()}"),
        *_best_tiles(run),
        _time_tile(run),
    ]
    rate = run.log.median_rate()
    if rate is not None:
        made.append(tile("tokens a second", f"{rate:,.0f}", "source and target, median of the log"))
    memory = max((value for _, value in run.log.series("train", "memory_gb")), default=0.0)
    if memory:
        made.append(tile("memory", f"{memory:.1f} GB", "the most that the log tells of"))
    return (
        f"<header><h1>{plain(run.name)}</h1>"
        f"<p>Training run on {plain(run.config.corpus.name)} <small>{plain(str(run.config.corpus))}</small></p>"
        f'<progress max="{steps}" value="{min(step, steps)}" aria-label="updates done">{step} of {steps}</progress>'
        f"{tiles(made)}</header>"
    )


def _best_tiles(run: Run) -> list[str]:
    """The scores of the best validation, each with its signature, and its losses."""
    best, settings = run.best(), run.config.validation
    if best is None:
        return [tile("best validation", "none yet", f"the first is at step {settings.every:,}")]
    step = best["step"]
    sentences = f"first {settings.sentences:,} sentences" if settings.sentences else "all sentences"
    which, made = "best validation" if settings.metric == "bleu" else "validation of lowest loss", []
    for name, title in (("bleu", "BLEU"), ("chrf", "chrF2")):
        if step in (scores := dict(run.log.scores(name))):
            words = f"step {step:,}, beam {settings.beam_size}, {sentences}; {best[f'{name}_signature']}"
            made.append(tile(f"{which}: {title}" if name == "bleu" else title, f"{scores[step]:.2f}", words))
    loss, train = (dict(run.log.series("validation", key)).get(step) for key in ("loss", "train_loss"))
    if loss is not None:
        pairs = "" if train is None else f"; on training pairs {train:.3f}"
        made.append(tile("validation loss", f"{loss:.3f}", f"step {step:,}, nats per token{pairs}"))
    return made


def _time_tile(run: Run) -> str:
    seconds, validating = run.seconds(), sum(value for _, value in run.log.series("validation", "seconds"))
    time = "unknown" if seconds is None else _time(seconds)
    return tile("training", time, f"validations: {_time(validating)} more" if validating else "")


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"


# --- verdict and warnings -------------------------------------------------------------------------------------------------


def _verdict(run: Run) -> str:
    curve = run.log.curve()
    if len(curve) < 3:
        words = f"<p>No verdict yet: it takes three validations, and there {'is' if len(curve) == 1 else 'are'} {len(curve)}.</p>"
    else:
        found = judge(curve)
        alarm = ' class="alarm"' if found.kind in ("over-fits", "diverges") else ""
        short, _, rest = str(found).partition(":")
        words = f"<p{alarm}><b>{short[:1].upper()}{short[1:]}</b>:{rest}.</p>"
    return words + folded("how that is judged", f"<p>{escape(rules())}</p>")


def _warnings(run: Run) -> str:
    """Each warning of the log once, with the steps that it was given at; those that differ in their figures alone are one."""
    found: dict[str, list[tuple[int, str]]] = {}
    for step, text in run.log.warnings():
        found.setdefault(re.sub(r"[\d.]+e[+-]\d+", "", text), []).append((step, text))
    items = []
    for given in found.values():
        steps = [step for step, _ in given]
        when = f"step {steps[0]:,}" if len(steps) == 1 else f"{len(steps)} times, steps {steps[0]:,} to {steps[-1]:,}"
        items.append(f'<p class="alarm"><small>{when}</small><br/>{plain(given[-1][1])}</p>')
    rest = items[_SHOWN:]
    return "".join(items[:_SHOWN]) + (folded(f"{len(rest)} more", "".join(rest)) if rest else "")


# --- text ---------------------------------------------------------------------------------------------------------------


def _samples(run: Run) -> str:
    """Each sample sentence, its reference, and what was made of it at each validation."""
    found: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for record in run.log.of("validation"):
        for source, reference, text in _triples(record.get("samples")):
            found.setdefault((source, reference), []).append((record["step"], text))
    return "".join(_sample(*pair, texts) for pair, texts in found.items())


def _triples(samples: Any) -> Iterable[tuple[str, str, str]]:
    for sample in samples if isinstance(samples, list) else ():
        if isinstance(sample, list) and len(sample) == 3:
            yield str(sample[0]), str(sample[1]), str(sample[2])


def _sample(source: str, reference: str, texts: Sequence[tuple[int, str]]) -> str:
    rows = []
    for text, group in groupby(texts, key=lambda item: item[1]):
        steps = [step for step, _ in group]
        when = f"step {steps[0]:,}" + (f" to {steps[-1]:,}" if len(steps) > 1 else "")
        rows.append(f"<tr><th>{when}</th><td>{plain(text) if text else '<small>(empty)</small>'}</td></tr>")
    given = "".join(
        f'<tr class="given"><th>{name}</th><td><b>{plain(text)}</b></td></tr>'
        for name, text in (("source", source), ("reference", reference))
    )
    earlier, latest = rows[:-_SHOWN], rows[-_SHOWN:]
    rest = folded(f"{len(earlier)} earlier", f"<table>{''.join(earlier)}</table>") if earlier else ""
    return f'<div class="sample"><table>{given}{"".join(latest)}</table>{rest}</div>'


def _rejected(pairs: Sequence[Record]) -> str:
    """The sentences of updates whose gradient was not finite."""
    if not pairs:
        return ""
    steps = list(dict.fromkeys(pair["step"] for pair in pairs))
    listed = ", ".join(f"{step:,}" for step in steps[:10]) + (" ..." if len(steps) > 10 else "")
    rows = [
        f"<tr><th>{pair['step']:,}</th><td>{plain(str(pair.get('source', '')))}</td>"
        f"<td>{plain(str(pair.get('target', '')))}</td></tr>"
        for pair in pairs[:_REJECTED]
    ]
    title = f"the first {_REJECTED} of {len(pairs):,} pairs" if len(pairs) > _REJECTED else f"{len(pairs):,} pairs"
    return (
        f'<p class="alarm">The gradient was not finite at step {listed}: {len(pairs):,} sentence pairs were left out. '
        f"They are in <code>{REJECTED}</code>.</p>" + folded(title, table("pairs", ("step", "source", "target"), rows))
    )
