"""Packages of office documents: what could do harm is refused in one line, and damage is."""

from __future__ import annotations

import io
import re
import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from office_documents import (
    DOCUMENTS,
    W,
    members,
    run,
    turned,
    with_part,
    written,
    zipped,
)

from nmt.documents import packages
from nmt.documents.office import Office
from nmt.errors import InputError


def without(name: str, suffix: str = ".docx") -> bytes:
    return zipped({each: part for each, part in members(DOCUMENTS[suffix]).items() if each != name})


def changed(old: bytes, new: bytes, suffix: str = ".docx", name: str = "[Content_Types].xml") -> bytes:
    part = members(DOCUMENTS[suffix])[name]
    assert old in part
    return with_part(name, part.replace(old, new), suffix)


def flagged(content: bytes, offset: int, value: bytes) -> bytes:
    """With other bytes at an offset in the last entry of the list of members."""
    start = content.rindex(b"PK\1\2") + offset
    return content[:start] + value + content[start + len(value) :]


def document_with(doctype: str, said: str = "", head: str = "", encoding: str = "utf-8") -> bytes:
    body = f"<w:body><w:p>{run(said)}</w:p></w:body>"
    return f'<?xml version="1.0" {head}?>{doctype}<w:document xmlns:w="{W}">{body}</w:document>'.encode(encoding)


def large() -> bytes:
    """With a member of some kilobytes that becomes 10 MB."""
    return with_part("word/media/x.png", bytes(10_000_000))


LAUGHS = "<!DOCTYPE w:document [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {name} '{f'&{before};' * 10}'>" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
TEMPLATE = b"wordprocessingml.document.main+xml", b"wordprocessingml.template.main+xml"
MACROS = (
    b"vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml",
    b"vnd.ms-word.document.macroEnabled.main+xml",
)
MANIFEST = "META-INF/manifest.xml"
VBA = b'<Default Extension="bin" ContentType="application/vnd.ms-office.vbaProject"/></Types>'
REFUSED = {
    "not a zip": (".docx", lambda: b"plain text", "it is no zip archive"),
    "nothing": (".docx", lambda: b"", "it is no zip archive"),
    "cut off": (".docx", lambda: DOCUMENTS[".docx"][:-100], "it is no zip archive"),
    "damaged": (".docx", lambda: DOCUMENTS[".docx"].replace(DOCUMENTS[".docx"][100:120], bytes(20)), "is damaged"),
    "encrypted by Office": (".docx", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "encrypted"),
    "encrypted zip": (".docx", lambda: flagged(DOCUMENTS[".docx"], 8, b"\1\0"), "is encrypted"),
    "encrypted OpenDocument": (
        ".odt", lambda: changed(b"</manifest:manifest>", b"<manifest:encryption-data/></manifest:manifest>", ".odt", MANIFEST),
        "it is encrypted",
    ),
    "other compression": (".docx", lambda: zipped(members(DOCUMENTS[".docx"]), zipfile.ZIP_BZIP2), "compressed in a way"),
    "bomb": (".docx", lambda: large(), "more than 200 times"),
    "bomb that calls itself small": (".docx", lambda: flagged(large(), 24, b"\1\0\0\0"), "is damaged"),
    "bomb that calls itself hardly compressed": (
        ".docx", lambda: flagged(large(), 20, struct.pack("<I", 9_000_000)), "is damaged",
    ),
    "too many members": (".docx", lambda: zipped({str(number): b"" for number in range(10_001)}), "more than 10000 members"),
    "a member twice": (".docx", lambda: _twice(), "same name"),
    "path upwards": (".docx", lambda: with_part("word/../../x.xml", b""), "leads out of it"),
    "path upwards, Windows": (".docx", lambda: with_part("word\\..\\..\\x.xml", b""), "leads out of it"),
    "absolute path": (".docx", lambda: with_part("/etc/passwd", b""), "leads out of it"),
    "absolute path, Windows": (".docx", lambda: with_part("C:\\x", b""), "leads out of it"),
    "billion laughs": (".docx", lambda: with_part("word/document.xml", document_with(LAUGHS + "]>", "&i;")), "has a DOCTYPE"),
    "external entity": (
        ".docx",
        lambda: with_part("word/document.xml", document_with('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>', "&a;")),
        "has a DOCTYPE",
    ),
    "external DTD": (
        ".odt", lambda: with_part("content.xml", document_with('<!DOCTYPE x SYSTEM "http://localhost/x">'), ".odt"), "has a DOCTYPE",
    ),
    "DTD in UTF-16": (
        ".docx",
        lambda: with_part("word/document.xml", document_with("<!DOCTYPE x>", head='encoding="UTF-16"', encoding="utf-16")),
        "has a DOCTYPE",
    ),
    "DTD in UTF-7": (
        ".docx",
        lambda: with_part("word/document.xml", document_with("+ADw-!DOCTYPE x+AD4-", head='encoding="UTF-7"')),
        "has a DOCTYPE",
    ),
    "DTD in the types": (".pptx", lambda: changed(b"<Types", b"<!DOCTYPE Types><Types", ".pptx"), "has a DOCTYPE"),
    "broken XML": (".docx", lambda: with_part("word/document.xml", b"<w:document>"), "broken XML"),
    "too deep": (".docx", lambda: with_part("word/document.xml", b"<a>" * 300 + b"</a>" * 300), "broken XML"),
    "no main part": (".docx", lambda: without("word/document.xml"), "it has no word/document.xml"),
    "no types": (".pptx", lambda: without("[Content_Types].xml", ".pptx"), "it has no [Content_Types].xml"),
    "no content": (".odt", lambda: without("content.xml", ".odt"), "it has no content.xml"),
    "slides as text": (".docx", lambda: DOCUMENTS[".pptx"], "it is a .pptx by its content"),
    "text as slides": (".pptx", lambda: DOCUMENTS[".docx"], "it is a .docx by its content"),
    "Word as OpenDocument": (".odt", lambda: DOCUMENTS[".docx"], "it has no mimetype"),
    "OpenDocument as Word": (".docx", lambda: DOCUMENTS[".odt"], "it has no [Content_Types].xml"),
    "a sheet": (".odt", lambda: with_part("mimetype", b"application/vnd.oasis.opendocument.spreadsheet", ".odt"), "spreadsheet"),
    "a template": (".docx", lambda: changed(*TEMPLATE), "it is no .docx by its content"),
    "with macros": (".docx", lambda: changed(*MACROS), "it has macros"),
    "with a part of macros": (".docx", lambda: zipped(members(changed(b"</Types>", VBA)) | {"word/vba.bin": b""}), "it has macros"),
    "OpenDocument with macros": (".odt", lambda: with_part("Basic/Standard/Module1.xml", b"<x/>", ".odt"), "it has macros"),
    "named with macros": (".docm", lambda: DOCUMENTS[".docx"], "macros are not accepted"),
    "another suffix": (".xlsx", lambda: DOCUMENTS[".docx"], "'.xlsx'"),
    "strict": (".docx", lambda: with_part("word/document.xml", b'<x xmlns="http://purl.oclc.org/ooxml/wordprocessingml/main"/>'), "Strict"),
}  # fmt: skip


