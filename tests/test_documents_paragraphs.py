"""Paragraphs of office documents: what of them is text, and where the rest of them comes to stand."""

from __future__ import annotations

import io
import re

import docx
import pytest
from office_documents import (
    BOLD,
    DELETED,
    DOCUMENTS,
    FIELDS,
    ITALIC,
    NOTE,
    canonical,
    inside,
    instruction,
    members,
    one_run,
    paragraph,
    run,
    same,
    turned,
    written,
    zipped,
)

from nmt.documents.office import Office
from nmt.inference.types import Hypothesis


@pytest.mark.parametrize(
    ("before", "said", "after"),
    [
        # neighbours of one format are one run, whatever spellers and revisions say of them
        (
            f'<w:r w:rsidR="1">{run("One ")[5:]}<w:proofErr w:type="spellStart"/>{run("two", "<w:noProof/>")}'
            + run(" three", '<w:lang w:val="de"/>'),
            "one two three",
            run("THREE TWO ONE"),
        ),
        # what is deleted is no text, what is inserted is
        (
            f'{run("One ")}{DELETED}<w:ins w:id="2">{run("two")}</w:ins>{run(" three")}',
            "one two three",
            f'{run("THREE ")}<w:ins w:id="2">{run("TWO")}</w:ins>{run(" ONE")}{DELETED}',
        ),
        # a field that is reckoned is kept, at the words before it; one that was written is translated
        (
            f"{run('See page ')}{instruction('PAGEREF x')}{run('12')}{FIELDS['end']}{run(' below')}",
            "see page below",
            None,
        ),
        (
            f"{run('See ')}{instruction(' HYPERLINK x')}{run('our', BOLD)}{run(' site')}{FIELDS['end']}{run(' now')}",
            "see our site now",
            f"{one_run(run('NOW '), instruction(' HYPERLINK x'), run('SITE '))}{run('OUR', BOLD)}{one_run(FIELDS['end'], run(' SEE'))}",
        ),
        # bookmarks are around their words
        (
            f'{run("One ")}<w:bookmarkStart w:id="1" w:name="x"/>{run("two")}<w:bookmarkEnd w:id="1"/>{run(" three")}',
            "one two three",
            f'{run("THREE ")}<w:bookmarkStart w:id="1" w:name="x"/>{run("TWO")}<w:bookmarkEnd w:id="1"/>{run(" ONE")}',
        ),
        # what is around all of it stays there, and what is before and after it
        (
            f'<w:bookmarkStart w:id="1" w:name="x"/><w:r><w:tab/></w:r><w:hyperlink w:anchor="y">{run("One ")}{run("two", BOLD)}'
            '<w:r><w:tab/></w:r></w:hyperlink><w:r><w:br w:type="page"/></w:r><w:bookmarkEnd w:id="1"/>',
            "one two",
            f'<w:bookmarkStart w:id="1" w:name="x"/><w:r><w:tab/></w:r><w:hyperlink w:anchor="y">{run("TWO", BOLD)}{run(" ONE")[:-6]}'
            '<w:tab/></w:r></w:hyperlink><w:r><w:br w:type="page"/></w:r><w:bookmarkEnd w:id="1"/>',
        ),
        # a note stays at its word, before the full stop
        (
            f'{run("One two")}<w:r><w:rPr><w:vertAlign w:val="superscript"/></w:rPr><w:footnoteReference w:id="2"/></w:r>{run(".")}',
            "one two.",
            f'{run("TWO")}<w:r><w:rPr><w:vertAlign w:val="superscript"/></w:rPr><w:footnoteReference w:id="2"/></w:r>{run(". ONE")}',
        ),
        # a chosen value is no free text, a control's text is
        (
            f"<w:sdt><w:sdtPr><w:dropDownList/></w:sdtPr><w:sdtContent>{run('yes')}</w:sdtContent></w:sdt>{run('One two')}",
            "one two",
            f"<w:sdt><w:sdtPr><w:dropDownList/></w:sdtPr><w:sdtContent>{run('yes')}</w:sdtContent></w:sdt>{run('TWO ONE')}",
        ),
        (
            f"<w:pPr/>{run('One ')}<w:sdt><w:sdtPr/><w:sdtContent>{run('two')}</w:sdtContent></w:sdt>",
            "one two",
            f"<w:pPr/><w:sdt><w:sdtPr/><w:sdtContent>{run('TWO')}</w:sdtContent></w:sdt>{run(' ONE')}",
        ),
        # formulas stay, hyphens that do not break are letters, spaces that are not preserved are none
        (f"<m:oMath><m:r><m:t>x</m:t></m:r></m:oMath>{run('One')}", "one", None),
        ("<w:r><w:t>One</w:t><w:noBreakHyphen/><w:t>two</w:t></w:r>", "one\u2011two", run("ONE\u2011TWO")),
        ("<w:r><w:t> One</w:t><w:t>two\n </w:t></w:r>", "onetwo", run("ONETWO")),
    ],
)  # fmt: skip
def test_what_is_in_a_paragraph_of_word(before: str, said: str, after: str | None) -> None:
    content = paragraph(before)
    assert [each.lower() for each in Office(content, ".docx").texts] == [said]
    if after is not None:
        assert inside(written(content, ".docx", turned)) == after
    for name in (
        "instrText",
        "delText",
        "fldChar",
        "bookmarkStart",
        "bookmarkEnd",
        "footnoteReference",
        "oMath",
        "tab",
        "br",
    ):
        assert inside(written(content, ".docx", turned)).count(f":{name}") == before.count(f":{name}")


