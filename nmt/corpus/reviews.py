"""Product reviews made of clauses of known polarity, such as "Audio is bad, display is great, overall I am happy."

Labels are right by construction at three levels:

- A *word* has one tag, wherever it stands.
- A *clause* holds one opinion. Its polarity is that of its opinion word, turned round by every negation: "not bad" is positive,
  "far from great" negative, and in "I would not say that audio is not good" two negations cancel. Words of negation that stand
  side by side ("far from") are one negation.
- A *review* is judged by the first of these rules that applies.
  Verdict: the clause after "overall" (`VERDICTS`) decides, first or last, whatever the others say.
  Concession: the main clause decides. It stands after "but" (`CONTRASTS`); beside "although" (`CONCESSIONS`), which reaches to the
  next comma or to the end, it is the other one.
  Majority: most of the clauses decide; there are three.

So neither counting words nor reading one part, the same in every review, tells what a review says.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Tag = Literal["aspect", "positive", "negative", "negation", "intensifier", "connector", "function", "punctuation"]
_Part = tuple[str, bool | None]  # a clause and its polarity; or what joins clauses, and None

VERDICTS = ("overall", "altogether", "ultimately")
CONTRASTS = ("but", "yet")
CONCESSIONS = ("although", "though")

_NEGATED, _INTENSIFIED = 0.35, 0.25  # shares of the opinions
_INTRODUCED, _BY_VERB = 0.3, 0.25  # shares of the clauses


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


@dataclass(frozen=True)
class _Opinions:
    """Words of opinion that fit one place in a clause, and what may stand before them there."""

    positive: Sequence[str]
    negative: Sequence[str]
    negations: Sequence[str]
    intensifiers: Sequence[str]


_QUALITIES = _Opinions(
    _words(
        "good great excellent superb fantastic solid brilliant reliable impressive lovely perfect wonderful decent sturdy crisp "
        "pleasant splendid"
    ),
    _words(
        "bad terrible awful poor horrible flimsy weak faulty dreadful useless disappointing mediocre ugly shoddy annoying clumsy "
        "lousy"
    ),
    ("not", "never", "hardly", "far from", "by no means"),
    ("very", "really", "truly", "quite", "remarkably"),
)
_FEELINGS = _Opinions(
    _words("happy satisfied pleased delighted content impressed enthusiastic"),
    _words("disappointed unhappy dissatisfied annoyed frustrated angry upset"),
    _QUALITIES.negations,
    _QUALITIES.intensifiers,
)
_VERBS = _Opinions(
    _words("like love enjoy admire appreciate"),
    _words("hate dislike regret loathe resent"),
    ("do not", "never", "hardly"),
    ("really", "truly"),
)
_ASPECTS = _words(
    "audio display battery camera keyboard screen speaker microphone charger cable case hinge design software price packaging "
    "manual warranty delivery support lens zoom flash sensor processor memory storage touchpad stand remote menu interface sound "
    "picture bass volume weight finish strap fan motor handle lid button"
)
_COPULAS = ("is", "was", "seems")
_ASIDES = ("I think that", "I find that", "friends say that")
_DENIALS = ("I would not say that", "I doubt that", "nobody says that")
_TAGS: dict[str, Tag] = {
    **dict.fromkeys(_ASPECTS, "aspect"),
    **dict.fromkeys([*_QUALITIES.positive, *_FEELINGS.positive, *_VERBS.positive], "positive"),
    **dict.fromkeys([*_QUALITIES.negative, *_FEELINGS.negative, *_VERBS.negative], "negative"),
    **dict.fromkeys(_words("not never hardly far from by no means doubt nobody"), "negation"),
    **dict.fromkeys(_QUALITIES.intensifiers, "intensifier"),
    **dict.fromkeys([*VERDICTS, *CONTRASTS, *CONCESSIONS, "and"], "connector"),
    **dict.fromkeys(",:.", "punctuation"),
}  # every other word is a function word


@dataclass(frozen=True)
class Clause:
    """The words from `start` to `end` (exclusive) of a review, without the connectors around them, and whether they praise."""

    start: int
    end: int
    positive: bool


@dataclass(frozen=True)
class Review:
    """A review: its words, a tag for each, its clauses in order, and whether it is positive as a whole."""

    words: tuple[str, ...]
    tags: tuple[Tag, ...]
    clauses: tuple[Clause, ...]
    positive: bool

    @property
    def text(self) -> str:
        """The review as a person writes it: a capital at the start, no space before a punctuation mark."""
        joined = re.sub(r" (?=[,:.])", "", " ".join(self.words))
        return joined[0].upper() + joined[1:]


def reviews(count: int, seed: int) -> list[Review]:
    """Make `count` different reviews, as many positive as negative ones (one more of either where `count` is odd).

    The same seed gives the same reviews, and a smaller count the first of them.
    """
    draw = random.Random(seed)
    made: dict[Review, None] = {}
    first = False
    while len(made) < count:
        second = len(made) % 2 == 1
        if not second:
            first = _happens(draw, 0.5)
        made[_review(draw, first != second)] = None  # one that is there already is not counted: another is drawn
    return list(made)


def _happens(draw: random.Random, chance: float) -> bool:
    return draw.random() < chance


def _pick(draw: random.Random, options: Sequence[str]) -> str:
    return options[int(draw.random() * len(options))]  # only random() is promised to be the same in every Python


def _review(draw: random.Random, positive: bool) -> Review:
    """A review of the polarity asked for, by a rule that is drawn evenly."""
    rule, article = _pick(draw, ("verdict", "concession", "majority")), _pick(draw, ("", "the "))
    if rule == "verdict":
        parts = _with_verdict(draw, positive, article)
    elif rule == "concession":
        parts = _with_concession(draw, positive, article)
    else:
        votes = [positive, positive]
        votes.insert(int(draw.random() * 3), _happens(draw, 0.5))
        parts = _listed(draw, votes, article)
    words: list[str] = []
    clauses = []
    for text, polarity in [*parts, (".", None)]:
        start = len(words)
        words += text.split()
        if polarity is not None:
            clauses.append(Clause(start, len(words), polarity))
    return Review(tuple(words), tuple(_TAGS.get(word, "function") for word in words), tuple(clauses), positive)


def _with_verdict(draw: random.Random, positive: bool, article: str) -> list[_Part]:
    """Two or three clauses of any polarity, and the verdict before or after them."""
    votes = [_happens(draw, 0.5) for _ in range(2 + _happens(draw, 0.5))]
    details = _listed(draw, votes, article, opposed=_pick(draw, CONTRASTS))
    aside, liked = _aside(draw, positive)
    feeling = f"{aside} I am {_opinion(draw, _FEELINGS, liked)}"
    verdict: list[_Part] = [(_pick(draw, VERDICTS), None), (feeling, positive)]
    return [*verdict, (":", None), *details] if _happens(draw, 0.5) else [*details, (",", None), *verdict]


def _with_concession(draw: random.Random, positive: bool, article: str) -> list[_Part]:
    """A main clause, and one or two of the opposite polarity that it outweighs; it comes first as often as last."""
    conceded = _listed(draw, [not positive] * (1 + _happens(draw, 0.5)), article)
    main, comma = _clause(draw, positive, article), (",", None)
    concession: list[_Part] = [(_pick(draw, CONCESSIONS), None), *conceded]
    if _happens(draw, 0.5):
        return [main, comma, *concession]
    if _happens(draw, 0.5):
        return [*concession, comma, main]
    return [*conceded, comma, (_pick(draw, CONTRASTS), None), main]


def _listed(draw: random.Random, votes: Sequence[bool], article: str, opposed: str = "and") -> list[_Part]:
    """A clause for every vote; before the last stands "and", or `opposed` where it contradicts the one before it."""
    parts = [_clause(draw, votes[0], article)]
    for index in range(1, len(votes)):
        last, contradicts = index == len(votes) - 1, votes[index] != votes[index - 1]
        parts.append(((opposed if contradicts else "and") if last else ",", None))
        parts.append(_clause(draw, votes[index], article))
    return parts


def _clause(draw: random.Random, positive: bool, article: str) -> _Part:
    """A clause of the polarity asked for, about an aspect of the product."""
    aside, liked = _aside(draw, positive)
    aspect = article + _pick(draw, _ASPECTS)
    if _happens(draw, _BY_VERB):
        return f"{aside} I {_opinion(draw, _VERBS, liked)} {aspect}", positive
    return f"{aside} {aspect} {_pick(draw, _COPULAS)} {_opinion(draw, _QUALITIES, liked)}", positive


def _aside(draw: random.Random, positive: bool) -> tuple[str, bool]:
    """Words to begin a `positive` clause with, most often none, and the polarity of what has to follow them."""
    if not _happens(draw, _INTRODUCED):
        return "", positive
    denies = _happens(draw, 0.5)
    return _pick(draw, _DENIALS if denies else _ASIDES), positive != denies


def _opinion(draw: random.Random, opinions: _Opinions, positive: bool) -> str:
    """An opinion of the polarity asked for: a word of that polarity, or a negation and a word of the other."""
    negated = _happens(draw, _NEGATED)
    said = [_pick(draw, opinions.negations)] if negated else []
    if _happens(draw, _INTENSIFIED) and (not negated or said[0].endswith("not")):
        said.append(_pick(draw, opinions.intensifiers))
    return " ".join([*said, _pick(draw, opinions.positive if positive != negated else opinions.negative)])
