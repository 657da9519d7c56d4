"""Subtitles (SubRip, WebVTT): what is said in them, sentence by sentence, and the same cues with its translation. All but the text of cues
stays as it is, to the byte."""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from nmt.documents.collected import Collected
from nmt.documents.cues import Cue, subrip, webvtt
from nmt.documents.inline import Links, Passage
from nmt.documents.plain import decode
from nmt.inference.types import Hypothesis

_MOST = 100  # tags in a text; one with more stays
_TOGETHER = 6  # cues at most that a sentence goes over
_PAUSE = 2.0  # seconds, after which another sentence begins
# Kana and Han, which have no spaces between words.
_SPACELESS = r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
# Where a text may be cut: at white space, and between characters of these.
_CUT = re.compile(rf"(?<=\S)\s+(?=\S)|(?<={_SPACELESS}|[、。，！？」』）])(?={_SPACELESS}|[「『（])")
_SENTENCE_END = re.compile(r"[.!?…。！？।؟♪♫)\]）】][\"'”’»」』\s]*$")
_NAME = re.compile(r"<(/?)([a-zA-Z]+)")


@dataclass(frozen=True, slots=True)
class _Speech:
    """What one speaker says in a cue, between two places of the file."""

    start: int
    end: int
    cue: int
    passage: Passage
    lines: int
    new: bool  # does not continue what is before
    last: bool  # in its cue

    @property
    def voice(self) -> str:
        """The tag that names the speaker, if there is one."""
        opening = self.passage.elements[0].opening if self.passage.elements else ""
        return opening if opening.startswith("<v") else ""


class Subtitles:
    """A file of cues: `texts` are the sentences that are said, each of which may go over several cues, and `write` is the file with their
    translations, each divided among its cues: where the words come from the words of each, or else by the lengths."""

    def __init__(self, content: bytes, read: Callable[[str], Sequence[Cue]], tag: str, escapes: bool) -> None:
        """`read` finds the cues, `tag` is the pattern of tags in them; `escapes` says whether there are character references."""
        self._text, self._encoding = decode(content)
        self._cues, self._escapes = read(self._text), escapes
        self._tag = re.compile(tag)
        self._speaker = re.compile(rf"(?:{tag}|[ \t])*+[-–—‐](?![-\d])[ \t]*")
        self._line_end = "\r\n" if "\r\n" in self._text else "\n"
        self._groups: list[list[_Speech]] = []
        before: _Speech | None = None
        for number in range(len(self._cues)):
            for speech in self._speeches(number):
                if not any(map(str.isalnum, speech.passage.text)):
                    before = None
                elif before is not None and self._continues(before, speech) and len(self._groups[-1]) < _TOGETHER:
                    self._groups[-1].append(speech)
                    before = speech
                else:
                    self._groups.append([speech])
                    before = speech
        self._joined = [_joined([speech.passage.text for speech in group]) for group in self._groups]
        self.texts = [text for text, _ in self._joined]

    def write(self, found: Sequence[Hypothesis]) -> bytes:
        """The file, given a translation of each text, with its links."""
        pieces, end = [], 0
        for group, (text, starts), each in zip(self._groups, self._joined, found, strict=True):
            parts = _divided(each, text, starts)
            for speech, (part, links) in zip(group, parts, strict=True):
                if part != speech.passage.text:
                    pieces += [self._text[end : speech.start], self._filled(speech, part, links)]
                    end = speech.end
        return self._encoding.encode("".join([*pieces, self._text[end:]]))

    def _speeches(self, number: int) -> Iterator[_Speech]:
        """What each speaker says in a cue: a dash begins another, and so does a blank line."""
        groups: list[list[tuple[int, str]]] = []
        dashed: list[bool] = []
        apart = True
        for start, line in self._cues[number].lines:
            if not line.strip():
                apart = True
                continue
            dash = self._speaker.match(line)
            if apart or dash:
                groups.append([])
                dashed.append(dash is not None)
                apart = False
            skipped = dash.end() if dash else len(line) - len(line.lstrip(" \t"))
            groups[-1].append((start + skipped, line[skipped:].rstrip(" \t")))
        for place, lines in enumerate(groups):
            end = lines[-1][0] + len(lines[-1][1])
            passage = self._passage([line for _, line in lines])
            new, last = place > 0 or dashed[place], place == len(groups) - 1
            yield _Speech(lines[0][0], end, number, passage, len(lines), new, last)

    def _passage(self, lines: Sequence[str]) -> Passage:
        """The lines as one; nothing, where there are too many tags."""
        before = ""
        pieces: list[str] = []
        for line in lines:
            text = self._tag.sub("", line)
            pieces += [_joint(before, text), line]
            before = text or before
        raw = "".join(pieces)
        tags = list(self._tag.finditer(raw))
        if len(tags) > _MOST:
            return Passage("")
        collected, at = Collected(), 0
        for tag in tags:
            collected.add(self._plain(raw[at : tag.start()]))
            name = _NAME.match(tag.group())
            if name is None or name[2] == "br":
                collected.mark(tag.group())
            elif name[1]:
                collected.close(name[2], tag.group())
            else:
                collected.open(name[2], tag.group())
            at = tag.end()
        collected.add(self._plain(raw[at:]))
        return collected.passage({})[0]

    def _plain(self, text: str) -> str:
        return re.sub(r"[ \t]+", " ", html.unescape(text) if self._escapes else text)

    def _continues(self, before: _Speech, speech: _Speech) -> bool:
        """Whether a speech may go on with the sentence of the one before."""
        ended, begun = self._cues[before.cue], self._cues[speech.cue]
        return (
            speech.cue == before.cue + 1
            and before.last
            and not speech.new
            and not _SENTENCE_END.search(before.passage.text)
            and begun.begin > ended.begin
            and begun.begin - ended.end <= _PAUSE
            and speech.voice in ("", before.voice)
        )

    def _filled(self, speech: _Speech, text: str, links: Links) -> str:
        cuts = [(match.start(), match.end()) for match in _CUT.finditer(text)]
        if speech.lines > 1 and cuts:
            first, second = min(cuts, key=lambda cut: max(cut[0], len(text) - cut[1]))
            text = f"{text[:first]}\n{text[second:]}"
            links = links if first < second else ()  # two words now
        return speech.passage.write(text, links, self._escaped)

    def _escaped(self, text: str) -> str:
        if self._escapes:
            text = text.replace("&", "&amp;").replace("<", "&lt;").replace("-->", "--&gt;")
        return text.replace("\n", self._line_end)