def test_of_a_field_that_is_reckoned_nothing_is_translated() -> None:
    content = paragraph(f"{run('See page ')}{instruction('PAGEREF x')}{run('twelve')}{FIELDS['end']}{run(' below')}")
    xml = inside(written(content, ".docx", turned))
    assert re.sub("<[^>]*>", "", xml) == "BELOW PAGE PAGEREF xtwelve SEE"


def test_a_field_over_several_paragraphs_stays_open() -> None:
    content = paragraph(f"{instruction('TOC')}{run('One two')}")
    assert inside(written(content, ".docx", turned)) == one_run(instruction("TOC"), run("TWO ONE"))


def test_tabs_and_lines_are_where_they_were_where_the_translation_has_them() -> None:
    content = paragraph("<w:r><w:t>a b</w:t><w:tab/><w:t>c</w:t><w:br/><w:t>d</w:t></w:r>")
    office_document = Office(content, ".docx")
    assert office_document.texts == ["a b\tc\nd"]
    found = Hypothesis("X\tY Z\nV", 0.0, alignment=((3, 0), (0, 3), (2, 1)))
    assert docx.Document(io.BytesIO(office_document.write([found]))).paragraphs[0].text == "X\tY Z\nV"
    assert "X</w:t><w:tab/>" in inside(office_document.write([found]))
    lost = Hypothesis("X Y Z V", 0.0, alignment=((0, 0), (1, 1), (2, 2), (3, 3)))
    assert docx.Document(io.BytesIO(office_document.write([lost]))).paragraphs[0].text == "X Y\tZ\nV"


def test_a_word_in_part_of_another_format_keeps_it_where_it_is_the_same() -> None:
    content = paragraph(f"{run('Drink H')}{run('2', BOLD)}{run('O now')}")
    found = Hypothesis("Jetzt H2O", 0.0, alignment=((1, 1), (2, 0)))
    xml = inside(Office(content, ".docx").write([found]))
    assert xml == f"{run('Jetzt H')}{run('2', BOLD)}{run('O')}"


def test_a_paragraph_with_very_many_formats_is_several_passages() -> None:
    pieces = [(f"w{number} ", BOLD if number % 2 else ITALIC) for number in range(1000)]
    content = paragraph("".join(run(*piece) for piece in pieces))
    found = Office(content, ".docx")
    assert 10 <= len(found.texts) <= 21
    assert " ".join(found.texts) == "".join(said for said, _ in pieces).strip()
    runs = docx.Document(io.BytesIO(written(content, ".docx"))).paragraphs[0].runs
    assert [(each.text.strip(), bool(each.bold)) for each in runs] == [
        (said.strip(), each == BOLD) for said, each in pieces
    ]


@pytest.mark.parametrize(
    ("inside_of_it", "said"),
    [
        (f"{run('One ')}<w:hyperlink>{run('two')}{NOTE}</w:hyperlink>{run(' three', BOLD)}", "One two three"),
        (f"<w:hyperlink>{run('One')}<w:r><w:tab/></w:r></w:hyperlink>{run('two', BOLD)}", "One\ttwo"),
        (f"{run('One', BOLD)}{NOTE}<w:r><w:rPr><w:i/></w:rPr><w:tab/></w:r>{run('two', BOLD)}", "One\ttwo"),
        (f"{run('One')}<w:hyperlink>{run(' ')}</w:hyperlink>{run('two')}", "One two"),
        (f"{run('One ', BOLD)}{NOTE}{run(' two', BOLD)}", "One two"),
        (f"{run(' ')}{NOTE}{run(' two')}", "two"),
    ],
)
def test_what_is_kept_stays_where_it_is_where_the_words_do(inside_of_it: str, said: str) -> None:
    content = paragraph(inside_of_it)
    assert Office(content, ".docx").texts == [said]
    after = members(written(content, ".docx"))["word/document.xml"]
    assert canonical(after) == canonical(members(content)["word/document.xml"])


