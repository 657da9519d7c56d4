"""Office documents: all that is no text stays, formatting goes where its words go, and what could do harm is refused."""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter

import docx
import pptx
import pytest
from docx.shared import Pt
from docx.text.hyperlink import Hyperlink
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lxml import etree
from odf import text
from odf.opendocument import load
from office_documents import (
    BOLD,
    DOCUMENTS,
    FIELDS,
    ITALIC,
    A,
    W,
    canonical,
    inside,
    members,
    paragraph,
    run,
    turned,
    with_diagram,
    written,
    zipped,
)

from nmt.documents.inline import Element, Passage
from nmt.documents.office import Office
from nmt.inference.types import Hypothesis

TEXTS = {
    ".docx": [
        "I have a big and old house.", "See our web site for more.", "Name:\tTom\nTown:\tUlm", "Upper cell", "Lower cell",
        "A remark and a note.", "Beside it", "In the box", "At the top", "At the bottom", "Is it so?", "Below the line",
    ],
    ".pptx": [
        "A title\nin two lines", "I have a big house, see here\na\tb", "Left cell", "Right cell", "Title of the chart", "Said, not shown",
    ],
    ".odt": [
        "A heading", "I have a big house. See our web site now:\tone\ntwo", "A note, a page and a remark.", "Below the line", "Is it so?",
        "In a cell", "Beside it", "In the box", "At the top",
    ],
}  # fmt: skip


@pytest.mark.parametrize("suffix", DOCUMENTS)
def test_what_of_a_document_is_text(suffix: str) -> None:
    assert sorted(Office(DOCUMENTS[suffix], suffix).texts) == sorted(TEXTS[suffix])


@pytest.mark.parametrize("suffix", DOCUMENTS)
def test_a_document_whose_translation_is_itself_comes_back(suffix: str) -> None:
    before, after = members(DOCUMENTS[suffix]), members(written(DOCUMENTS[suffix], suffix))
    assert list(after) == list(before)
    for name, part in before.items():
        assert after[name] == part or canonical(after[name]) == canonical(part), name
        assert after[name].startswith(part[: part.find(b"?>")])


@pytest.mark.parametrize("suffix", DOCUMENTS)
def test_members_without_text_stay_as_they_are(suffix: str) -> None:
    content = DOCUMENTS[suffix]
    translated = written(content, suffix, turned)
    before, after = members(content), members(translated)
    changed = {name for name in before if before[name] != after[name]}
    chart = next((name[11:-4] for name in before if name.startswith("ppt/charts/chart")), "")
    assert (
        changed
        == {
            ".docx": {f"word/{part}.xml" for part in ("document", "header1", "footer1", "comments", "footnotes")},
            ".pptx": {f"ppt/{part}.xml" for part in ("slides/slide1", "notesSlides/notesSlide1", f"charts/{chart}")},
            ".odt": {"content.xml", "styles.xml"},
        }[suffix]
    )
    for one, other in zip(_infos(content), _infos(translated), strict=True):
        assert (one.filename, one.compress_type, one.date_time, one.external_attr) == (
            other.filename, other.compress_type, other.date_time, other.external_attr,
        )  # fmt: skip
    assert not any(b"ns0" in part for name, part in after.items() if name.endswith(".xml"))


def _infos(content: bytes) -> list[zipfile.ZipInfo]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.infolist()


def test_a_translated_word_document_opens_and_has_bold_at_its_word() -> None:
    document = docx.Document(io.BytesIO(written(DOCUMENTS[".docx"], ".docx", turned)))
    first, second, lines = document.paragraphs[:3]
    assert [(each.text, each.bold, each.italic) for each in first.runs if each.text.strip()] == [
        ("HOUSE. ", None, None),
        ("OLD", None, True),
        (" AND ", None, None),
        ("BIG", True, None),
        (" A HAVE I", None, None),
    ]
    assert first.style.name == "Heading 1"
    assert second.text == "MORE. FOR SITE WEB OUR SEE"
    link = next(each for each in second.iter_inner_content() if isinstance(each, Hyperlink))
    assert link.address == "https://example.com"
    assert [(each.text, each.bold) for each in link.runs] == [("SITE", True), (" WEB OUR", None)]
    assert lines.text.split() == ["ULM", "TOWN:", "TOM", "NAME:"]
    assert (lines.text.count("\t"), lines.text.count("\n")) == (2, 1)
    assert len(document.inline_shapes) == 1
    assert document.tables[0].cell(1, 1).text == "CELL LOWER"
    assert document.sections[0].header.paragraphs[0].text == "TOP THE AT"
    assert next(iter(document.comments)).text == "SO? IT IS"


