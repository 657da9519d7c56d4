"""A comparison as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nmt.evaluation.compare import TIE, Comparison, CopiedWords, Difference, Grouping
from nmt.evaluation.significance import Tested


def render(found: Comparison) -> str:
    """All tables, one below the other."""
    lines = [f"{found.data}: {found.sentences} sentences; the baseline is {found.systems[0]}"]
    width = max(map(len, found.systems))
    lines += [f"  {name:{width}}  {about}" for name, about in zip(found.systems, found.about, strict=True)]
    for tested in found.tests:
        lines += ["", *_tested(tested, found.systems)]
    lines += [
        "",
        "p: how likely a difference as large is by chance, by either test; TER: the lower the better",
        "",
        f"Sentences won and lost against the baseline, by {TIE:g} point of sentence chrF2++ or more",
        *_table([("", "wins", "ties", "losses"), *((v.name, v.wins, v.ties, v.losses) for v in found.verdicts)]),
    ]
    for grouping in found.groupings:
        lines += ["", *_grouping(grouping, found.systems)]
    lines += ["", *_copied(found.copied, found.systems)]
    for difference in found.differences:
        lines += ["", *_difference(difference, found.systems)]
    return "\n".join(lines)


def _tested(tested: Tested, systems: Sequence[str]) -> Iterator[str]:
    yield f"{tested.metric}  {'  '.join(tested.signatures)}"
    rows: list[Sequence[object]] = [("", "score", "95 %", "difference", "p bootstrap", "p randomisation")]
    for number, (name, outcome) in enumerate(zip(systems, tested.outcomes, strict=True)):
        width = "" if outcome.half_width is None else f"± {outcome.half_width:.2f}"
        change = f"{outcome.score - tested.outcomes[0].score:+.2f}" if number else ""
        values = (outcome.p_bootstrap, outcome.p_randomisation)
        rows.append((name, f"{outcome.score:.2f}", width, change, *("" if p is None else f"{p:.4f}" for p in values)))
    yield from _table(rows)


def _grouping(grouping: Grouping, systems: Sequence[str]) -> Iterator[str]:
    yield f"BLEU by {grouping.by}"
    rows = ((row.label, row.sentences, *(f"{value:.2f}" for value in row.bleu)) for row in grouping.rows)
    yield from _table([("", "sentences", *systems), *rows])


def _copied(copied: Sequence[CopiedWords], systems: Sequence[str]) -> Iterator[str]:
    yield "Words that stand alike in source and reference, and share that the translations have"
    rows = (
        (each.kind, each.words, *(f"{right / each.words:.1%}" for right in each.right)) for each in copied if each.words
    )
    yield from _table([("", "words", *systems), *rows])


def _difference(difference: Difference, systems: Sequence[str]) -> Iterator[str]:
    yield f"Sentence {difference.index + 1}: {difference.system} {difference.points:+.1f} points of chrF2++"
    lines = [("source", difference.source), *(("reference", text) for text in difference.references)]
    named = zip(systems, difference.chrf, difference.hypotheses, strict=True)
    lines += [(f"{name} ({chrf:.1f})", text) for name, chrf, text in named]
    width = max(len(head) for head, _ in lines)
    yield from (f"  {head:{width}}  {text}" for head, text in lines)


def _table(rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """Columns of equal width, the first to the left, the others to the right; those that are empty below their heads are left out."""
    columns = [column for column in zip(*rows, strict=True) if any(map(str, column[1:]))]
    texts = [[str(cell) for cell in row] for row in zip(*columns, strict=True)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for first, *others in texts:
        cells = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join((f"  {first:{widths[0]}}", *cells)).rstrip()