def test_what_is_kept_after_words_that_nothing_comes_from_has_its_space_behind_it() -> None:
    content = paragraph(f"{run('One ')}{NOTE}{run(' two', BOLD)}")
    xml = inside(Office(content, ".docx").write([Hypothesis("Zwei", 0.0, alignment=((1, 0),))]))
    assert xml == f"{NOTE[:-6]}{run(' ')[5:]}{run('Zwei', BOLD)}"


def test_ranges_that_cross_stay() -> None:
    marks = [
        '<w:bookmarkStart w:id="1"/>',
        '<w:bookmarkStart w:id="2"/>',
        '<w:bookmarkEnd w:id="1"/>',
        '<w:bookmarkEnd w:id="2"/>',
    ]
    pieces = [run("one "), run("two "), run("three "), run("four "), run("five")]
    content = paragraph("".join(piece + mark for piece, mark in zip(pieces, [*marks, ""], strict=True)))
    xml = inside(written(content, ".docx"))
    assert re.sub("<[^>]*>", "", xml) == "one two three four five"
    assert re.findall(r"<w:bookmark\w+ w:id=\"\d\"/>", xml) == marks


def test_a_large_group_in_a_paragraph_is_several_passages() -> None:
    many = "".join(run(f"w{number} ", BOLD if number % 2 else ITALIC) for number in range(300))
    content = paragraph(f'{run("Before ")}<w:ins w:id="1">{many}</w:ins>{run(" after")}')
    assert len(Office(content, ".docx").texts) >= 5
    xml = inside(written(content, ".docx"))
    assert re.sub("<[^>]*>", "", re.sub(".*<w:ins[^>]*>|</w:ins>.*", "", xml)) == "".join(
        f"w{number} " for number in range(300)
    )


def test_shells_and_ranges_in_each_other_without_end() -> None:
    deep = "<w:smartTag>" * 150 + run("One") + "</w:smartTag>" * 150
    content = paragraph(run("Two ") + deep)
    assert Office(content, ".docx").texts == ["Two"]
    starts = "".join(f'<w:bookmarkStart w:id="{number}" w:name="b{number}"/>' for number in range(3000))
    ends = "".join(f'<w:bookmarkEnd w:id="{number}"/>' for number in reversed(range(3000)))
    xml = inside(written(paragraph(starts + run("One two") + ends), ".docx", turned))
    assert (xml.count("bookmarkStart"), xml.count("bookmarkEnd")) == (3000, 3000)
    assert "TWO ONE" in xml


def odt_paragraph(inside: str) -> bytes:
    """A text document with this in its only paragraph."""
    parts = members(DOCUMENTS[".odt"])
    body = f"<text:p>{inside}</text:p>".encode()
    parts["content.xml"] = re.sub(rb"(?s)<text:h .*</text:p>", body, parts["content.xml"])
    parts["content.xml"] = parts["content.xml"].replace(
        b"</office:automatic-styles>", ODT_STYLES + b"</office:automatic-styles>"
    )
    return zipped({name: part for name, part in parts.items() if name != "styles.xml"})


ODT_STYLES = b"".join(
    b'<style:style style:name="%s" style:family="text"><style:text-properties %s/></style:style>' % look
    for look in (
        (b"T2", b'fo:language="de" fo:country="DE"'),
        (b"T3", b'fo:font-weight="bold"'),
        (b"T4", b'fo:font-weight="bold" xmlns:o="http://openoffice.org/2009/office" o:rsid="00112233"'),
    )
)


def odt_inside(content: bytes) -> str:
    found = re.search(r"<text:p>(.*)</text:p>", members(content)["content.xml"].decode())
    assert found
    return found[1]


