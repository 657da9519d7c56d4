"""What probes ask of an encoder, at three levels: sentences, the steps that a question is about, and the right answers.

Two sources. Generated reviews, whose labels are known by construction: the category of a word, whether a clause praises, whether the
review does. And the evaluation sentences of a prepared corpus, labelled by rules that read English words; a rule errs now and then,
alike for every layer.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from nmt.corpus.reviews import Review, reviews
from nmt.corpus.store import PreparedCorpus
from nmt.errors import ConfigError
from nmt.inference.bundle import Bundle
from nmt.inspection.sentence import spans
from nmt.text.normalize import normalize
from nmt.text.tokenizer import EOS, Tokenizer

_OFFERED = 3  # reviews generated for one that is asked for: some are longer than a model takes
Level = Literal["word", "clause", "sentence"]
LEVELS: tuple[Level, ...] = ("word", "clause", "sentence")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEGATIONS = _words("not never no nobody nothing nowhere none neither nor cannot")
_PRESENT = _words("am is are isn't aren't i'm you're we're they're do does don't doesn't")
_PAST = _words(
    "was were wasn't weren't did didn't had hadn't went said told came saw knew thought took gave made found kept bought brought "
    "caught taught felt heard held met paid sent sold slept spent stood understood won ate drank drove wrote spoke fell flew began "
    "sang ran chose forgot woke wore threw grew drew rode stole lost became sat"
)
_NO_PAST = _words("need indeed hundred speed exceed proceed succeed naked sacred wicked")  # end in -ed
_UNCLEAR = _words(
    "will would can could may might must shall should won't wouldn't can't cannot couldn't mustn't shouldn't have has haven't hasn't "
    "let's he's she's it's that's what's there's who's where's how's here's used"
)
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_FINAL = re.compile(r"[\s.?!…\"”']+$")


@dataclass(frozen=True)
class Item:
    """One thing that has a label: its text, its first and last step there, and its form, which control labels belong to."""

    text: int
    first: int
    last: int
    label: str
    form: str


@dataclass(frozen=True)
class Task:
    """One question: `rule` says where the right answers come from."""

    name: str
    level: Level
    rule: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Material:
    """Sentences, as source ids with their end marks, and the questions about them."""

    sentences: tuple[list[int], ...]
    tasks: tuple[Task, ...]


def materials(
    bundle: Bundle, corpus: PreparedCorpus | None, count: int, seed: int
) -> tuple[list[Material], tuple[str, ...]]:
    """What to ask the bundle's model: `count` generated reviews, and as many sentences of `corpus` for each of its questions.

    Also returns notes on what was left out. Raises `ConfigError` when the model does not read English.
    """
    language, limit = bundle.config.source_language, bundle.config.max_source_tokens
    if language.partition("-")[0] != "en":
        raise ConfigError(
            f"probes know the labels of English sentences only, and {bundle.config.name} reads {language!r}"
        )
    if corpus is not None and corpus.languages[0] != language:
        raise ConfigError(f"{corpus.path}: its source language is {corpus.languages[0]!r}, the model's is {language!r}")
    offered = reviews(_OFFERED * count, seed)
    made = [review_material(bundle.source_tokenizer, offered, count, limit, seed)]
    notes = [
        f"Reviews: the first {len(made[0].sentences)} of at most {limit} subwords, which is what the model takes in one piece, among "
        f"{len(offered)} generated ones."
    ]
    if corpus is not None:
        made += corpus_materials(corpus, bundle.source_tokenizer, count, limit, seed)
        notes.append(
            f"Corpus: validation and test sentences of {corpus.manifest['recipe']['name']}, within the same limit."
        )
    stack = bundle.config.model.encoder
    both = [str(i + 1) for i in range(stack.layers) if stack.both_ways(i)]
    if 0 < len(both) < stack.layers:
        notes.append(
            f'Only layer {", ".join(both)} of this encoder reads both ways, so that "last" shows more of it than of the others; "mean" '
            "compares all layers evenly."
        )
    return made, tuple(notes)


def review_material(tokenizer: Tokenizer, offered: Iterable[Review], count: int, limit: int, seed: int) -> Material:
    """The first `count` of `offered` reviews that have at most `limit` subwords, asked about at all three levels."""
    sentences: list[list[int]] = []
    items: dict[Level, list[Item]] = {level: [] for level in LEVELS}
    for review in offered:
        ids = tokenizer.encode([review.text])[0]
        if len(sentences) == count:
            break
        if len(ids) > limit:
            continue
        steps = _steps_of_words(tokenizer, ids, review)
        if steps is None:
            continue
        for (first, last), word, tag in zip(steps, review.words, review.tags, strict=True):
            items["word"].append(Item(len(sentences), first, last, tag, word))
        for clause in review.clauses:
            form = " ".join(review.words[clause.start : clause.end])
            first, last = steps[clause.start][0], steps[clause.end - 1][1]
            items["clause"].append(Item(len(sentences), first, last, _praise(clause.positive), form))
        items["sentence"].append(Item(len(sentences), 0, len(ids), _praise(review.positive), review.text))
        sentences.append([*ids, EOS])
    rules: dict[Level, tuple[str, str]] = {
        "word": ("word category", "the category that the generator took the word from"),
        "clause": ("clause polarity", "whether the clause praises; a negation turns its opinion word round"),
        "sentence": (
            "review polarity",
            "whether the review praises, by its verdict, its main clause or most of its clauses",
        ),
    }
    # Words and clauses of one sentence say much the same: two a sentence are enough, and keep the work small.
    tasks = (Task(*_named(rules, level), _balanced(items[level], 2 * count, seed)) for level in LEVELS)
    return Material(tuple(sentences), tuple(tasks))


def corpus_materials(corpus: PreparedCorpus, tokenizer: Tokenizer, count: int, limit: int, seed: int) -> list[Material]:
    """At most `count` evaluation sentences of `corpus` for each question, of at most `limit` subwords, as many of either answer."""
    splits = [name for name in ("validation", "test") if (corpus.path / f"{name}.jsonl").is_file()]
    texts = {normalize(source).replace("’", "'"): None for split in splits for source, _ in corpus.pairs(split)}
    questions: tuple[tuple[str, Callable[[str], str | None], bool, str], ...] = (
        ("question", question, True, "the sentence ended with ?; probed without its final punctuation"),
        ("negation", negation, False, f"a word is one of {', '.join(sorted(_NEGATIONS))}, or ends with n't"),
        (
            "tense",
            tense,
            False,
            "words such as was, did, went, walked against am, is, are, do; unclear sentences are left out",
        ),
    )
    materials = []
    for name, rule, bare, words in questions:
        asked: dict[str, str] = {}  # the answer for every text
        for text in texts:
            answer = rule(text)
            if answer is not None:
                asked[_FINAL.sub("", text) if bare else text] = answer
        encoded = dict(zip(asked, tokenizer.encode(list(asked)), strict=True))
        fitting = [text for text, ids in encoded.items() if 0 < len(ids) <= limit]
        items = [Item(i, 0, len(encoded[text]), asked[text], text) for i, text in enumerate(fitting)]
        sentences = tuple([*encoded[text], EOS] for text in fitting)
        materials.append(Material(sentences, (Task(name, "sentence", words, _balanced(items, count, seed)),)))
    return materials


def question(text: str) -> str | None:
    """Whether `text` is a question; None where a question mark stands within it."""
    if "?" in _FINAL.sub("", text):
        return None
    return "question" if "?" in text else "statement"


def negation(text: str) -> str | None:
    """Whether a word of `text` negates."""
    words = _WORD.findall(text.lower())
    return "negated" if any(word in _NEGATIONS or word.endswith("n't") for word in words) else "plain"


def tense(text: str) -> str | None:
    """Whether the verbs of `text` are in the past or in the present; None where its words don't say, or say both."""
    words = set(_WORD.findall(text.lower()))
    past = bool(words & _PAST) or any(len(w) > 4 and w.endswith("ed") and w not in _NO_PAST for w in words)
    present = bool(words & _PRESENT)
    if past == present or words & _UNCLEAR or any(word.endswith(("'ve", "'ll", "'d")) for word in words):
        return None
    return "past" if past else "present"