class Srt(Subtitles):
    """A SubRip file (.srt). Raises InputError for one whose cues cannot be read."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content, subrip, r"</?[a-zA-Z][^<>\n]*>|\{\\[^{}\n]*\}", escapes=False)


class Vtt(Subtitles):
    """A WebVTT file (.vtt). Raises InputError for what is none."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content, webvtt, r"<[^<>\n]*>", escapes=True)


def _joint(before: str, after: str) -> str:
    """What stands between two lines that are joined to one."""
    spaceless = re.match(rf"{_SPACELESS}|[、。，！？」』）]", before[-1:]) and re.match(
        rf"{_SPACELESS}|[「『（]", after
    )
    return "" if spaceless or not before else " "


def _joined(texts: Sequence[str]) -> tuple[str, list[int]]:
    """The texts as one, and where in it each begins."""
    joined, starts = "", []
    for text in texts:
        joined += _joint(joined, text)
        starts.append(len(joined))
        joined += text
    return joined, starts


def _divided(found: Hypothesis, text: str, starts: Sequence[int]) -> list[tuple[str, Links]]:
    """A translation cut into as many parts as the text has, each with its links."""
    translation = found.text.strip()
    cuts = _cuts(translation, found.links, text, starts)
    bounds = list(zip([0, *cuts], [*cuts, len(translation)], strict=True))
    parts = [translation[first:last].strip() for first, last in bounds]
    texts = [text[first:last] for first, last in zip(starts, [*starts[1:], len(text)], strict=True)]
    sources = [0, *accumulate(len(each.split()) for each in texts)]
    targets = [0, *accumulate(len(each.split()) for each in parts)]
    if sources[-1] != len(text.split()) or targets[-1] != len(translation.split()):  # cut inside words
        return [(part, ()) for part in parts]
    links = [
        tuple(
            (source - sources[number], target - targets[number])
            for source, target in found.links
            if sources[number] <= source < sources[number + 1] and targets[number] <= target < targets[number + 1]
        )
        for number in range(len(parts))
    ]
    return list(zip(parts, links, strict=True))


def _cuts(translation: str, links: Links, text: str, starts: Sequence[int]) -> list[int]:
    """Where to cut the translation: where all before comes from before a start and all behind from behind it, if there is such a place, and
    nearest to where the lengths are in proportion; at each place once, as far as there are places."""
    places = [match.start() for match in _CUT.finditer(translation)]
    ends = [match.end() for match in re.finditer(r"\S+", translation)]
    highest, lowest = [-1] * (len(ends) + 1), [len(text)] * (len(ends) + 1)
    for source, target in links:
        if target < len(ends):
            highest[target + 1] = max(highest[target + 1], source)
            lowest[target] = min(lowest[target], source)
    highest = list(accumulate(highest, max))
    lowest = list(accumulate(reversed(lowest), min))[::-1]
    cuts: list[int] = []
    used = 0
    for number, start in enumerate(starts[1:], 1):
        words = len(text[:start].split())
        wanted = start * len(translation) // len(text)
        free = range(used, max(len(places) - (len(starts) - 1 - number), min(used + 1, len(places))))
        clean = []
        for place in free:
            before = bisect_right(ends, places[place])
            if highest[before] < words <= lowest[before]:
                clean.append(place)
        best = min(clean or free, key=lambda place: abs(places[place] - wanted), default=len(places))
        cuts.append(places[best] if best < len(places) else len(translation))
        used = best + 1
    return cuts