def test_a_translated_show_opens_and_has_bold_and_the_link_at_their_words() -> None:
    show = pptx.Presentation(io.BytesIO(written(DOCUMENTS[".pptx"], ".pptx", turned)))
    slide = show.slides[0]
    runs = slide.placeholders[1].text_frame.paragraphs[0].runs
    assert [each.text for each in runs if each.font.bold] == ["BIG"]
    assert [each.text for each in runs if each.hyperlink.address == "https://example.com"] == ["HERE"]
    assert {each.text.strip() for each in runs if each.font.size == Pt(30)} == {"B A"}
    assert slide.notes_slide.notes_text_frame.text == "SHOWN NOT SAID,"
    shapes = list(slide.shapes)
    assert [shape.table.cell(0, 1).text for shape in shapes if shape.has_table] == ["CELL RIGHT"]
    assert [shape.chart.chart_title.text_frame.text for shape in shapes if shape.has_chart] == ["CHART THE OF TITLE"]


def test_a_translated_text_document_opens_and_has_bold_at_its_word() -> None:
    content = written(DOCUMENTS[".odt"], ".odt", turned)
    document = load(io.BytesIO(content))
    assert [str(each) for each in document.getElementsByType(text.H)] == ["HEADING A"]
    spans = {str(each): each.getAttribute("stylename") for each in document.getElementsByType(text.Span)}
    assert spans == {"BIG": "T1", "SITE": "T1"}
    assert [str(each) for each in document.getElementsByType(text.A)] == ["SITE WEB OUR"]
    assert len(document.getElementsByType(text.S)) == len(document.getElementsByType(text.Tab)) == 1
    assert content[30:38] == b"mimetype"
    assert content[38:77] == b"application/vnd.oasis.opendocument.text"


def test_a_text_box_is_translated_once_and_written_for_programs_of_both_ages() -> None:
    translated = members(written(DOCUMENTS[".docx"], ".docx", turned))["word/document.xml"]
    boxes = etree.fromstring(translated).findall(f".//{{{W}}}txbxContent")
    assert ["".join(box.itertext()) for box in boxes] == ["BOX THE IN"] * 2
    assert Office(DOCUMENTS[".docx"], ".docx").texts.count("In the box") == 1


def test_a_text_box_whose_old_form_says_something_else() -> None:
    parts = members(DOCUMENTS[".docx"])
    head, said, tail = parts["word/document.xml"].rpartition(b"In the box")
    content = zipped(parts | {"word/document.xml": head + b"An older box" + tail})
    assert {"In the box", "An older box"} < set(Office(content, ".docx").texts)
    translated = members(written(content, ".docx", turned))["word/document.xml"]
    assert [translated.count(each) for each in (b"BOX THE IN", b"BOX OLDER AN", said)] == [1, 1, 0]


@pytest.mark.parametrize(("suffix", "folder"), [(".docx", "word"), (".pptx", "ppt")])
def test_a_diagram_and_its_drawing_say_the_same(suffix: str, folder: str) -> None:
    content = with_diagram(suffix, folder)
    assert set(Office(content, suffix).texts) == {*TEXTS[suffix], "First the plan", "then the work"}
    assert len(Office(content, suffix).texts) == len(TEXTS[suffix]) + 2
    before, after = members(content), members(written(content, suffix, turned))
    for name in ("data1", "drawing1"):
        part = after[f"{folder}/diagrams/{name}.xml"]
        assert [each.text for each in etree.fromstring(part).iter(f"{{{A}}}t")] == [
            "PLAN THE ",
            "FIRST",
            "WORK THE THEN",
        ]
        assert canonical(members(written(content, suffix))[f"{folder}/diagrams/{name}.xml"]) == canonical(
            before[f"{folder}/diagrams/{name}.xml"]
        )


# --- whatever the paragraph and the links ------------------------------------------------------------------------------------


LETTERS = st.text("ab.( é", min_size=1, max_size=6)
PIECE = st.tuples(LETTERS | st.sampled_from(["\t", "\n"]), st.sampled_from(["", BOLD, ITALIC, BOLD + ITALIC]))


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECE, min_size=1, max_size=12))
def test_a_translation_that_is_its_source_has_its_text_and_formats(pieces: list[tuple[str, str]]) -> None:
    content = paragraph("".join(_marked(*piece) for piece in pieces))
    before, after = (_formats(each) for each in (content, written(content, ".docx")))
    assert "".join(letter for letter, _ in after) == "".join(letter for letter, _ in before)
    assert [each for each in after if not each[0].isspace()] == [each for each in before if not each[0].isspace()]


def _marked(said: str, properties: str) -> str:
    tag = {"\t": "<w:tab/>", "\n": "<w:br/>"}.get(said)
    return f"<w:r><w:rPr>{properties}</w:rPr>{tag}</w:r>" if tag else run(said, properties)


