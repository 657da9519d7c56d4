"""The pictures of an evaluation with the numbers behind them: scores, lengths, and whether the model knows when it is right."""

from __future__ import annotations

from collections.abc import Sequence

from nmt.evaluation.calibration import Calibration, calibrate, rank_correlation, scored
from nmt.evaluation.lengths import Bucket, Estimate, bleu_signature, scores_by_length
from nmt.evaluation.results import EvaluationFile
from nmt.evaluation.words import is_spaced
from nmt.pages import folded, safe, table
from nmt.study.evaluation_charts import length_chart, reliability_chart, scatter_chart, score_chart


def pictures(results: EvaluationFile) -> str:
    """All that can be drawn, then a word on what can't, then the same in numbers, folded."""
    length_unit = "words" if is_spaced(results.system.source_language) else "characters"
    unit = "words" if is_spaced(results.system.target_language) else "subwords"
    buckets, calibration, pairs = scores_by_length(results), calibrate(results), scored(results)
    drawn, missing, numbers = [score_chart(results.scores)], [], []
    if buckets:
        drawn.append(length_chart(buckets, length_unit))
        numbers.append(_lengths(buckets, length_unit, bleu_signature(results)))
    if calibration:
        drawn.append(reliability_chart(calibration, unit))
        numbers.append(_calibration(calibration, unit))
    else:
        missing.append("No calibration: the file holds no probabilities of subwords.")
    if pairs:
        drawn.append(scatter_chart(pairs, _rank(pairs)))
    else:
        missing.append("No confidence in sentences: the file holds no scores of the model.")
    absent = f"<p><small>{' '.join(missing)}</small></p>" if missing else ""
    return f'<div class="charts">{"".join(drawn)}</div>{absent}{"".join(numbers)}'


def _lengths(buckets: Sequence[Bucket], unit: str, signature: str) -> str:
    heads = (unit, "sentences", "corpus BLEU", "low", "high", "mean chrF2++", "low", "high")
    rows = [_row(one.label, f"{one.sentences:,}", *_cells(one.bleu), *_cells(one.chrf)) for one in buckets]
    signed = f"<p><small>BLEU as of the whole: <code>{safe(signature)}</code></small></p>" if signature else ""
    return folded("scores by length in numbers", table("numbers", heads, rows) + signed)


def _cells(found: Estimate | None) -> list[str]:
    values = (found.value, found.low, found.high) if found else (None, None, None)
    return ["" if value is None else f"{value:.1f}" for value in values]


def _calibration(found: Calibration, unit: str) -> str:
    whole = "The probability of a word is the product of its subwords'. " if unit == "words" else ""
    others = f" {found.left_out:,} {unit} that were put in after the search are left out." if found.left_out else ""
    rule = (
        f"{whole}It is right when an alignment of fewest insertions and deletions with the closest reference keeps it, so another "
        "good wording counts as wrong. Expected calibration error: the mean distance of probability and share right over the bins, "
        "weighted by what is in them (Guo et al. 2017; for translation Wang et al. 2020, “On the Inference Calibration of Neural "
        f"Machine Translation”).{others}"
    )
    heads = ("probability", unit, "right", "mean probability", "share right")
    rows = [
        _row(
            f"{one.low:.1f}–{one.high:.1f}",
            f"{one.words:,}",
            f"{one.right:,}",
            f"{one.confidence:.3f}",
            f"{one.share:.3f}",
        )
        for one in found.bins
    ]
    return folded(
        "calibration in numbers, and its rules", f"<p><small>{rule}</small></p>" + table("numbers", heads, rows)
    )


def _row(label: str, *cells: str) -> str:
    return f'<tr><td class="word">{label}</td>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _rank(pairs: Sequence[tuple[float, float]]) -> str:
    """How well the score of the model tells good sentences from bad."""
    note, rank, tenth = "A dot is a sentence.", rank_correlation(pairs), len(pairs) // 10
    if rank is not None:
        note += f" Spearman's rank correlation <b>{rank:.2f}</b> over {len(pairs):,} sentences."
    if tenth:
        ordered = [chrf for _, chrf in sorted(pairs)]
        least, most = sum(ordered[:tenth]) / tenth, sum(ordered[-tenth:]) / tenth
        note += f" Mean chrF2++ of the tenth with the lowest scores {least:.1f}, with the highest {most:.1f}."
    return note
