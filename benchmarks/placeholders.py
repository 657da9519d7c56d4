"""What of a text has to arrive as it is, and does: numbers and placeholders, with the bundled model, kept and left to the model.

    python benchmarks/placeholders.py            a minute on two cores

Numbers: sentences of the validation and test splits of data/prepared/tatoeba-en-de that hold digits; a translation is right if it holds the
same numbers or writes the missing ones in letters. Placeholders: sentences of the test split in which names become `{name}`, `%s` or an
address and numbers become `%d`; a translation is right if it holds each as often as its source. BLEU of the test split says what it costs.
"""

from __future__ import annotations

import os
import re
from collections import Counter

import sacrebleu
from serve_sides import BUNDLE, ROOT

from nmt.corpus.store import PreparedCorpus
from nmt.inference.translator import Translator
from nmt.training.machine import processor

NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
NAME = re.compile(r"\b(?:Tom|Mary|Boston|Australia|John|French)\b")
FORMS = ("{name}", "%s", "https://example.org/page?id=3", "%1$s", "{{ user.name }}")


def main() -> None:
    """Print a table."""
    corpus = PreparedCorpus.open(ROOT / "data/prepared/tatoeba-en-de")
    test = list(corpus.pairs("test"))
    pairs = [*corpus.pairs("validation"), *test]
    with_digits = [source for source, _ in pairs if NUMBER.search(source)]
    marked = [
        placed(source, number)
        for number, (source, _) in enumerate(test)
        if NAME.search(source) or NUMBER.search(source)
    ]
    translator = Translator.load(BUNDLE)
    print(f"{processor()}, {os.cpu_count()} cores")
    for keep in (False, True):
        search = translator.defaults.model_copy(update={"keep_placeholders": keep})
        said = [each.text for each in translator.translate(with_digits, search)]
        wrong = sum(bool(numbers(text) - numbers(source)) for source, text in zip(with_digits, said, strict=True))
        found = [each.text for each in translator.translate([text for text, _ in marked], search)]
        kept = sum(
            all(text.count(one) == count for one, count in forms.items())
            for text, (_, forms) in zip(found, marked, strict=True)
        )
        whole = [each.text for each in translator.translate([source for source, _ in test], search)]
        bleu = sacrebleu.corpus_bleu(whole, [[target for _, target in test]]).score
        print(
            f"{'kept' if keep else 'left to the model'}: a number that is not the source's in {wrong} of {len(with_digits)} sentences; "
            f"placeholders right in {kept} of {len(marked)}; BLEU of the test split {bleu:.2f}",
            flush=True,
        )


def numbers(text: str) -> Counter[str]:
    """The digits of each number."""
    return Counter(re.sub(r"\D", "", number) for number in NUMBER.findall(text))


def placed(source: str, number: int) -> tuple[str, Counter[str]]:
    """The sentence with placeholders for its names and numbers, and how often it holds which."""
    form = FORMS[number % len(FORMS)]
    text = NUMBER.sub("%d", source)
    digits = text.count("%d")
    text, names = NAME.subn(lambda _: form, text)
    return text, Counter({"%d": digits}) + Counter({form: names})


if __name__ == "__main__":
    main()
