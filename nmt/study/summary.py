"""What a study's numbers say: settings with their seeds together, differences and whether they stand, recommendations."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nmt.study.config import BASE
from nmt.study.result import Outcome, Result

ONE_SEED_BLEU = (
    1.0  # a difference that one seed and 1,000 sentences don't establish; a rule of thumb, said in the reports
)


@dataclass(frozen=True)
class Setting:
    """A place in the grid with all its seeds."""

    point: dict[str, Any]  # without the seed
    outcomes: tuple[Outcome, ...]

    @property
    def results(self) -> list[Result]:
        """Of the seeds that are finished."""
        return [outcome.result for outcome in self.outcomes if outcome.result is not None]

    def mean(self, value: Callable[[Result], float]) -> float:
        """The mean over the finished seeds, of which there must be one."""
        return statistics.fmean(value(result) for result in self.results)

    @property
    def test_bleu(self) -> float:
        """Mean over the finished seeds."""
        return self.mean(lambda result: result.test_bleu)

    @property
    def validation_bleu(self) -> float:
        """Mean over the finished seeds."""
        return self.mean(lambda result: result.validation_bleu)

    @property
    def seconds(self) -> float:
        """Mean training time over the finished seeds."""
        return self.mean(lambda result: result.seconds)

    @property
    def spread(self) -> float | None:
        """Standard deviation of test BLEU over the seeds, where at least two are finished."""
        values = [result.test_bleu for result in self.results]
        return statistics.stdev(values) if len(values) > 1 else None

    def words(self, axes: Sequence[str]) -> str:
        """Its values on `axes` in words."""
        return ", ".join(axis_words(axis, self.point[axis]) for axis in axes if axis in self.point)


def axis_words(axis: str, value: Any) -> str:
    """A value on an axis in words, such as "2 layers"."""
    if axis == "layers":
        return f"{value} layer" + ("s" if value != 1 else "")
    return str(value) if axis in ("corpus", "variant", "cell") else f"{axis} {value}"


def settings(outcomes: Sequence[Outcome]) -> list[Setting]:
    """The outcomes grouped by everything but the seed, in the order of the study."""
    groups: dict[tuple[Any, ...], list[Outcome]] = {}
    for outcome in outcomes:
        key = tuple((axis, value) for axis, value in outcome.cell.point.items() if axis != "seed")
        groups.setdefault(key, []).append(outcome)
    return [Setting(dict(key), tuple(found)) for key, found in groups.items()]


def varied(found: Sequence[Setting]) -> list[str]:
    """The axes on which the settings differ, the corpus left out."""
    axes = [axis for axis in found[0].point if axis != "corpus"]
    return [axis for axis in axes if len({setting.point[axis] for setting in found}) > 1]


def baseline(setting: Setting, found: Sequence[Setting]) -> Setting | None:
    """The finished setting that `setting` is compared with: a single layer, or the base of an ablation, all else equal."""
    change = {"variant": BASE} if "variant" in setting.point else {"layers": 1}
    point = setting.point | change
    return next((other for other in found if other.point == point and other.results), None)


class Noise:
    """What size of BLEU difference the study can establish."""

    def __init__(self, found: Sequence[Setting]) -> None:
        """With at least three spare seeds their pooled deviation is used, else the rule of thumb for one seed."""
        groups = [[result.test_bleu for result in setting.results] for setting in found]
        self.freedom = sum(max(0, len(group) - 1) for group in groups)
        squares = sum(statistics.variance(group) * (len(group) - 1) for group in groups if len(group) > 1)
        self.deviation = math.sqrt(squares / self.freedom) if self.freedom >= 3 else None
        self.sentences = min((result.test_sentences for setting in found for result in setting.results), default=1000)

    def limit(self, a: Setting, b: Setting) -> float:
        """BLEU below which a difference between two settings isn't established."""
        if self.deviation is not None:
            return 2 * self.deviation * math.sqrt(1 / len(a.results) + 1 / len(b.results))
        return ONE_SEED_BLEU * math.sqrt(1000 / self.sentences)

    def remark(self, a: Setting, b: Setting) -> str:
        """Nothing where the difference in test BLEU is established, else "within noise"."""
        return "" if abs(a.test_bleu - b.test_bleu) >= self.limit(a, b) else " (within noise)"

    def __str__(self) -> str:
        if self.deviation is not None:
            return (
                f"A difference counts as established from two standard errors on, by the pooled deviation of the seeds, "
                f"{self.deviation:.2f} BLEU; what another test set would change is not in it."
            )
        limit = ONE_SEED_BLEU * math.sqrt(1000 / self.sentences)
        return (
            f"Too few seeds to know their spread: a difference under about {limit:.1f} BLEU on {self.sentences:,} sentences "
            "isn't established (a rule of thumb)."
        )


def recommend(found: Sequence[Setting], noise: Noise) -> list[str]:
    """Plain sentences on the settings of one corpus: what to train, what more depth would cost and bring, what is open.

    The choice is made on validation BLEU: of the settings that are not established worse than the best, the one with the fewest
    layers, and of those the best. Differences are those on the test split.
    """
    done = [setting for setting in found if setting.results]
    unfinished = sum(outcome.result is None for setting in found for outcome in setting.outcomes)
    if not done:
        return ["No cell is finished: nothing to recommend yet."]
    axes = varied(found) or ["layers"]
    best = max(done, key=lambda setting: setting.validation_bleu)
    near = [setting for setting in done if best.validation_bleu - setting.validation_bleu <= noise.limit(best, setting)]
    chosen = min(near, key=lambda setting: (setting.point["layers"], -setting.validation_bleu))
    pairs = chosen.results[0].pairs
    lines = [f"With {pairs:,} pairs: **{chosen.words(axes)}** (test BLEU {chosen.test_bleu:.2f}, {_minutes(chosen)})."]
    if best is not chosen:
        ahead = best.validation_bleu - chosen.validation_bleu
        lines.append(f"Validation BLEU was highest with {best.words(axes)}, by {ahead:.1f}, which is within noise.")
    for depth in sorted({setting.point["layers"] for setting in done} - {chosen.point["layers"]}):
        rivals = [setting for setting in done if setting.point["layers"] == depth]
        lines.append(_compare(max(rivals, key=lambda setting: setting.validation_bleu), chosen, axes, noise))
    beside = [setting for setting in done if _differs(setting, chosen) not in ("", "layers")]
    lines += [_compare(setting, chosen, axes, noise) for setting in beside]
    if all(setting.point["layers"] > 1 for setting in done):
        lines.append("The single-layer baseline is not finished: whether depth pays can't be said yet.")
    if unfinished:
        lines.append(
            f"{unfinished} of {sum(len(s.outcomes) for s in found)} cells here are not finished: this may change."
        )
    return lines


def _differs(a: Setting, b: Setting) -> str:
    """The one axis on which two settings differ, "" when it is none or several."""
    axes = [axis for axis in a.point if a.point[axis] != b.point[axis]]
    return axes[0] if len(axes) == 1 else ""


def _compare(other: Setting, chosen: Setting, axes: Sequence[str], noise: Noise) -> str:
    difference = other.test_bleu - chosen.test_bleu
    ratio = other.seconds / chosen.seconds
    return f"{other.words(axes)}: {ratio:.1f}x the training time, {difference:+.1f} BLEU{noise.remark(other, chosen)}."


def _minutes(setting: Setting) -> str:
    return f"{setting.seconds / 60:.1f} minutes of training"