def _formats(content: bytes) -> list[tuple[str, tuple[str, ...]]]:
    """Each letter, tab and end of line with its properties."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for node in etree.fromstring(members(content)["word/document.xml"]).iter(f"{{{W}}}r"):
        look = tuple(each.tag for each in node.iterfind(f"{{{W}}}rPr/*"))
        for piece in node:
            said = {f"{{{W}}}tab": "\t", f"{{{W}}}br": "\n", f"{{{W}}}t": piece.text}.get(piece.tag) or ""
            found += [(letter, look) for letter in said]
    return found


SNIPPETS = [
    run("one two"), run(" three.", BOLD), run(" (four) ", ITALIC), run(" "), run("five"), "<w:r><w:tab/></w:r>", "<w:r><w:br/></w:r>",
    '<w:bookmarkStart w:id="1" w:name="x"/>', '<w:bookmarkEnd w:id="1"/>', '<w:commentRangeStart w:id="1"/>',
    '<w:commentRangeEnd w:id="1"/>', *FIELDS.values(), "<w:r><w:instrText>HYPERLINK x</w:instrText></w:r>",
    f"<w:hyperlink>{run('six ')}{run('seven', BOLD)}<w:r><w:tab/></w:r></w:hyperlink>", f"<w:ins>{run('eight')}</w:ins>",
    f"<w:del>{run('nine')}</w:del>", f"<w:hyperlink>{run(' ')}</w:hyperlink>", '<w:r><w:footnoteReference w:id="1"/></w:r>',
    f"<w:sdt><w:sdtContent>{run('ten')}<w:r><w:t>eleven</w:t><w:br/></w:r></w:sdtContent></w:sdt>",
]  # fmt: skip
LINKS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(SNIPPETS), max_size=14), LINKS, st.integers(0, 8))
def test_whatever_the_links_each_element_is_there_once(
    pieces: list[str], links: list[tuple[int, int]], count: int
) -> None:
    content = paragraph("".join(pieces))
    found = Office(content, ".docx")
    said = " ".join(f"t{number}" for number in range(count))
    after = found.write([Hypothesis(said, 0.0, alignment=tuple(links))] * len(found.texts))
    assert _tags(after) == _tags(content)
    words = re.findall(r"t\d", " ".join(etree.fromstring(members(after)["word/document.xml"]).itertext()))
    assert len(words) == count * len(found.texts)


def _tags(content: bytes) -> Counter[str]:
    """The elements of the document, apart from runs and their texts."""
    root = etree.fromstring(members(content)["word/document.xml"])
    run_tags = {f"{{{W}}}{name}" for name in ("r", "rPr", "t", "b", "i")}
    return Counter(node.tag for node in root.iter() if node.tag not in run_tags)


def test_what_xml_cannot_hold_is_left_out() -> None:
    content = paragraph(run("One"))
    assert inside(Office(content, ".docx").write([Hypothesis("a\x00\x0b<b>&\ufffe c", 0.0)])) == run(
        "a&lt;b&gt;&amp; c"
    )


PLACES = st.lists(st.integers(0, 11), min_size=2, max_size=2).map(sorted)


@settings(max_examples=500)
@example("x y z       ", [[1, 1], [2, 5]], "y y x z z", [(1, 0), (1, 1), (0, 2), (2, 3), (2, 4)])
@example("o\tm n       ", [[1, 2], [2, 3]], "m\tm n", [(1, 0), (1, 1)])
@given(
    st.text("ab \t\n.", min_size=12, max_size=12), st.lists(PLACES, max_size=6), st.text("ab \t\n.", max_size=14), LINKS
)
def test_of_the_translation_nothing_is_said_twice(
    said: str, places: list[list[int]], other: str, links: list[tuple[int, int]]
) -> None:
    apart: list[Element] = []
    for start, end in sorted(map(tuple, places)):
        if not apart or start >= apart[-1].end:
            apart.append(Element(start, end, "<", ">"))
    written_text = Passage(said, tuple(apart)).write(other, links, str)
    assert re.sub("[<>]", "", written_text) == other
    assert written_text.count("<") == len(apart)


def test_other_declarations_stay_and_other_encodings_become_utf_8() -> None:
    parts = members(paragraph(run("Grün ")))
    xml = parts["word/document.xml"].decode()
    for head, encoding in (
        ("<?xml version='1.0' encoding='utf-8'?>\n\n", "utf-8-sig"),
        ("<?xml version='1.0'?>", "utf-16"),
        ("<?xml version='1.0' encoding='ISO-8859-1'?>", "latin-1"),
    ):
        parts["word/document.xml"] = (head + xml).encode(encoding)
        after = members(written(zipped(parts), ".docx"))["word/document.xml"]
        assert etree.fromstring(after).findtext(f".//{{{W}}}t") == "Grün "
        if encoding == "utf-8-sig":
            assert after == parts["word/document.xml"]
