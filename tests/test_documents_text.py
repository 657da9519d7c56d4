"""Documents of text (plain, tables, Markdown, subtitles, catalogues): only what is text changes, all else stays to the byte."""

from __future__ import annotations

import codecs
import csv
import io
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol

import polib
import pytest
import srt
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.documents.catalogue import Catalogue
from nmt.documents.markdown import Markdown
from nmt.documents.plain import PlainText, Table
from nmt.documents.subtitles import Srt, Vtt
from nmt.errors import InputError
from nmt.inference.types import Hypothesis

ANYTHING = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=80)
WORD = st.text("abcdefgäöüß", min_size=1, max_size=8)
PARTS = st.lists(
    ANYTHING | st.sampled_from(["\n", "\r\n", "\r", "\t", "  ", "- ", "\u2028", "word", "\ufeff"]), max_size=20
)


class Document(Protocol):
    texts: list[str]

    def write(self, found: Sequence[Hypothesis]) -> bytes: ...


def translated(document: Document, change: Callable[[str], str], aligned: bool = True) -> bytes:
    """The document with each text changed, its words in their order."""
    found = []
    for text in document.texts:
        links = tuple((place, place) for place in range(len(text.split()))) if aligned else ()
        found.append(Hypothesis(change(text), 0.0, alignment=links))
    return document.write(found)


def same(text: str) -> str:
    return text


def shouted(text: str) -> str:
    """In capitals, but for placeholders."""
    return "".join(part if part.startswith("{{") else part.upper() for part in re.split(r"(\{\{\w+\}\})", text))


# --- encodings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [
    "Größe\r\nzwei\n".encode(), codecs.BOM_UTF8 + "Größe\n".encode(),
    codecs.BOM_UTF16_LE + "Größe 😀\n".encode("utf-16-le"), codecs.BOM_UTF16_BE + "Größe".encode("utf-16-be"), b"",
])  # fmt: skip
def test_an_encoding_and_its_mark_are_kept(content: bytes) -> None:
    assert translated(PlainText(content), same) == content
    changed = translated(PlainText(content), lambda text: text.replace("Größe", "大きさ"))
    codec = "utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8"
    assert changed.decode(codec) == content.decode(codec).replace("Größe", "大きさ")
    assert changed[:2] == content[:2] or not content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


@pytest.mark.parametrize(("content", "words"), [
    (b"one\nn\xe4chste\n", ["line 2", "byte 6", "0xe4", "UTF-8"]),
    (codecs.BOM_UTF16_LE + "a\nb".encode("utf-16-le") + b"\x00", ["line 2", "byte 9", "UTF-16"]),
    (b"a\nb\0c", ["line 2", "byte 4", "NUL"]),
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ["line 1", "byte 1 ", "0x89"]),
    (b"PK\x03\x04\x14\0\x06\0", ["line 1", "byte 6", "no text file"]),
    ("Wort".encode("utf-32"), ["NUL", "UTF-32"]),
    ("Wort".encode("utf-16-le"), ["byte 2", "NUL", "UTF-16"]),
])  # fmt: skip
@pytest.mark.parametrize("kind", [PlainText, Table, Markdown, Srt, Vtt, Catalogue])
def test_what_is_no_text_is_refused(kind: Callable[[bytes], Document], content: bytes, words: list[str]) -> None:
    refused(lambda: kind(content), words)


def refused(read: Callable[[], object], words: Sequence[str]) -> None:
    with pytest.raises(InputError) as caught:
        read()
    assert "\n" not in str(caught.value)
    assert [word for word in words if word not in str(caught.value)] == []


# --- plain text ------------------------------------------------------------------------------------------------------------


