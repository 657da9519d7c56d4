"""HTML pages that need nothing else: one look for all of them, light and dark; no script, no font, no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

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
"""


def document(title: str, body: str, style: str = "") -> str:
    """A whole page; `title` is plain text, `body` and `style` are HTML and CSS. The page may load nothing and run nothing."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"/>'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\"/>"
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style></head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def plain(text: str) -> str:
    """Text of any script and direction, escaped, that leaves its surroundings alone."""
    return f'<bdi dir="auto">{escape(text)}</bdi>'


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
