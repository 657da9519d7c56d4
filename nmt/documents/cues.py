"""The cues of subtitles in SubRip (by srt) and WebVTT (https://www.w3.org/TR/webvtt1/, 6.1): their times, and where their text is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import srt

from nmt.documents.plain import place_lines
from nmt.errors import InputError

_INDEX = re.compile(r"-?\d{1,9}(?:\.\d{0,9})?")
_ARROW = re.compile(r".*-->|\s*-?\d[^>]*- ?-? ?>")
_TIME = r"(?:(\d{2,9}):)?([0-5]\d):([0-5]\d)\.(\d{3})"
_TIMES = re.compile(rf"[ \t]*{_TIME}[ \t]*-->[ \t]*{_TIME}(?:[ \t]|$)")
_LONGEST = 500  # characters of a line with times


@dataclass(frozen=True, slots=True)
class Cue:
    """When a cue is shown, in seconds, and the lines of its text with where in the file they begin."""

    begin: float
    end: float
    lines: Sequence[tuple[int, str]]


def subrip(text: str) -> list[Cue]:
    """The cues of a SubRip file. Raises InputError where one has no number or no times."""
    lines = place_lines(text)
    heads: list[tuple[int, int]] = []  # the lines that begin cues, and those with the times
    index = ""
    for number, (_, line) in enumerate(lines):
        before = lines[number - 1][1].strip() if number else ""
        numbered = _INDEX.fullmatch(before) is not None
        if _ARROW.match(line) and (numbered or not before):
            heads.append((number - numbered, number))
            index = before
        elif not heads and line.strip() and not _INDEX.fullmatch(line.strip()):
            raise _no_cue(number)
        elif index.isdecimal() and before == str(int(index) + 1) and line.strip() and not lines[number - 2][1].strip():
            raise _untimed(number, before, line, "00:00:01,000 --> 00:00:02,500")
    if not heads and text.strip():
        raise _no_cue(0)
    return list(_subrip_cues(lines, heads))


def _subrip_cues(lines: Sequence[tuple[int, str]], heads: Sequence[tuple[int, int]]) -> Iterator[Cue]:
    ends = [*(first for first, _ in heads), len(lines)][1:]
    for (first, timed), last in zip(heads, ends, strict=True):
        line = lines[timed][1].strip()
        try:
            (cue,) = srt.parse(f"1\n{line}\n.\n" if len(line) <= _LONGEST else "")
        except (srt.SRTParseError, ValueError, OverflowError):
            name = lines[first][1].strip() if first < timed else ""
            raise _untimed(timed, name, line, "00:00:01,000 --> 00:00:02,500") from None
        while last > timed + 1 and not lines[last - 1][1].strip():
            last -= 1
        yield Cue(cue.start.total_seconds(), cue.end.total_seconds(), lines[timed + 1 : last])


def webvtt(text: str) -> list[Cue]:
    """The cues of a WebVTT file. Raises InputError where it is none, and for times that are none."""
    lines = place_lines(text)
    if not lines or not re.match(r"WEBVTT(?:[ \t]|$)", lines[0][1]):
        raise InputError("line 1: not WEBVTT; a WebVTT file begins with a line that says WEBVTT")
    cues: list[Cue] = []
    for number, (_, line) in enumerate(lines):
        if "-->" in line:
            found = _TIMES.match(line)
            if found is None:
                name = lines[number - 1][1].strip() if number > 1 else ""
                raise _untimed(number, name, line, "00:00:01.000 --> 00:00:02.500")
            last = number + 1
            while last < len(lines) and lines[last][1] and "-->" not in lines[last][1]:
                last += 1
            cues.append(Cue(_seconds(*found.groups()[:4]), _seconds(*found.groups()[4:]), lines[number + 1 : last]))
    return cues


def _seconds(hours: str | None, minutes: str, seconds: str, thousandths: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + int(thousandths) / 1000


def _no_cue(line: int) -> InputError:
    return InputError(f"line {line + 1}: no cue; a SubRip file begins with a number, and times on the next line")


def _untimed(line: int, name: str, found: str, example: str) -> InputError:
    cue = f"cue {name}" if name else "a cue"
    return InputError(f"line {line + 1}: {cue} has {found.strip()[:50]!r} for its times; write {example}")