@given(PARTS.map("".join), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
@settings(max_examples=300, deadline=None)
def test_plain_text_stays_to_the_byte(text: str, codec: str) -> None:
    content = text.encode(codec)
    assert translated(PlainText(content), same) == content


@given(PARTS.map("".join).map(lambda text: text.lstrip("\ufeff")))
@settings(max_examples=300, deadline=None)
def test_only_lines_of_plain_text_change(text: str) -> None:
    document = PlainText(text.encode())
    assert not any(set(each) & set("\n\r\t\v\f\x1c\x1d\x1e\x85\u2028\u2029") for each in document.texts)
    emptied = translated(document, lambda each: "").decode()
    assert Counter(emptied + "".join(document.texts)) == Counter(text)


def test_lines_of_plain_text_are_its_texts() -> None:
    document = PlainText(b"Title\n=====\r\n\r\n  - one. two.\n\ta\tb  \n---\nend")
    assert document.texts == ["Title", "one. two.", "a", "b", "end"]
    assert translated(document, str.upper) == b"TITLE\n=====\r\n\r\n  - ONE. TWO.\n\tA\tB  \n---\nEND"


# --- tables ----------------------------------------------------------------------------------------------------------------


CELL = st.lists(st.sampled_from(["word", " ", ",", ";", "\t", '"', "\n", "\r\n", "12", "ä", "|", "'"]), max_size=6).map(
    "".join
)


@given(
    st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=1, max_size=8),
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_only_cells_of_the_columns_change(
    rows: list[list[str]], delimiter: str, line_end: str, quoting: int, ends: bool
) -> None:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator=line_end, quoting=quoting).writerows(
        [["a", "b", "c"], *rows]
    )  # type: ignore[arg-type]
    content = (stream.getvalue() if ends else stream.getvalue()[: -len(line_end)]).encode()
    document = Table(content, ["b", "3"], delimiter)
    assert translated(document, same) == content
    written = translated(document, lambda text: text.upper() + f'{delimiter}"').decode()
    found = list(csv.reader(io.StringIO(written, newline=""), delimiter=delimiter, strict=True))
    expected = [
        [first, *(re.sub(r"\S(.*\S)?", lambda m: m[0].upper() + f'{delimiter}"', cell, count=1, flags=re.S)
                  if any(map(str.isalpha, cell)) else cell for cell in others)]
        for first, *others in rows
    ]  # fmt: skip
    assert found == [["a", "b", "c"], *expected]


TABLE = 'id,title,"note",url\r\n1,"Hello, ""you""",a "b" c,\r\n2,,"x\r\ny", z \r\n\r\n"3",Größe,,q\r\n'


def test_a_table_changes_in_cells_alone() -> None:
    assert translated(Table(TABLE.encode(), ["title", "note"]), shouted).decode() == (
        'id,title,"note",url\r\n1,"HELLO, ""YOU""",A "B" C,\r\n2,,"X\r\nY", z \r\n\r\n"3",GRÖSSE,,q\r\n'
    )
    assert Table(TABLE.encode()).texts == ['Hello, "you"', 'a "b" c', "x\r\ny", "z", "Größe", "q"]
    assert Table(TABLE.encode(), ["4"]).texts == ["z", "q"]
    assert Table(b"a,b\nx,y\n", header=False).texts == ["a", "b", "x", "y"]
    assert translated(Table(b"n\n1\nword\n2\n3\n"), shouted) == b"n\n1\nword\n2\n3\n"  # few have letters


@pytest.mark.parametrize(("content", "texts"), [
    ("a;b\nx, y;z, w\n", ["x, y", "z, w"]), ("a\tb\nx, y\tz\n", ["x, y", "z"]), ("a|b\nx|y\n", ["x", "y"]),
    ("text\nHello, you\nand, you, too\n", ["Hello, you", "and, you, too"]), ('text\n"Hello, you"\n', ["Hello, you"]),
])  # fmt: skip
def test_a_delimiter_is_told(content: str, texts: list[str]) -> None:
    document = Table(content.encode())
    assert document.texts == texts
    assert translated(document, same) == content.encode()


def test_quotation_marks_may_be_text_between_tabs() -> None:
    content = b'a\tb\n"Hello," he said\t5" wide\n'
    document = Table(content, delimiter="\t")
    assert document.texts == ['"Hello," he said', '5" wide']
    assert translated(document, same) == content
    assert translated(document, lambda text: text + "\tx\ny") == b'a\tb\n"Hello," he said x y\t5" wide x y\n'


@pytest.mark.parametrize(("content", "columns", "words"), [
    ("title,text\nx,y\n", ["titel"], ["'titel'", "'title'"]),
    ("title,text\nx,y\n", ["3"], ["'3'", "'title', 'text'", "1 to 2"]),
    ("", ["a"], ["'a'", "no header"]),
    ('a,b\nx,y\n"z,w\n', None, ["line 3", "unexpected end"]),
    ('a,b\n"x"y,z\n', None, ["line 2", "expected after"]),
    ("a,b\nx," + "y" * 140_000 + "\n", None, ["line 2", "131072"]),
])  # fmt: skip
def test_a_bad_table_is_refused(content: str, columns: list[str] | None, words: list[str]) -> None:
    refused(lambda: Table(content.encode(), columns, ","), words)