def _twice() -> bytes:
    buffer = io.BytesIO(DOCUMENTS[".docx"])
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("word/document.xml", b"")
    return buffer.getvalue()


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_and_why(case: str) -> None:
    suffix, content, why = REFUSED[case]
    with pytest.raises(InputError) as refused:
        Office(content(), suffix)
    said = str(refused.value)
    assert why in said
    assert "\n" not in said
    assert ": " in said  # what is to be done
    assert "root:" not in said


@pytest.mark.parametrize(("limit", "why"), [("_MOST_BYTES", "larger than"), ("_MOST_XML", "MB of XML")])
def test_a_document_of_too_many_bytes_is_refused(limit: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    large = members(with_part("word/document.xml", document_with("", "a" * 300_000)))
    content = zipped(large | {"word/media/x.bin": bytes(300_000)})
    Office(content, ".docx")
    monkeypatch.setattr(packages, limit, {"_MOST_BYTES": 500_000, "_MOST_XML": 200_000}[limit])
    with pytest.raises(InputError, match=why):
        Office(content, ".docx")


def test_members_that_are_within_the_bounds_are_accepted() -> None:
    parts = members(DOCUMENTS[".docx"]) | {"word/media/x.bin": bytes(900_000), "word/media/": b"", "word/a..b": b""}
    assert members(written(zipped(parts), ".docx"))["word/media/x.bin"] == bytes(900_000)
    odt = with_part("Basic/script-lc.xml", b"<x/>", ".odt")
    assert Office(odt, ".odt").texts


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(DOCUMENTS)),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damage_is_refused_or_does_no_harm(suffix: str, damage: list[tuple[float, int]]) -> None:
    content = bytearray(DOCUMENTS[suffix])
    for place, byte in damage:
        content[int(place * len(content))] = byte
    try:
        after = written(bytes(content), suffix)
    except InputError:
        return
    assert zipfile.ZipFile(io.BytesIO(after)).testzip() is None


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_part_is_refused_or_does_no_harm(data: st.DataObject) -> None:
    suffix, name = data.draw(
        st.sampled_from([(".docx", "word/document.xml"), (".pptx", "ppt/slides/slide1.xml"), (".odt", "content.xml")])
    )
    part = members(DOCUMENTS[suffix])[name].decode()
    pieces = re.split(r"(?=<)", part)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(1, len(pieces) - 1))
        pieces[at : at + data.draw(st.integers(0, 2))] = data.draw(st.lists(st.sampled_from(pieces), max_size=2))
    try:
        written(with_part(name, "".join(pieces).encode(), suffix), suffix, turned)
    except InputError as refused:
        said = str(refused)
    else:
        said = "broken XML"
    assert "broken XML" in said
