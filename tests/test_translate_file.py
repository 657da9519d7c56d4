"""`nmt translate-file`: documents by the bundled model, and what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT

from nmt.cli import main
from nmt.documents.formats import MEDIA_TYPES, HtmlFile, kind_of, open_document
from nmt.errors import InputError
from nmt.inference.types import Hypothesis

BUNDLE = str(ROOT / "data/pretrained/tatoeba-en-de")


def test_documents_are_written_beside_or_where_they_are_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, text, folder = tmp_path / "page.html", tmp_path / "notes.txt", tmp_path / "out"
    page.write_text("<p>I have a <b>big house</b>.</p>\n", encoding="utf-8")
    text.write_bytes(b"I am tired.\r\n\r\n- Where is the station?\r\n")
    assert main(["translate-file", BUNDLE, str(page), str(text)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "page.de.html"), str(tmp_path / "notes.de.txt")]
    assert (tmp_path / "page.de.html").read_text(encoding="utf-8") == "<p>Ich habe ein <b>großes Haus</b>.</p>\n"
    assert (tmp_path / "notes.de.txt").read_bytes() == "Ich bin müde.\r\n\r\n- Wo ist der Bahnhof?\r\n".encode()
    assert main(["translate-file", BUNDLE, str(page)]) == 2
    assert "add --force" in capsys.readouterr().err
    assert main(["translate-file", BUNDLE, str(page), "--force"]) == 0
    folder.mkdir()
    assert main(["translate-file", BUNDLE, str(page), str(text), "--output", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "page.html"]


def test_what_is_wrong_is_one_line_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in (
        ("a.pdf", b"%PDF"),
        ("a.txt", b"\xff\xfa"),
        ("a.docx", b"x"),
        ("a.html", "ü".encode("latin-1")),
    ):
        (tmp_path / name).write_bytes(content)
    before = sorted(tmp_path.iterdir())
    for more, said in (
        ([], "give a file to translate"),
        ([str(tmp_path / "none.txt")], "none.txt: no such file"),
        ([str(tmp_path / "a.pdf")], "a.pdf: .pdf can't be translated; what can: .csv"),
        ([str(tmp_path / "a.txt")], "a.txt: line 1: byte 1"),
        ([str(tmp_path / "a.docx")], "a.docx: "),
        ([str(tmp_path / "a.html")], "a.html: byte 1 of the page is not utf-8"),
        ([str(tmp_path / "a.txt"), str(tmp_path / "a.html"), "--output", str(tmp_path / "none")], "need a folder"),
        ([str(tmp_path / "a.txt"), "--json"], "--json is for lines of text"),
    ):
        assert main(["translate-file", BUNDLE, *more]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert "Traceback" not in err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("content", "written"),
    [
        ("<p>ü</p>".encode(), "<p>Ü</p>".encode()),
        (b"\xef\xbb\xbf<p>a</p>", b"\xef\xbb\xbf<p>A</p>"),
        ("<p>ü</p>".encode("utf-16"), "<p>Ü</p>".encode("utf-16")),
        (b'<meta charset="latin-1"><p>\xfc \xe9</p>', b'<meta charset="latin-1"><p>\xdc \xc9</p>'),
    ],
)
def test_a_page_keeps_its_encoding(content: bytes, written: bytes) -> None:
    page = HtmlFile(content)
    assert page.write([Hypothesis(text.upper(), 0.0) for text in page.texts]) == written


def test_what_an_encoding_has_not_becomes_a_reference() -> None:
    page = HtmlFile(b'<meta charset="ascii"><p>a</p>')
    assert page.write([Hypothesis("ü€", 0.0)]) == b'<meta charset="ascii"><p>&#252;&#8364;</p>'


def test_encodings_that_are_none() -> None:
    with pytest.raises(InputError, match="which is not known: save it as UTF-8"):
        HtmlFile(b'<meta charset="klingon">')
    with pytest.raises(InputError, match="byte 2 of the page is not utf-8"):
        HtmlFile(b"a\xff")


def test_every_kind_is_opened_by_something() -> None:
    for suffix in MEDIA_TYPES:
        assert kind_of(f"A.{suffix[1:].upper()}") == suffix
        said = ""
        try:
            assert open_document(b"", f"a{suffix}").texts == []
        except InputError as error:  # nothing is no such file
            said = str(error)
        assert "pip install" not in said