# --- Markdown --------------------------------------------------------------------------------------------------------------


PAGE = r"""---
title: Front matter
---

# Title with `code` and *emph* #

Setext
heading
=======

Some **bold** text, a [link](http://x.y "a title"), an ![image](a.png "t") and
`code span` here, plus <https://auto.link> and ~~gone~~.
Third &amp; last &copy; 2 * 3 \*not\* a_b_c.

> Quote with
> two lines
>
> > nested **bold
> > words** here
lazy line

- item one
  continued
- [x] task done
  1. deep *item*

     paragraph in it

```python
code = "text"
```

    indented code

| a | b \| c |
|---|:-:|
| cell *one* | `x \| y` and text |
| 1 | |
short | row

A [ref], [Ref text][ref] and [ref][]. And [`name`]. A footnote[^1], end.

[ref]: http://example.com "Title"
[`name`]: #name
[^1]: The note text.
[^2]: And another
    in two lines.

<div>
raw *html*
</div>

Inline <b>bold html</b>, <kbd>Ctrl</kbd> key<br>new line <!-- comment --> end.

[![badge](https://img)](https://link)

![logo](l.png) Welcome [![i](x)](y) all.

Hard break  
next line\
third **over  
break** done.

> [!NOTE]
> Useful text.

***both*** and **b *i* b**, (**par**) "*q*".

1986\. No list.
"""
SHOUTED = r"""---
title: Front matter
---

# TITLE WITH `code` AND *EMPH* #

SETEXT
HEADING
=======

SOME **BOLD** TEXT, A [LINK](http://x.y "a title"), AN ![image](a.png "t") AND
`code span` HERE, PLUS <https://auto.link> AND ~~GONE~~.
THIRD &amp; LAST &copy; 2 * 3 \*NOT\* A_B_C.

> QUOTE WITH
> TWO LINES
>
> > NESTED **BOLD
> > WORDS** HERE
LAZY LINE

- ITEM ONE
  CONTINUED
- [x] TASK DONE
  1. DEEP *ITEM*

     PARAGRAPH IN IT

```python
code = "text"
```

    indented code

| A | B \| C |
|---|:-:|
| CELL *ONE* | `x \| y` AND TEXT |
| 1 | |
SHORT | ROW

A [REF][ref], [REF TEXT][ref] AND [REF][ref]. AND [`name`]. A FOOTNOTE[^1], END.

[ref]: http://example.com "Title"
[`name`]: #name
[^1]: THE NOTE TEXT.
[^2]: AND ANOTHER
    IN TWO LINES.

<div>
raw *html*
</div>

INLINE <b>BOLD HTML</b>, <kbd>Ctrl</kbd> KEY<br>NEW LINE <!-- comment --> END.

[![badge](https://img)](https://link)

![logo](l.png) WELCOME [![i](x)](y) ALL.

HARD BREAK  
NEXT LINE\
THIRD **OVER  
BREAK** DONE.

> [!NOTE]
> USEFUL TEXT.

***BOTH*** AND **B *I* B**, (**PAR**) "*Q*".

1986\. NO LIST.
"""


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("aligned", [True, False])
def test_only_text_of_markdown_changes(line_end: str, aligned: bool) -> None:
    content = PAGE.replace("\n", line_end).encode()
    assert translated(Markdown(content), same, aligned) == content
    assert translated(Markdown(content), shouted, aligned).decode() == SHOUTED.replace("\n", line_end)


def test_a_paragraph_is_one_text() -> None:
    texts = Markdown(PAGE.encode()).texts
    assert texts[0] == "Title with {{x0}} and emph"
    assert "nested bold words here lazy line" in texts
    assert (
        "Some bold text, a link, an and {{x0}} here, plus {{x1}} and gone. Third & last © 2 * 3 *not* a_b_c." in texts
    )
    assert [text for text in texts if "Front" in text or "code =" in text or "indented" in text or "html" in text] == [
        "Inline bold html, {{x0}} key"
    ]


def said(source: str, *texts: str, links: tuple[tuple[int, int], ...] = ()) -> str:
    return Markdown(source.encode()).write([Hypothesis(text, 0.0, alignment=links) for text in texts]).decode()


