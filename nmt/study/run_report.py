"""A training run as one HTML page: where it stands, its curves, what they say, and what it translated on the way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from typing import Any

import nmt
from nmt.pages import document, folded, plain, table
from nmt.study import line_chart
from nmt.study.run_curves import curves, health
from nmt.study.run_log import CONFIG, LOG, REJECTED, Record, Run
from nmt.study.verdict import judge, rules

PAGE = "report.html"
_SHOWN = 5  # of translations of a sentence, and of warnings: the rest folds away
_REJECTED = 20  # left-out sentences that are shown

_STYLE = """
header p { margin: .3rem 0; } progress { width: 100%; max-width: 30rem; height: .6rem; accent-color: rgb(var(--blue)); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 14.5rem), 1fr)); gap: .8rem; margin: 1.2rem 0; }
.tiles div { background: var(--tint); border-radius: .5rem; padding: .6rem .8rem; overflow-wrap: anywhere; }
.tiles b { display: block; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tiles small { display: block; line-height: 1.35; }
.alarm { border-inline-start: 4px solid var(--alarm); padding-inline-start: .8rem; }
pre { background: var(--tint); border-radius: .5rem; padding: .7rem .9rem; overflow-x: auto; font-size: .85rem; line-height: 1.45; }
.sample { border-top: 1px solid var(--line); padding-top: .3rem; margin: 1.2rem 0; } .sample th, .pairs th { vertical-align: top; }
.sample td, .pairs td { overflow-wrap: break-word; word-break: break-word; }
.sample .given td, .sample .given th { padding-bottom: .35rem; } .sample td { width: 100%; }
.sample th { padding-inline-start: 0; font-variant-numeric: tabular-nums; } .mapping td { overflow-wrap: anywhere; }
.mapping th { vertical-align: top; padding-inline-start: 0; } h3 { font-size: 1rem; margin: 1.4rem 0 .5rem; }
"""


def page(run: Run) -> str:
    """The page on a run; it holds all that it needs."""
    sections = [
        _head(run),
        _section("Does it over-fit?", _verdict(run)),
        _section("Warnings", _warnings(run)),
        _section("Curves", curves(run)),
        _section("Gradients, layer by layer", health(run)),
        _section("Translations on the way", _samples(run)),
        _section("Updates that were left out", _rejected(run.rejected)),
        _section("Configuration", folded(CONFIG, f"<pre>{escape(run.config_text)}</pre>")),
        _section("What auto came to", _mapping(run.choices) if run.choices else ""),
        _section("Environment", _mapping(run.environment) if run.environment else ""),
        f"<p><small>Made by <code>nmt report</code> {escape(nmt.__version__)} from {plain(str(run.folder / LOG))}.</small></p>",
    ]
    return document(
        f"{run.name}: training run", "\n".join(part for part in sections if part), line_chart.STYLE + _STYLE
    )


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{body}\n</section>" if body else ""


# --- the head -----------------------------------------------------------------------------------------------------------


def _head(run: Run) -> str:
    step, steps = run.log.last_step, run.config.train.max_steps
    tiles = [
        _tile("step", f"{step:,} of {steps:,}", f"epoch {run.log.epoch(step):.2f}; {run.state()}"),
        *_best_tiles(run),
        _time_tile(run),
    ]
    rate = run.log.median_rate()
    if rate is not None:
        tiles.append(_tile("tokens a second", f"{rate:,.0f}", "source and target, median of the log"))
    memory = max((value for _, value in run.log.series("train", "memory_gb")), default=0.0)
    if memory:
        tiles.append(_tile("memory", f"{memory:.1f} GB", "the most that the log tells of"))
    return (
        f"<header><h1>{plain(run.name)}</h1>"
        f"<p>Training run on {plain(run.config.corpus.name)} <small>{plain(str(run.config.corpus))}</small></p>"
        f'<progress max="{steps}" value="{min(step, steps)}" aria-label="updates done">{step} of {steps}</progress>'
        f'<div class="tiles">{"".join(tiles)}</div></header>'
    )


def _tile(name: str, value: str, remark: str) -> str:
    return f"<div><small>{escape(name)}</small><b>{escape(value)}</b><small>{escape(remark)}</small></div>"


def _best_tiles(run: Run) -> list[str]:
    """The scores of the best validation, each with its signature, and its losses."""
    best, settings = run.best(), run.config.validation
    if best is None:
        return [_tile("best validation", "none yet", f"the first is at step {settings.every:,}")]
    step = best["step"]
    sentences = f"first {settings.sentences:,} sentences" if settings.sentences else "all sentences"
    which, made = "best validation" if settings.metric == "bleu" else "validation of lowest loss", []
    for name, title in (("bleu", "BLEU"), ("chrf", "chrF2")):
        if step in (scores := dict(run.log.scores(name))):
            words = f"step {step:,}, beam {settings.beam_size}, {sentences}; {best[f'{name}_signature']}"
            made.append(_tile(f"{which}: {title}" if name == "bleu" else title, f"{scores[step]:.2f}", words))
    loss, train = (dict(run.log.series("validation", key)).get(step) for key in ("loss", "train_loss"))
    if loss is not None:
        pairs = "" if train is None else f"; on training pairs {train:.3f}"
        made.append(_tile("validation loss", f"{loss:.3f}", f"step {step:,}, nats per token{pairs}"))
    return made


def _time_tile(run: Run) -> str:
    seconds, validating = run.seconds(), sum(value for _, value in run.log.series("validation", "seconds"))
    time = "unknown" if seconds is None else _time(seconds)
    return _tile("training", time, f"validations: {_time(validating)} more" if validating else "")


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


def _mapping(value: dict[str, Any]) -> str:
    """Any nested mapping as tables in tables."""
    rows = (f"<tr><th>{plain(str(key))}</th><td>{_entry(item)}</td></tr>" for key, item in value.items())
    return f'<table class="mapping">{"".join(rows)}</table>'


def _entry(value: Any) -> str:
    if isinstance(value, dict):
        return _mapping(value)
    if isinstance(value, list):
        return "<br/>".join(map(_entry, value))
    return "" if value is None else plain(str(value))
