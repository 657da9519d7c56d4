"""An evaluation as one HTML page: scores, how they change with length, whether the model knows when it is right, and its worst."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence

import nmt
from nmt.evaluation.faults import Fault, coverage, find_faults
from nmt.evaluation.results import EvaluationFile, Segment, Shown
from nmt.evaluation.words import best_kept, is_spaced, words
from nmt.pages import document, folded, mapping, plain, safe, section, table, tile, tiles
from nmt.study import evaluation_charts, heat_map
from nmt.study.drawing import STYLE
from nmt.study.evaluation_pictures import pictures

_WORST, _OPEN = 50, 10  # sentences of lowest chrF, and those of them that don't fold away
_EXAMPLES = 20  # of a fault
_SHOWN, _SHOWN_OPEN = 100, 3  # chosen sentences, and those that don't fold away
_CELLS = 30_000  # of all heat maps of the page: 3 or 4 MB
_CHARACTERS = 2000  # of a text

_STYLE = """
.charts { grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
mark { background: rgb(213 94 0 / .24); color: inherit; border-radius: .2em; padding: 0 .12em; }
.faults .bar { display: inline-block; height: .7rem; background: var(--c1); min-width: 1px; }
.chosen .numbers td { width: auto; } .chosen .numbers td:not(.text) { white-space: nowrap; } .chosen .numbers th { padding: .15rem .5rem; }
.both { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; align-items: start; } .both > * { min-width: 0; max-width: 100%; }
.numbers td.text { text-align: start; min-width: 12rem; } .maps { display: flex; flex-wrap: wrap; gap: .6rem 1.6rem; align-items: end; }
.maps > * { min-width: 0; max-width: 100%; }
"""


def page(results: EvaluationFile) -> str:
    """The page on an evaluation; it holds all that it needs, and leaves out with a word what the file does not tell."""
    sections = [
        _head(results),
        section("Scores, lengths, confidence", pictures(results)),
        section("Attention and candidates", _chosen(results)),
        section("Faults that can be counted", _faults(results)),
        section("The worst", _worst(results)),
        section("How to repeat it", _repeat(results)),
        f"<p><small>Made by <code>nmt report</code> {safe(nmt.__version__)}.</small></p>",
    ]
    style = STYLE + evaluation_charts.STYLE + heat_map.STYLE + _STYLE
    title = f"{results.system.name}: evaluation on {results.data.name}"
    return document(title, "\n".join(part for part in sections if part), style)


# --- the head -----------------------------------------------------------------------------------------------------------


def _head(results: EvaluationFile) -> str:
    system, data = results.system, results.data
    made = []
    for one in results.scores:
        interval = "" if one.low is None or one.high is None else f"95 %: {one.low:.2f} to {one.high:.2f}; "
        made.append(tile(one.name, f"{one.score:.2f}", interval + one.signature))
    references = f"{data.references} references" if data.references != 1 else "one reference"
    made += [
        tile("sentences", f"{data.sentences:,}", f"{references} each"),
        tile("length ratio", f"{results.length_ratio:.3f}", "words of the translations over those of the references"),
        tile("exact match", f"{results.exact_match:.1%}", "translations that equal a reference"),
    ]
    if results.seconds > 0:
        speed = tile("sentences a second", f"{results.sentences_per_second:,.1f}", f"{results.seconds:,.1f} s in all")
        made.append(speed)
    way = " to ".join(code for code in (system.source_language, system.target_language) if code)
    about = ", ".join(part for part in (system.kind, system.architecture, way) if part)
    others = "".join(f"<br/>decoded with {plain(one.get('name', '?'))}" for one in system.ensemble)
    return (
        f"<header><h1>{plain(system.name)}</h1><p>Evaluation on {plain(data.name)}: {plain(results.search)} "
        f"<small>{plain(results.date)}</small></p><p><small>{safe(about)}: {plain(system.where)}{others}</small></p>"
        f"{tiles(made)}</header>"
    )


# --- chosen sentences ---------------------------------------------------------------------------------------------------


def _chosen(results: EvaluationFile) -> str:
    """Attention and candidates of the sentences that were asked for."""
    chosen = [one for one in results.shown if 0 <= one.index < len(results.segments)]
    if not chosen:
        return "<p><small>The file holds no sentences with attention and candidates.</small></p>"
    found = [[*heat_map.parts(one)] for one in chosen]
    sums = itertools.accumulate(sum(heat_map.cells(matrix) for matrix, _, _ in parts) for parts in found)
    made = [_one(results, one, total <= _CELLS) for one, total in zip(chosen[:_SHOWN], sums, strict=False)]
    rest = made[_SHOWN_OPEN:]
    more = f"<p><small>{len(chosen) - _SHOWN} more are in the file.</small></p>" if len(chosen) > _SHOWN else ""
    return (
        "<p><small>Rows are target subwords, columns what they looked at in the source, stronger colour being more weight; weights below "
        f"{heat_map.LEAST} are not drawn. Marked in the candidates: words that the best has not.</small></p>{''.join(made[:_SHOWN_OPEN])}"
        + (folded(f"{len(rest)} more", "".join(rest)) if rest else "")
        + more
    )


def _one(results: EvaluationFile, shown: Shown, drawn: bool) -> str:
    segment, spaced = results.segments[shown.index], is_spaced(results.system.target_language)
    maps = "".join(heat_map.heat_map(*part) for part in heat_map.parts(shown)) if drawn else ""
    if not drawn:
        maps = "<p><small>The attention is left out to keep the page small.</small></p>"
    elif not maps:
        maps = "<p><small>No attention is known.</small></p>"
    rows, best = [], shown.n_best[0] if shown.n_best else ("", 0.0)
    for rank, (text, score) in enumerate(shown.n_best, 1):
        said = _marked(text, [best[0]], spaced)
        difference = f"{score - best[1]:+.3f}" if rank > 1 else ""
        rows.append(f'<tr><td>{rank}</td><td>{score:.3f}</td><td>{difference}</td><td class="text">{said}</td></tr>')
    candidates = table("numbers", ("", "score", "to the best", "candidate"), rows)
    given = [(f"sentence {shown.index + 1:,}", f"<b>{_clipped(segment.source)}</b>"), *_references(segment)]
    return (
        f'<div class="sample chosen">{_named(given)}'
        f'<div class="both"><div class="maps">{maps}</div>{candidates if rows else ""}</div></div>'
    )


# --- faults and the worst -----------------------------------------------------------------------------------------------


def _faults(results: EvaluationFile) -> str:
    """The counts with the rules that they follow, and examples of each."""
    found = find_faults(results)
    most = max((len(fault.cases) / max(1, fault.judged) for fault in found), default=0.0) or 1.0
    rows = []
    for fault in found:
        share = len(fault.cases) / max(1, fault.judged)
        bar = f'<span class="bar" style="width:{10 * share / most:.2f}rem"></span>'
        cells = f"<td>{len(fault.cases):,}</td><td>{fault.judged:,}</td><td>{share:.2%}</td>"
        rows.append(
            f'<tr><td class="word">{fault.name}</td>{cells}<td class="word" style="width:10rem">{bar}</td></tr>'
        )
    covered = coverage(results)
    linked = (
        "<p>No counts of words without a link: the file holds no links, or the source is written without spaces.</p>"
        if covered is None
        else f"<p>Of all {covered.words:,} content words of the sources {covered.unlinked:,} ({covered.share:.1%}) have no link.</p>"
    )
    heads = ("", "sentences", "of", "share", "")
    return table("numbers faults", heads, rows) + "".join(_fault(results, fault) for fault in found) + linked


def _fault(results: EvaluationFile, fault: Fault) -> str:
    count, shown = len(fault.cases), fault.cases[:_EXAMPLES]
    title = (
        f"the worst {_EXAMPLES} of {count:,}" if count > _EXAMPLES else f"{count} sentence{'s' if count > 1 else ''}"
    )
    examples = "".join(_sentence(results, case.index, case.remark) for case in shown)
    return f"<p><b>{fault.name}</b>: {safe(fault.rule)}</p>" + (folded(title, examples) if shown else "")


def _worst(results: EvaluationFile) -> str:
    """The sentences of lowest chrF."""
    order = sorted(range(len(results.segments)), key=lambda index: results.segments[index].chrf)[:_WORST]
    if not order:
        return "<p><small>There are no sentences.</small></p>"
    made = [_sentence(results, index, f"chrF2++ {results.segments[index].chrf:.1f}") for index in order]
    words = f"<p><small>The {len(order)} sentences of lowest chrF2++. Marked: words that the closest reference has not.</small></p>"
    rest = made[_OPEN:]
    return words + "".join(made[:_OPEN]) + (folded(f"{len(rest)} more", "".join(rest)) if rest else "")


def _sentence(results: EvaluationFile, index: int, remark: str) -> str:
    """Source, references and translation, what differs marked."""
    segment, spaced = results.segments[index], is_spaced(results.system.target_language)
    score = "" if segment.score is None else f", score {segment.score:.3f}"
    translation = f"<b>{_marked(segment.hypothesis, segment.references, spaced)}</b>"
    rows = [("source", _clipped(segment.source)), *_references(segment), ("translation", translation)]
    about = f"sentence {index + 1:,}{score}" + (f": {plain(remark)}" if remark else "")
    return f'<div class="sample"><small>{about}</small>{_named(rows)}</div>'


def _references(segment: Segment) -> list[tuple[str, str]]:
    several = len(segment.references) > 1
    return [
        (f"reference {number}" if several else "reference", _clipped(text))
        for number, text in enumerate(segment.references, 1)
    ]


def _named(rows: Sequence[tuple[str, str]]) -> str:
    """A table of names and texts, both HTML."""
    return f"<table>{''.join(f'<tr><th>{name}</th><td>{text}</td></tr>' for name, text in rows)}</table>"


def _clipped(text: str) -> str:
    return plain(text[:_CHARACTERS]) + _rest(text)


def _rest(text: str) -> str:
    """What is to be said of a text beside what is shown of it."""
    more = len(text) - _CHARACTERS
    if more > 0:
        return f" <small>… {more:,} characters more</small>"
    return "" if text.strip() else "<small>(empty)</small>"


def _marked(text: str, references: Sequence[str], spaced: bool) -> str:
    """The text with those words marked that the closest reference has not."""
    shown = text[:_CHARACTERS]
    same = iter(best_kept(words(shown, spaced), [words(reference, spaced) for reference in references]))
    pieces = re.split(r"(\s+)" if spaced else "(.)", shown, flags=re.DOTALL)
    judged = [(piece, not piece or piece.isspace() or next(same)) for piece in pieces]
    made = "".join(
        safe(run) if right else f"<mark>{safe(run)}</mark>"
        for right, group in itertools.groupby(judged, key=lambda one: one[1])
        if (run := "".join(piece for piece, _ in group))
    )
    return f'<bdi dir="auto">{made}</bdi>{_rest(text)}'


# --- the record ---------------------------------------------------------------------------------------------------------


def _repeat(results: EvaluationFile) -> str:
    record = {
        "date": results.date,
        "system": results.system.model_dump(mode="json"),
        "data": results.data.model_dump(mode="json"),
        "versions": results.versions,
        "machine": results.machine,
    }
    command = f"<pre>{safe(shlex.join(results.command))}</pre>"
    return (
        command
        + folded("versions, checksums, machine", mapping(record))
        + folded("options of the search", mapping(results.options))
    )