def test_markup_goes_where_its_words_go() -> None:
    links = ((0, 2), (1, 0), (2, 1))
    assert said("the **red** [car](u)\n", "rote Wagen der", links=links) == "**rote** [Wagen](u) der\n"
    assert said("see `x` now\n", "jetzt {{x0}} sehen") == "jetzt `x` sehen\n"
    assert said("see `x` now\n", "nichts") == "nichts `x`\n"  # never lost
    assert said("{{x0}} and `y`\n", "{{x0}} und {{x10}}") == "{{x0}} und `y`\n"


@pytest.mark.parametrize(("source", "translation", "written"), [
    ("January 1st was nice.\n", "1. Januar war schön.", "1\\. Januar war schön.\n"),
    ("One\n", "- Eins", "\\- Eins\n"), ("One\n", "# Eins", "\\# Eins\n"), ("One\n", "> Eins", "\\> Eins\n"),
    ("# One\n", "1. Eins", "# 1. Eins\n"),
    ("One\n", "2 * 3 <b> `x` [y]", "2 \\* 3 \\<b> \\`x\\` \\[y\\]\n"),
    ("2 * 3\n", "3 * 2 * 1", "3 * 2 \\* 1\n"),
    ("|a|\n|-|\n|b|\n", "x | y", "|x \\| y|\n|-|\n|x \\| y|\n"),
])  # fmt: skip
def test_text_does_not_become_markup(source: str, translation: str, written: str) -> None:
    assert said(source, *[translation] * len(Markdown(source.encode()).texts)) == written


@pytest.mark.parametrize(("source", "translation", "written"), [
    ("aa bb\ncc dd\n", "vorne 1. hinten", "vorne 1.\nhinten\n"), ("aa bb\ncc dd\n", "vorne 2. hinten", "vorne\n2. hinten\n"),
    ("a b\nc d\ne f\n", "x x - y 1. q", "x x -\ny 1.\nq\n"), ("a\nb\nc\n", "eins", "eins\n"),
    ("> a b\n> c d\n", "eins zwei drei vier", "> eins zwei\n> drei vier\n"),
    ("a\n    * b\n", "c * d", "c\n    * d\n"),  # too far to the right for a list
])  # fmt: skip
def test_a_paragraph_keeps_its_lines_unless_one_would_begin_a_block(
    source: str, translation: str, written: str
) -> None:
    assert said(source, translation) == written


MARKS = [
    "word", "two words", "B.", " ", " ", "  ", "\n", "\n", "\n\n", "*", "**", "_", "`", "``", "[", "]", "(", ")", "](u)",
    '[a](b "t")', "![i](j)",
    "<b>", "</b>", "<br>", "<kbd>k</kbd>", "<!-- c -->", "&amp;", "&nbsp;", "\\*", "\\", "~~", "# ", "> ", "- ", "1. ", "2. ", "    ",
    "\t", "|",
    "\n|-|-|\n", "---", "===", "```", "[^1]", "<http://x.y>", "<div>", "- [ ] ", "é", "日本", "😀", "{{x0}}", "{n}", "\r\n", "\\\n", "  \n",
]  # fmt: skip


@given(st.lists(st.sampled_from(MARKS), max_size=25).map("".join))
@settings(max_examples=500, deadline=None)
def test_nothing_of_markdown_is_lost(source: str) -> None:
    written = translated(Markdown(source.encode()), same).decode()
    assert Counter("".join(written.split())) == Counter("".join(source.split()))
    shout = translated(Markdown(source.encode()), shouted).decode()
    assert not Counter("".join(source.upper().split())) - Counter("".join(shout.upper().split()))


LINEAR_S = 15.0  # what grows with the square of these lengths takes minutes


@pytest.mark.parametrize("source", [
    "*a " * 66_000, "[" * 200_000, "`" * 200_000, "<a " * 66_000, "&" * 200_000, ">" * 200_000, "some words  \n" * 15_000, "[a](b" * 40_000,
    "\\*" * 100_000, "word " * 40_000, "[^1]" * 50_000, "\n" * 200_000, "- " * 100_000, "`a" * 100_000, "<kbd>" * 40_000,
    "| a " * 20_000 + "|\n" + "|-" * 20_000 + "|\n",
], ids=lambda source: repr(source[:6]))  # fmt: skip
def test_a_long_document_takes_no_long_time(source: str) -> None:
    started = time.process_time()
    document = Markdown(source.encode())
    written = translated(document, same)
    assert time.process_time() - started < LINEAR_S
    assert Counter(written.decode().replace(" ", "")) == Counter(source.replace(" ", ""))


