"""Inline elements by the word alignment: a name or number of a sentence is made bold, and the same word should be bold in the translation.

    PYTHONPATH=benchmarks python benchmarks/inline_elements.py        a minute on two cores

Sentences of the test split of data/prepared/tatoeba-en-de with a name or number that stands in the translation, too, once in each. `exact`
counts elements around that word alone, `inside` those that hold it beside others.
"""

from __future__ import annotations

import html
import os
import re

from serve_sides import BUNDLE, ROOT

from nmt.corpus.store import PreparedCorpus
from nmt.documents.markup import Html
from nmt.inference.translator import Translator
from nmt.training.machine import processor

WORD = re.compile(r"[^\W_]{2,}")


def main() -> None:
    """Print a line."""
    sources = [source for source, _ in PreparedCorpus.open(ROOT / "data/prepared/tatoeba-en-de").pairs("test")]
    translator = Translator.load(BUNDLE)
    search = translator.defaults.model_copy(update={"alignment": True})
    plain = [each.text for each in translator.translate(sources, search)]
    chosen = [(source, word) for source, said in zip(sources, plain, strict=True) for word in shared(source, said)[:1]]
    pages = [
        Html(re.sub(rf"\b{word}\b", f"<b>{word}</b>", html.escape(source, quote=False), count=1))
        for source, word in chosen
    ]
    found = translator.translate([page.texts[0] for page in pages], search)
    exact = inside = 0
    for page, each, (_, word) in zip(pages, found, chosen, strict=True):
        bold = re.findall(r"<b>(.*?)</b>", page.write([each.hypotheses[0]]))
        exact += bold == [word]
        inside += len(bold) == 1 and word in WORD.findall(bold[0])
    shares = f"exact {exact / len(chosen):.1%}, inside {inside / len(chosen):.1%}"
    print(f"{processor()}, {os.cpu_count()} cores; {len(chosen)} sentences: {shares}")


def shared(source: str, said: str) -> list[str]:
    """Names and numbers that both sides hold once."""
    words, others = WORD.findall(source), WORD.findall(said)
    return [word for word in words if words.count(word) == 1 == others.count(word) and not word[0].islower()]


if __name__ == "__main__":
    main()