def test_spaces_of_open_document() -> None:
    content = odt_paragraph(
        "\n  One  <text:span>two. \n</text:span> <text:s/>Three<text:s/> <text:s text:c='99999999999'/>four\n"
    )
    found = Office(content, ".odt")
    assert found.texts == ["One two. Three four"]
    after = odt_inside(Office(odt_paragraph("One two"), ".odt").write([Hypothesis("A   b c", 0.0)]))
    assert after == 'A <text:s text:c="2"/>b c'
    assert (
        odt_inside(written(content, ".odt")) == 'One two. <text:s/>Three<text:s/> <text:s text:c="99999999999"/>four '
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # T1, T3 and T4 look the same, T2 is a language
        (
            '<text:span text:style-name="T1">One </text:span><text:span text:style-name="T3">t</text:span>'
            '<text:span text:style-name="T4">wo</text:span><text:span text:style-name="T2"> three</text:span>',
            '<text:span text:style-name="T1">ONE TWO </text:span>THREE',
        ),
        (
            'One <text:bookmark-start text:name="x"/>two<text:bookmark-end text:name="x"/> three',
            'ONE <text:bookmark-start text:name="x"/>TWO<text:bookmark-end text:name="x"/> THREE',
        ),
        (
            '<text:span text:style-name="A"><text:a>One</text:a> two</text:span>',
            '<text:a><text:span text:style-name="A">ONE</text:span></text:a><text:span text:style-name="A"> TWO</text:span>',
        ),
        ("O<text:soft-page-break/>ne<!-- two -->", "ONE<!-- two -->"),
        (
            "".join(f'<text:span text:style-name="S{number}">' for number in range(9)) + "One" + "</text:span>" * 9,
            "".join(f'<text:span text:style-name="S{number}">' for number in range(5)) + "ONE" + "</text:span>" * 5,
        ),
    ],
)  # fmt: skip
def test_what_is_in_a_paragraph_of_open_document(before: str, after: str) -> None:
    def louder(said: str) -> Hypothesis:
        return Hypothesis(said.upper(), 0.0, alignment=same(said).alignment)

    assert odt_inside(written(odt_paragraph(before), ".odt", louder)) == after


def test_what_was_deleted_in_open_document_is_no_text() -> None:
    gone = "<text:changed-region><text:deletion><text:p>Gone</text:p></text:deletion></text:changed-region>"
    gone = f"<text:tracked-changes>{gone}</text:tracked-changes>"
    parts = members(odt_paragraph("Here"))
    parts["content.xml"] = parts["content.xml"].replace(b"<office:text>", b"<office:text>" + gone.encode())
    assert Office(zipped(parts), ".odt").texts == ["Here"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # what spellers and languages say is no format, and the properties of the end stay at the end
        (
            '<a:pPr lvl="1"/><a:r><a:rPr lang="en-US" dirty="0"/><a:t>One</a:t></a:r>'
            '<a:r><a:rPr lang="de-DE" err="1"/><a:t> two</a:t></a:r><a:endParaRPr lang="en-US"/>',
            '<a:pPr lvl="1"/><a:r><a:rPr lang="en-US" dirty="0"/><a:t>TWO ONE</a:t></a:r><a:endParaRPr lang="en-US"/>',
        ),
        # a link that is longer than the rest is at its word only
        (
            '<a:r><a:t>See </a:t></a:r><a:r><a:rPr><a:hlinkClick r:id="rId1"/></a:rPr><a:t>www.example.com</a:t></a:r>',
            '<a:r><a:rPr><a:hlinkClick r:id="rId1"/></a:rPr><a:t>WWW.EXAMPLE.COM</a:t></a:r><a:r><a:t> SEE</a:t></a:r>',
        ),
        # the number of the slide is kept
        (
            '<a:r><a:t>Slide </a:t></a:r><a:fld id="{0}" type="slidenum"><a:t>one</a:t></a:fld><a:r><a:t> here</a:t></a:r>',
            '<a:r><a:t>HERE SLIDE </a:t></a:r><a:fld id="{0}" type="slidenum"><a:t>one</a:t></a:fld>',
        ),
        (
            '<a:r><a:t>See </a:t></a:r><a:fld id="{0}" type="slidenum"><a:t>one</a:t></a:fld><a:r><a:t> here now</a:t></a:r>',
            '<a:r><a:t>NOW HERE SEE </a:t></a:r><a:fld id="{0}" type="slidenum"><a:t>one</a:t></a:fld>',
        ),
    ],
)  # fmt: skip
def test_what_is_in_a_paragraph_of_a_slide(before: str, after: str) -> None:
    name = "ppt/slides/slide1.xml"
    parts = members(DOCUMENTS[".pptx"])
    parts[name] = re.sub(rb"(?s)<a:p>.*?</a:p>", f"<a:p>{before}</a:p>".encode(), parts[name], count=1)
    parts = {each: part for each, part in parts.items() if not each.startswith(("ppt/notesSlides", "ppt/charts"))}
    found = re.search("<a:p>(.*?)</a:p>", members(written(zipped(parts), ".pptx", turned))[name].decode())
    assert found
    assert found[1].strip() == after