# --- subtitles -------------------------------------------------------------------------------------------------------------


SRT = """1
00:00:01,000 --> 00:00:02,500
<i>I was going to</i>

2
00:00:02,600 --> 00:00:04,000 X1:10
the store, but then all
of a sudden it <b>rained</b>.

3
00:00:04,100 --> 00:00:05,000
- Did it?
- Yes, I'm

4
00:00:05,100 --> 00:00:06,000
{\\an8}sure.

5
00:00:09,000 --> 00:00:10,000
♪ ♪

6
00:00:11,000 --> 00:00:12,000
Too early

7
00:00:14,100 --> 00:00:15,000
or too late
"""
VTT = """WEBVTT - Title
Kind: captions

NOTE a comment
about it

STYLE
::cue { color: red }

REGION
id:fred

intro
00:01.000 --> 00:02.000 position:10% align:start
<v Fred>Hi, I am <c.yellow>Fred</c> &amp; this

100:00:02.100 --> 100:00:03.000
<v Fred>is <00:00:02.500>mine.

100:00:03.100 --> 100:00:04.000
<v Mary>No, it is

100:00:04.100 --> 100:00:05.000
<v Fred>not yours
"""


@pytest.mark.parametrize(("kind", "source"), [(Srt, SRT), (Vtt, VTT)])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("aligned", [True, False])
def test_only_text_of_subtitles_changes(
    kind: Callable[[bytes], Document], source: str, line_end: str, aligned: bool
) -> None:
    content = source.replace("\n", line_end).encode()
    assert translated(kind(content), same, aligned) == content
    written = translated(kind(content), shouted, aligned).decode()
    shown = re.compile(r"<[^>]*>|\{[^}]*\}|&\w+;|\d+:[^\r\n]*|WEBVTT[^\r\n]*|Kind.*|(?s:NOTE.*?REGION\s+id:fred|intro)")
    kept = shown.findall(content.decode())
    assert shown.findall(written) == kept
    assert shown.sub("@", written) == shown.sub("@", content.decode()).upper()
    assert len(kept) > 10


def test_a_sentence_goes_over_cues() -> None:
    assert Srt(SRT.encode()).texts == [
        "I was going to the store, but then all of a sudden it rained.", "Did it?", "Yes, I'm sure.", "Too early", "or too late",
    ]  # fmt: skip
    assert Vtt(VTT.encode()).texts == [
        "Hi, I am Fred & this",
        "is mine.",
        "No, it is",
        "not yours",
    ]  # 100 hours apart; two voices
    together = Vtt(VTT.replace("100:00:", "00:").encode())
    assert together.texts == ["Hi, I am Fred & this is mine.", "No, it is", "not yours"]
    long = "".join(f"{number}\n00:00:{number:02},000 --> 00:00:{number:02},900\nword\n\n" for number in range(1, 15))
    assert [len(text.split()) for text in Srt(long.encode()).texts] == [6, 6, 2]


def cue(seconds: int, text: str) -> str:
    return f"{seconds}\n00:00:0{seconds},000 --> 00:00:0{seconds},900\n{text}\n\n"


def cues(content: bytes) -> list[str]:
    return [each.content for each in srt.parse(content.decode())]


def test_a_translation_is_cut_where_its_words_come_from_another_cue() -> None:
    document = Srt((cue(1, "I have seen") + cue(2, "the big house")).encode())
    words = "Ich habe gesehen das so ungeheuer große Haus"
    links = ((0, 0), (1, 1), (2, 2), (3, 3), (4, 6), (5, 7))
    assert cues(document.write([Hypothesis(words, 0.0, alignment=links)])) == [
        "Ich habe gesehen",
        "das so ungeheuer große Haus",
    ]
    crossed = ((0, 0), (2, 7), (3, 1), (5, 2))  # no place has all of the first cue before it
    assert cues(document.write([Hypothesis(words, 0.0, alignment=crossed)])) == [
        "Ich habe gesehen das",
        "so ungeheuer große Haus",
    ]
    assert cues(document.write([Hypothesis("Ja", 0.0)])) == ["Ja", ""]


