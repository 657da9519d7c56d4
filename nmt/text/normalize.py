"""Unicode normalisation, the same for training text and for text to be translated."""

from __future__ import annotations

import re
import unicodedata

# Zero-width joiner and non-joiner carry meaning in several scripts and stay; other invisible format characters go.
_KEPT_FORMAT = {"\u200c", "\u200d"}
_SPACES = re.compile(r"\s+")


def normalize(text: str) -> str:
    """Canonical form of one line: NFC, no control or invisible characters, single spaces, no space at the ends."""
    if text.isascii() and text.isprintable() and "  " not in text:  # the common case, unchanged by all that follows
        return text.strip()
    composed = unicodedata.normalize("NFC", text)
    spaced = _SPACES.sub(" ", composed)
    if not spaced.isprintable():
        visible = "".join(c for c in spaced if c == " " or c in _KEPT_FORMAT or not _invisible(c))
        spaced = _SPACES.sub(" ", unicodedata.normalize("NFC", visible))  # what stood apart may compose now
    return spaced.strip()


def _invisible(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cf", "Cs"}
