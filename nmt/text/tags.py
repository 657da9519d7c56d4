"""The tag that tells a model with several target languages which one is meant (Johnson et al. 2017, "Google's multilingual neural machine
translation system"): a subword of its own before each source sentence."""

from __future__ import annotations

import re

_TAG = re.compile(r"<2([A-Za-z0-9-]{2,20})>\s*")


def tag(language: str) -> str:
    """What stands before a sentence that is to be translated into `language`."""
    return f"<2{language}>"


def split_tag(text: str) -> tuple[str | None, str]:
    """The language of the tag that a text begins with, if it does, and the text behind it."""
    found = _TAG.match(text)
    return (found[1], text[found.end() :]) if found else (None, text)