def test_text_without_spaces_is_cut_between_characters() -> None:
    document = Srt((cue(1, "The weather is") + cue(2, "very nice today.")).encode())
    assert document.texts == ["The weather is very nice today."]
    assert cues(document.write([Hypothesis("今日は天気がとてもいいです。", 0.0)])) == [
        "今日は天気が",
        "とてもいいです。",
    ]
    document = Srt((cue(1, "今日はとても") + cue(2, "いい天気ですね。")).encode())
    assert document.texts == ["今日はとてもいい天気ですね。"]
    assert cues(translated(document, same)) == ["今日はとても", "いい天気ですね。"]


def test_lines_are_broken_at_the_most_even_place_where_they_were() -> None:
    document = Srt((cue(1, "one and\nthe other and more.") + cue(2, "all in one line.")).encode())
    text = "Das eine und das andere und noch einiges mehr als das, was es war."
    first, second = cues(document.write([Hypothesis(text, 0.0), Hypothesis(text, 0.0)]))
    assert first == "Das eine und das andere und noch\neiniges mehr als das, was es war."
    assert second == text
    assert max(map(len, first.split("\n"))) <= 42


def test_characters_of_markup_are_escaped_in_webvtt() -> None:
    document = Vtt(b"WEBVTT\n\n00:01.000 --> 00:02.000\na &lt; b & c\n")
    assert document.texts == ["a < b & c"]
    assert document.write([Hypothesis("x < y & z --> <i>", 0.0)]).endswith(b"\nx &lt; y &amp; z --&gt; &lt;i>\n")


