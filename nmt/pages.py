"""HTML pages that need nothing else: one look for all of them, light and dark; no script, no font, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from nmt.errors import NMTError

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --tint: #f4f6f8; --line: #d8dde3; --ink: #1b1f24; --soft: #58606a;
  --blue: 0 114 178; --alarm: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --tint: #1f242a; --line: #363d46; --ink: #e4e7eb; --soft: #9ea7b3;
  --blue: 86 180 233; --alarm: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: var(--ink);
  background: var(--paper); }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
h1, h2, h3, p { overflow-wrap: anywhere; }
table { border-collapse: collapse; } th { font-weight: normal; color: var(--soft); text-align: start; white-space: nowrap; }
td, th { padding: .15rem .5rem; vertical-align: baseline; } .wide { overflow-x: auto; }
.numbers td { text-align: end; font-variant-numeric: tabular-nums; } .numbers td.word { text-align: start; }
.numbers tr:nth-child(even) { background: var(--tint); } .word { white-space: nowrap; }
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--soft); }
small { color: var(--soft); font-size: .87em; } code { font-size: .92em; } img { max-width: 100%; background: #fff; }
header p { margin: .3rem 0; } h3 { font-size: 1rem; margin: 1.4rem 0 .5rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 14.5rem), 1fr)); gap: .8rem; margin: 1.2rem 0; }
.tiles div { background: var(--tint); border-radius: .5rem; padding: .6rem .8rem; overflow-wrap: anywhere; }
.tiles b { display: block; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tiles small { display: block; line-height: 1.35; }
.alarm { border-inline-start: 4px solid var(--alarm); padding-inline-start: .8rem; }
pre { background: var(--tint); border-radius: .5rem; padding: .7rem .9rem; overflow-x: auto; font-size: .85rem; line-height: 1.45; }
.sample { border-top: 1px solid var(--line); padding-top: .3rem; margin: 1.2rem 0; }
.sample th { vertical-align: top; padding-inline-start: 0; font-variant-numeric: tabular-nums; }
.sample td { width: 100%; overflow-wrap: break-word; word-break: break-word; }
.sample .given td, .sample .given th { padding-bottom: .35rem; }
.mapping th { vertical-align: top; padding-inline-start: 0; } .mapping td { overflow-wrap: anywhere; }
"""
# XML and HTML have no place for these: they are shown by the characters that picture them.
_PICTURED = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"} | {0x7F: 0x2421}
_PICTURED |= dict.fromkeys((0xFFFE, 0xFFFF), 0xFFFD)


def document(title: str, body: str, style: str = "") -> str:
    """A whole page; `title` is plain text, `body` and `style` are HTML and CSS. The page may load nothing and run nothing."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"/>'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\"/>"
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{safe(title)}</title><style>{_STYLE}{style}</style></head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def safe(text: str) -> str:
    """Text of any kind as HTML, for attributes too."""
    return escape(text.translate(_PICTURED))


def plain(text: str) -> str:
    """Text of any script and direction, escaped, that leaves its surroundings alone."""
    return f'<bdi dir="auto">{safe(text)}</bdi>'


def section(title: str, body: str) -> str:
    """A part of a page with a heading, both HTML; nothing without a body."""
    return f"<section>\n<h2>{title}</h2>\n{body}\n</section>" if body else ""


def tile(name: str, value: str, remark: str) -> str:
    """One figure with its name and a remark, all plain text."""
    return f"<div><small>{safe(name)}</small><b>{safe(value)}</b><small>{safe(remark)}</small></div>"


def tiles(made: Sequence[str]) -> str:
    """Tiles side by side, as many as there is room for."""
    return f'<div class="tiles">{"".join(made)}</div>'


def mapping(value: Mapping[str, Any]) -> str:
    """Any nested mapping as tables in tables."""
    rows = (f"<tr><th>{plain(str(key))}</th><td>{_entry(item)}</td></tr>" for key, item in value.items())
    return f'<table class="mapping">{"".join(rows)}</table>'


def _entry(value: Any) -> str:
    if isinstance(value, Mapping):
        return mapping(value)
    if isinstance(value, list | tuple):
        return "<br/>".join(map(_entry, value))
    return "" if value is None else plain(str(value))


def table(kind: str, heads: Sequence[str], rows: Sequence[str]) -> str:
    """A table of class `kind` that scrolls where it is too wide; `heads` are the HTML of cells, `rows` that of whole rows."""
    head = "".join(f"<th>{head}</th>" for head in heads)
    return f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def folded(title: str, body: str) -> str:
    """HTML that is shown when the reader asks for it."""
    return f"<details><summary>{title}</summary>{body}</details>"


def write(path: Path, page: str) -> None:
    """Write a page, whole or not at all; raise `NMTError` when the place cannot be written to."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(page.encode("utf-8", "replace"))  # half a surrogate pair in a log is no reason to fail
        partial.replace(path)
    except OSError as error:
        raise NMTError(
            f"{path}: the page could not be written ({error.strerror or error}): choose another place with --output"
        ) from None
