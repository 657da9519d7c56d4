"""What goes from a text into its translation as it stands: words that the model has no subwords for, what is held, and numbers.

Where it belongs is told by the word alignment (Luong et al. 2015, "Addressing the rare word problem").
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nmt.inference.alignment import Weights, Word, word_numbers
from nmt.text.placeholders import Held
from nmt.text.tokenizer import SPACE, UNK

_SURE = 0.9  # share of its attention by which a word is taken to be a part of an unknown name
_NUMBER = re.compile(r"\d+(?:[.,:/’'-]\d+)*")
_HALF_DAY = (12, 1200)  # between the hours of clocks that count to 12 and to 24


@dataclass(frozen=True)
class Copy:
    """What stands in a source word that goes into the translation; `whole` if the model sees it, too, or sees a `stand_in`, which then is a
    part of the word `around`."""

    text: str
    whole: bool
    stand_in: str = ""
    around: str = ""


def copies(ids: Sequence[int], surfaces: Sequence[str]) -> tuple[list[int], dict[int, Copy]]:
    """The places of the subwords that the model is to see, and what is to be copied, by the number of its word.

    A name with an unknown letter stays: the model knows what to do with the rest. An emoji, or a word in a script that it never saw, is
    kept from it.
    """
    numbers = word_numbers(surfaces)
    hidden: set[int] = set()
    found: dict[int, Copy] = {}
    for number in sorted({numbers[place] for place, one in enumerate(ids) if one == UNK}):
        places = [place for place, each in enumerate(numbers) if each == number]
        unknown = [place for place in places if ids[place] == UNK]
        if any(ids[place] != UNK and any(map(str.isalnum, surfaces[place])) for place in places):
            found[number] = Copy("".join(surfaces[place] for place in places).replace(SPACE, ""), whole=True)
        else:
            found[number] = Copy("".join(surfaces[place] for place in unknown), whole=False)
            hidden.update(unknown, (place for place in places if surfaces[place] == SPACE))
    return [place for place in range(len(ids)) if place not in hidden], found


def with_held(copied: dict[int, Copy], held: Sequence[Held], words: Sequence[str]) -> dict[int, Copy]:
    """The copies, with those of what is held among the source `words`, that the model reads."""
    found = dict(copied)
    for number, word in enumerate(words):
        for each in held:
            if each.stand_in not in word:
                continue
            if number in found:  # there is more in the word that the model does not know
                found[number] = Copy(found[number].text.replace(each.stand_in, each.text), found[number].whole)
            else:
                around = re.search(rf"\w*{re.escape(each.stand_in)}\w*", word)
                found[number] = Copy(each.text, True, each.stand_in, around.group() if around else "")
    return found


def with_copies(words: Sequence[Word], copied: Mapping[int, Copy], last: int, fixed: int = 0) -> list[Word]:
    """The words of a translation, and among them, once each, what is copied from the source.

    What the model saw takes the place of what it made of that: of the stand-in, or else of the word that looks there most, and of its
    neighbours that surely do. Anything else comes after what comes from the words before it, or at the end where no word comes after it;
    `last` is the source's last word that the model knows. The first `fixed` words were given: but for stand-ins they stay.
    """
    found = list(words)
    for number, copy in copied.items():
        if _in_place_of_stand_in(found, number, copy, fixed) or any(copy.text in word.text for word in found[:fixed]):
            continue
        if not _in_place_of_word(found, number, copy, fixed):
            before = [place for place, word in enumerate(found) if word.source is not None and word.source < number]
            nearest = max((found[place].source or 0 for place in before), default=0)
            place = max((place for place in before if found[place].source == nearest), default=-1)
            if number >= last:
                place = len(found) - 1
            found.insert(max(place + 1, fixed), Word(_alone(copy), number))
    return found


def with_given(words: Sequence[Word], given: Sequence[str], unknown: str, copied: Mapping[int, Copy]) -> list[Word]:
    """The words of a translation, the first of which were `given`, with those as they are that have characters without a subword, `unknown`
    in their place. The last of them may be the beginning of what is copied."""
    found = list(words)
    for place, text in enumerate(given):
        if unknown not in found[place].text:
            continue
        if place == len(given) - 1:
            said = found[place].text
            whole = next((copy.text for copy in copied.values() if copy.text.startswith(text)), text)
            text = whole + (said[len(said.rstrip(".,;:!?")) :] if whole[-1].isalnum() else "")
        found[place] = replace(found[place], text=text)
    return found


def _alone(copy: Copy) -> str:
    """What goes into a translation that has nothing of the word."""
    return copy.around.replace(copy.stand_in, copy.text) if copy.around else copy.text


def _in_place_of_stand_in(found: list[Word], number: int, copy: Copy, fixed: int) -> bool:
    """Put it where the model has said its stand-in; where it has said that again, and not because it was given, it is left out."""
    if not copy.stand_in:
        return False
    said = re.compile(re.escape(copy.stand_in) + r"(?!\d)")
    made = [place for place, word in enumerate(found) if said.search(word.text)]
    if whole := [place for place in made if re.search(rf"\b{re.escape(copy.around)}", found[place].text)]:
        made = whole
    if not made:
        return False
    best = max(made, key=lambda place: (place < fixed, found[place].source == number, found[place].share))
    for place in reversed(made):
        before, after = said.split(found[place].text, maxsplit=1)
        if place == best or place < fixed:
            found[place] = Word(before + copy.text + after, number)
        elif any(map(str.isalnum, before + after)):
            found[place] = Word(before + after, found[place].source, found[place].share)
        else:
            del found[place]
    return True


def _in_place_of_word(found: list[Word], number: int, copy: Copy, fixed: int) -> bool:
    made = [place for place, word in enumerate(found) if place >= fixed and copy.whole and word.source == number]
    if not made:
        return False
    text, first = _alone(copy), max(made, key=lambda place: found[place].share)
    last = first
    while first - 1 in made and found[first - 1].share > _SURE:
        first -= 1
    while last + 1 in made and found[last + 1].share > _SURE:
        last += 1
    said = found[last].text
    if text[-1].isalnum() or copy.around:
        text += said[len(said.rstrip(".,;:!?")) :]
    found[first : last + 1] = [Word(text, number)]
    return True


# --- numbers --------------------------------------------------------------------------------------------------------------


def with_numbers(words: Sequence[Word], source: Sequence[str], looks: Weights, fixed: int = 0) -> list[Word]:
    """The words of a translation with the numbers of the `source` words, where the model has said another number for one; the first
    `fixed` words were given, and stay.

    A number that was not asked for takes the digits of the missing one to which it looks most; where none is missing, it is left out if it
    stands beside another one for the same source word. `looks` (words, source words + 1) is as `by_words` gives it. Numbers in letters, and
    hours of the other kind of clock, stay as they are.
    """
    wanted = {place: match.group() for place, word in enumerate(source) if (match := _NUMBER.search(word))}
    asked = Counter(_digits(number) for word in source for number in _NUMBER.findall(word))
    wrong: list[int] = []
    for place, word in enumerate(words):
        for number in map(_digits, _NUMBER.findall(word.text)):
            asked[number] -= 1
            if asked[number] < 0 and place >= fixed:
                wrong.append(place)
    lost = [place for place, number in wanted.items() if asked[_digits(number)] > 0]
    found = list(words)
    for _, place, at in sorted(((float(looks[i, j]), i, j) for i in wrong for j in lost), reverse=True):
        said = _NUMBER.search(found[place].text)
        if place not in wrong or at not in lost or said is None or _same_hour(said.group(), wanted[at]):
            continue
        wrong.remove(place)
        lost.remove(at)
        text = found[place].text.replace(said.group(), _written_like(wanted[at], said.group()), 1)
        found[place] = Word(text, at, found[place].share)
    for place in reversed(wrong):
        beside = [word for word in found[max(0, place - 1) : place + 2] if word is not found[place]]
        if not any(map(str.isalpha, found[place].text)) and any(
            word.source == found[place].source and _NUMBER.search(word.text) for word in beside
        ):
            del found[place]
    return found


def _digits(number: str) -> str:
    return re.sub(r"\D", "", number)


def _same_hour(one: str, other: str) -> bool:
    digits = _digits(one), _digits(other)
    return max(map(len, digits)) <= 4 and abs(int(digits[0]) - int(digits[1])) in _HALF_DAY


def _written_like(number: str, example: str) -> str:
    """With the marks between its digits turned round, where the language of `example` has them so."""
    if "," in number and "." not in number and "." in example and "," not in example:
        return number.replace(",", ".")
    if "." in number and "," not in number and "," in example and "." not in example:
        return number.replace(".", ",")
    return number