def _named(rules: dict[Level, tuple[str, str]], level: Level) -> tuple[str, Level, str]:
    name, rule = rules[level]
    return name, level, rule


def _praise(positive: bool) -> str:
    return "positive" if positive else "negative"


def _steps_of_words(tokenizer: Tokenizer, ids: Sequence[int], review: Review) -> list[tuple[int, int]] | None:
    """First and last step of each word of the review; None where subwords can't be laid beside the text."""
    where = spans(tokenizer, ids, review.text)
    if where is None:
        return None
    owner = {position: step for step, (start, end) in enumerate(where) for position in range(start, end)}
    text, at, steps = review.text.lower(), 0, []
    for word in review.words:
        start = text.index(word.lower(), at)
        at = start + len(word)
        steps.append((owner[start], owner[at - 1]))
    return steps


def _balanced(items: Sequence[Item], count: int, seed: int) -> tuple[Item, ...]:
    """As many items of each label, drawn at random, `count` at most together."""
    labels = Counter(item.label for item in items)
    if not labels:
        return ()
    each = min(*labels.values(), count // len(labels))
    drawn = random.Random(seed).sample(items, len(items))
    taken: Counter[str] = Counter()
    kept = []
    for item in drawn:
        if taken[item.label] < each:
            taken[item.label] += 1
            kept.append(item)
    return tuple(kept)