CUES = st.lists(
    st.tuples(
        st.integers(0, 3000), st.integers(1, 3000),
        st.lists(st.lists(WORD, min_size=1, max_size=6).map(" ".join), min_size=1, max_size=3), st.sampled_from(["", ".", "!", "…", ","]),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


def composed(drawn: list[tuple[int, int, list[str], str]]) -> list[srt.Subtitle]:
    found, at = [], timedelta()
    for number, (pause, length, lines, end) in enumerate(drawn, 1):
        begin = at + timedelta(milliseconds=pause)
        at = begin + timedelta(milliseconds=length)
        found.append(srt.Subtitle(number, begin, at, "\n".join(lines) + end))
    return found


@given(CUES, st.sampled_from(["\n", "\r\n"]), st.booleans())
@settings(max_examples=200, deadline=None)
def test_subtitles_stay_to_the_byte(drawn: list[tuple[int, int, list[str], str]], line_end: str, aligned: bool) -> None:
    content = srt.compose(composed(drawn), eol=line_end).encode()
    assert translated(Srt(content), same, aligned) == content
    vtt = ("WEBVTT\n\n" + re.sub(r"(\d),(\d{3})", r"\1.\2", content.decode())).encode()
    assert translated(Vtt(vtt), same, aligned) == vtt


@given(CUES, st.lists(WORD, max_size=30), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=30))
@settings(max_examples=200, deadline=None)
def test_each_cue_keeps_its_time_and_no_word_is_lost(
    drawn: list[tuple[int, int, list[str], str]], words: list[str], links: list[tuple[int, int]]
) -> None:
    subtitles = composed(drawn)
    document = Srt(srt.compose(subtitles).encode())
    found = [Hypothesis(" ".join(words), 0.0, alignment=tuple(links))] * len(document.texts)
    written = list(srt.parse(document.write(found).decode()))
    assert [(each.index, each.start, each.end) for each in written] == [
        (each.index, each.start, each.end) for each in subtitles
    ]
    assert [word for each in written for word in each.content.split()] == words * len(document.texts)
    for before, after in zip(subtitles, written, strict=True):
        assert after.content.count("\n") <= min(1, before.content.count("\n")) or after.content == before.content


@pytest.mark.parametrize(("source", "words"), [
    ("just text\nof two lines\n", ["line 1", "no cue"]),
    ("1\ntext\n", ["line 2", "no cue"]),
    (cue(1, "a") + "2\n00:00:0x,000 --> 00:00:05,000\nb\n", ["line 6", "cue 2", "00:00:0x"]),
    (cue(1, "a") + "2\nno times\n\n" + cue(3, "b"), ["line 6", "cue 2", "no times"]),
    ("1\n00:00:01,000 -> 00:00:05,000\nb\n", ["line 2", "cue 1"]),
    ("1\n" + "9" * 9_999 + ":00:01,000 --> 00:00:05,000\nb\n", ["line 2", "cue 1"]),
    ("1\n99999999999:00:01,000 --> 00:00:05,000\nb\n", ["line 2", "cue 1"]),
])  # fmt: skip
def test_bad_subrip_is_refused(source: str, words: list[str]) -> None:
    refused(lambda: Srt(source.encode()), words)


@pytest.mark.parametrize(("source", "words"), [
    (SRT, ["line 1", "WEBVTT"]), ("", ["line 1", "WEBVTT"]), ("WEBVTTX\n", ["line 1", "WEBVTT"]),
    ("WEBVTT\n\nintro\n00:01,000 --> 00:02.000\na\n", ["line 4", "cue intro", "00:01,000"]),
    ("WEBVTT\n\n00:01.000 --> 00:99.000\na\n", ["line 3", "a cue", "00:99"]),
])  # fmt: skip
def test_bad_webvtt_is_refused(source: str, words: list[str]) -> None:
    refused(lambda: Vtt(source.encode()), words)


TIMES = "1\n00:00:00,000 --> 00:00:01,000\n"


@pytest.mark.parametrize("source", [
    TIMES + "word\n" * 40_000, TIMES * 6_000, TIMES + "<" * 200_000, TIMES + "<i>" * 66_000 + "a", TIMES + "- some words\n" * 15_000,
    TIMES + "\n" * 200_000 + "a", TIMES + "日本" * 30_000, TIMES + "1" * 200_000, TIMES + "a\n\n1\n\n" + "\n" * 200_000,
    TIMES + ".'" * 100_000 + "a",
    TIMES + "a" + " " * 200_000 + "b", "".join(cue(1, "a b c") for _ in range(5_000)),
], ids=lambda source: repr(source[32:38]))  # fmt: skip
def test_long_subtitles_take_no_long_time(source: str) -> None:
    content = source.encode()
    vtt = ("WEBVTT\n\n" + source.replace(",0", ".0").replace(",9", ".9")).encode()
    started = time.process_time()
    assert translated(Srt(content), same) == content
    assert translated(Vtt(vtt), same) == vtt
    translated(Srt(content), lambda text: text + " more")
    assert time.process_time() - started < LINEAR_S


# --- catalogues ------------------------------------------------------------------------------------------------------------


HEADER = r"""# Comment of the header
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\n"
"Plural-Forms: nplurals=3; plural=(n==1 ? 0 : n<5 ? 1 : 2);\n"

"""
TRANSLATED = r"""#. Extracted
#: src/a-b.c:12 src/a/rather/long/path/that/gettext/would/not/break.c:1
#,  c-format,no-wrap
msgctxt "menu"
msgid "Done %s"
msgstr   "Fertig %s"

#, fuzzy
#| msgid "Old"
msgid "New"
msgstr "Alt"

#~ msgid "obsolete"
#~ msgstr ""
"""
UNTRANSLATED = r"""
#. Extracted
#, c-format
msgctxt "menu"
msgid "Open %s"
msgstr ""

#: x.c:1
msgid "%d file"
msgid_plural "%d files"
msgstr[0] ""
msgstr[1] ""

msgid ""
"\n"
"  Two lines of \"text\",\t"
"a \\ line\n"
"and another one\n"
msgstr ""
"""


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_translated_catalogue_stays_to_the_byte(line_end: str) -> None:
    content = (HEADER + TRANSLATED).replace("\n", line_end).encode()
    document = Catalogue(content)
    assert document.texts == []
    assert document.write([]) == content


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("change", [same, str.upper])
def test_only_translations_are_added_to_a_catalogue(line_end: str, change: Callable[[str], str]) -> None:
    content = (HEADER + TRANSLATED + UNTRANSLATED).replace("\n", line_end).encode()
    document = Catalogue(content)
    assert document.texts == ["Open %s", "%d file", "%d files", 'Two lines of "text",\ta \\ line\nand another one']
    written = translated(document, change).decode()
    assert written.startswith((HEADER + TRANSLATED).replace("\n", line_end))
    assert [line for line in written.split(line_end) if not line.startswith(("msgstr", '"'))] == [
        line for line in content.decode().split(line_end) if not line.startswith(("msgstr", '"'))
    ]
    found = polib.pofile(written)
    assert [entry.msgstr for entry in found] == [
        "Fertig %s", "Alt", "", change("Open %s"), "", "\n  " + change('Two lines of "text",\ta \\ line\nand another one') + "\n",
    ]  # fmt: skip
    assert found.find("%d file").msgstr_plural == {0: change("%d file"), 1: change("%d files"), 2: change("%d files")}
    assert found.find("Open %s").flags == ["c-format"]
    assert found.metadata == polib.pofile(HEADER).metadata
    assert Catalogue(written.encode()).texts == []


def test_translations_may_be_marked_as_fuzzy() -> None:
    content = (HEADER + TRANSLATED + UNTRANSLATED).encode()
    found = polib.pofile(translated(Catalogue(content, fuzzy=True), same).decode())
    assert [entry.msgid.strip()[:7] for entry in found.fuzzy_entries()] == ["New", "Open %s", "%d file", "Two lin"]
    assert found.find("Open %s").flags == ["fuzzy", "c-format"]
    assert found.find("Done %s").flags == ["c-format", "no-wrap"]


@pytest.mark.parametrize(("forms", "expected"), [
    (1, {0: "FILES"}), (2, {0: "FILE", 1: "FILES"}), (4, {0: "FILE", 1: "FILES", 2: "FILES", 3: "FILES"}),
])  # fmt: skip
def test_a_message_has_as_many_plurals_as_the_header_says(forms: int, expected: dict[int, str]) -> None:
    source = f'{HEADER.replace("nplurals=3", f"nplurals={forms}")}msgid "file"\nmsgid_plural "files"\nmsgstr[0] ""\nmsgstr[1] ""\n'
    found = polib.pofile(translated(Catalogue(source.encode()), str.upper).decode())
    assert found[0].msgstr_plural == expected


def test_a_plural_that_is_translated_in_part_is_completed() -> None:
    source = HEADER + 'msgid "file"\nmsgid_plural "files"\nmsgstr[0] "Datei"\nmsgstr[1] ""\nmsgstr[2] ""\n'
    assert translated(Catalogue(source.encode()), str.upper).decode() == source.replace(
        '[1] ""', '[1] "FILES"'
    ).replace('[2] ""', '[2] "FILES"')


def test_lines_are_wrapped_where_they_were() -> None:
    long = "word " * 30
    for wrapped in (True, False):
        lines = ['""', *(f'"{"word " * 15}"' for _ in range(2))] if wrapped else [f'"{long}"']
        source = HEADER + "msgid " + "\n".join(lines) + '\nmsgstr ""'
        written = translated(Catalogue(source.encode()), str.upper).decode()
        assert polib.pofile(written)[0].msgstr == long.upper()
        assert (max(map(len, written.split("\n"))) <= 80) is wrapped
        assert not written.endswith("\n")


def test_other_line_separators_are_characters() -> None:
    source = HEADER + 'msgid "a\u2028b\x85c"\nmsgstr ""\n'
    document = Catalogue(source.encode())
    assert document.texts == ["a\u2028b\x85c"]
    written = translated(document, str.upper).decode()
    assert written.startswith(source.removesuffix('""\n'))
    assert Catalogue(written.encode()).texts == []


@pytest.mark.parametrize(("source", "words"), [
    ('msgid "a"\nmsgstr "b"c"\n', ["line 2"]), ('msgid "a"\nmsgstr "b\n', ["line 2"]), ("msgid a\nmsgstr b\n", ["line 1"]),
    ('msgstr "a"\n', ["line 1"]), ('msgid "a"\nmsgid "b"\n', ["line 2"]), ("some text\n", ["line 1", ".po"]), ("/etc/hostname", ["line 1"]),
    ('msgid "a"\n', ["line 1", "'a'", "no msgstr"]),
    (HEADER.replace("nplurals=3", "nplurals=99"), ["Plural-Forms", "nplurals=99"]),
    (HEADER.replace("UTF-8", "ISO-8859-1"), ["ISO-8859-1", "msgconv"]),
])  # fmt: skip
def test_a_bad_catalogue_is_refused(source: str, words: list[str]) -> None:
    refused(lambda: Catalogue(source.encode()), words)


def test_a_template_has_no_encoding_yet() -> None:
    source = HEADER.replace("UTF-8", "CHARSET") + 'msgid "a"\nmsgstr ""\n'
    assert translated(Catalogue(source.encode()), str.upper).decode() == source.replace(
        '"a"\nmsgstr ""', '"a"\nmsgstr "A"'
    )
