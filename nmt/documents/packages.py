"""Packages, as office documents are: zip archives with XML in them. They are read within bounds that a hostile one cannot pass, and written
anew with the same members in the same order."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping

from lxml import etree

from nmt.errors import InputError

SUFFIXES = (".docx", ".odt", ".pptx")

_MOST_MEMBERS = 10_000
_MOST_BYTES = 200_000_000  # of all members
_MOST_XML = 20_000_000  # of one that is translated; its tree takes some twenty times as much
_MOST_RATIO = 200  # of a member to what it is compressed to,
_SMALL = 1_000_000  # where it is larger than this
_PIECE = 1 << 16

_OLD = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # a compound file: what Office encrypts, and what it wrote before 2007
_MIMETYPE = "application/vnd.oasis.opendocument.text"
_TYPES = "[Content_Types].xml"
_WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml."
_SLIDES = "application/vnd.openxmlformats-officedocument.presentationml."
_MAIN = {".docx": f"{_WORD}document.main+xml", ".pptx": f"{_SLIDES}presentation.main+xml"}
_TEXT = {
    *(f"{_WORD}{part}+xml" for part in ["document.main", "header", "footer", "footnotes", "endnotes", "comments"]),
    *(f"{_SLIDES}{part}+xml" for part in ("slide", "notesSlide")),
    "application/vnd.openxmlformats-officedocument.drawingml.chart+xml",
    "application/vnd.openxmlformats-officedocument.drawingml.diagramData+xml",
    "application/vnd.ms-office.drawingml.diagramDrawing+xml",
}
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, OverflowError)


class Package:
    """The archive `content` of a document with that suffix; `parts` are the members that have text.

    InputError: it is no such archive, or encrypted, or damaged, or has macros, or could be an attack.
    """

    def __init__(self, content: bytes, suffix: str) -> None:
        self._suffix = suffix.lower()
        if self._suffix not in SUFFIXES:
            macros = ": macros are not accepted" if self._suffix in (".docm", ".pptm") else ""
            raise InputError(f"a document with the suffix {suffix!r}{macros}: save it as one of {', '.join(SUFFIXES)}")
        self._content = content
        self._archive = self._opened()
        self._infos = {info.filename: info for info in self._archive.infolist()}
        self._check()
        self.parts = self._odt() if self._suffix == ".odt" else self._ooxml()

    def xml(self, name: str) -> etree._ElementTree:
        """A member's XML, of which nothing is left out, and no entity or file is read."""
        content = self._read(self._member(name), _MOST_XML, f"{_MOST_XML // 1_000_000} MB of XML in one part")
        # The mark is looked for in UTF-16 too; what other encodings hide is seen after parsing.
        hidden = b"<!DOCTYPE" in content.replace(b"\0", b"")
        if not hidden:
            parser = etree.XMLParser(
                resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, strip_cdata=False
            )
            try:
                tree = etree.parse(io.BytesIO(content), parser)
            except etree.XMLSyntaxError as error:
                raise self._refused(f"{name} is broken XML ({str(error).splitlines()[0]})", "save it anew") from None
            hidden = tree.docinfo.internalDTD is not None
        if hidden:
            raise self._refused(f"{name} has a DOCTYPE, which office programs do not write", "save it anew with one")
        return tree

    def with_tree(self, name: str, tree: etree._ElementTree) -> bytes:
        """The content of a member with another tree, and the declaration that it has."""
        head = re.match(rb"(?:\xef\xbb\xbf)?<\?xml[^>]*\?>\s*", self._read(self._member(name)))
        if head and re.search(rb"encoding\s*=", head[0]) and not re.search(rb"(?i)[\"']utf-8[\"']", head[0]):
            head = None
        start = head[0] if head else b'<?xml version="1.0" encoding="UTF-8"?>\n'
        return start + etree.tostring(tree, encoding="UTF-8", xml_declaration=False)

    def write(self, changed: Mapping[str, bytes]) -> bytes:
        """The archive with these contents in the place of those of its members."""
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w") as target:
            target.comment = self._archive.comment
            for name, info in self._infos.items():
                copy = zipfile.ZipInfo(name, info.date_time)
                copy.compress_type, copy.external_attr = info.compress_type, info.external_attr
                copy.create_system, copy.comment = info.create_system, info.comment
                target.writestr(copy, changed[name] if name in changed else self._read(info))
        return written.getvalue()

    def _refused(self, why: str, advice: str) -> InputError:
        return InputError(f"the {self._suffix} document: {why}: {advice}")

    def _opened(self) -> zipfile.ZipFile:
        if self._content.startswith(_OLD):
            raise self._refused(
                "it is encrypted, or of an Office before 2007", f"save it as {self._suffix}, without a password"
            )
        # Before the archive's list is read, which a hostile one makes long.
        if self._content.count(b"PK\1\2") > _MOST_MEMBERS:
            raise self._refused(f"it has more than {_MOST_MEMBERS} members", "save it anew, or divide it")
        try:
            return zipfile.ZipFile(io.BytesIO(self._content))
        except _DAMAGED:
            raise self._refused("it is no zip archive", f"save it as {self._suffix} with an office program") from None

    def _check(self) -> None:
        infos = self._archive.infolist()
        if len(infos) > len(self._infos):
            raise self._refused("two of its members have the same name", "save it anew")
        left = _MOST_BYTES
        for info in infos:
            name = info.orig_filename
            if re.match(r"[/\\]|[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
                raise self._refused(f"the name of its member {name!r} leads out of it", "save it anew")
            if info.flag_bits & 0x1:
                raise self._refused(f"its member {name!r} is encrypted", "save it without a password")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise self._refused(
                    f"its member {name!r} is compressed in a way that office programs do not use", "save it anew"
                )
            left -= len(self._read(info, left))

    def _read(self, info: zipfile.ZipInfo, most: int = _MOST_BYTES, what: str = "") -> bytes:
        """A member's content, of which no more is decompressed than may be, whatever the archive says of its size."""
        what = what or f"{_MOST_BYTES // 1_000_000} MB"
        pieces, size = [], 0
        try:
            with self._archive.open(info) as file:
                while piece := file.read(_PIECE):
                    pieces.append(piece)
                    size += len(piece)
                    if size > most:
                        raise self._refused(f"with its member {info.filename!r} it is larger than {what}", "divide it")
                    if size > max(_SMALL, _MOST_RATIO * info.compress_size):
                        raise self._refused(
                            f"its member {info.filename!r} is more than {_MOST_RATIO} times as large as it is compressed",
                            "save it anew, or divide it",
                        )
        except _DAMAGED:
            raise self._refused(f"its member {info.filename!r} is damaged", "save it anew") from None
        return b"".join(pieces)

    def _member(self, name: str) -> zipfile.ZipInfo:
        if name not in self._infos:
            raise self._refused(f"it has no {name}", f"save it as {self._suffix} with an office program")
        return self._infos[name]

    def _ooxml(self) -> list[str]:
        types = self._types()
        if any("macroenabled" in kind.lower() or "vbaproject" in kind.lower() for kind in types.values()):
            raise self._refused("it has macros", f"save it as {self._suffix}, without them")
        main = [name for name, kind in types.items() if kind == _MAIN[self._suffix]]
        if not main:
            found = next((suffix for suffix, kind in _MAIN.items() if kind in types.values()), None)
            why = f"it is a {found}" if found else f"it is no {self._suffix}"
            raise self._refused(f"{why} by its content", "give it the suffix that it has")
        self._member(main[0])
        return [name for name in self._infos if types.get(name) in _TEXT]

    def _types(self) -> dict[str, str]:
        """The content types of the members, and of parts that are said to be there and are not."""
        defaults: dict[str, str] = {}
        overrides: dict[str, str] = {}
        for node in self.xml(_TYPES).getroot():
            kind = str(node.get("ContentType", ""))
            if (extension := node.get("Extension")) is not None:
                defaults[str(extension).lower()] = kind
            elif (part := node.get("PartName")) is not None:
                overrides[str(part).lstrip("/").lower()] = kind
        types = {
            name: overrides.pop(name.lower(), defaults.get(name.rpartition(".")[2].lower(), "")) for name in self._infos
        }
        return types | overrides

    def _odt(self) -> list[str]:
        kind = self._read(self._member("mimetype")).decode("latin-1").strip()
        if kind != _MIMETYPE:
            raise self._refused(f"by its content it is {kind[:80]!r}", "give it the suffix that it has")
        manifest = "META-INF/manifest.xml"
        if manifest in self._infos and b"encryption-data" in self._read(self._infos[manifest]):
            raise self._refused("it is encrypted", "save it without a password")
        if any(re.match(r"(Basic|Scripts)/.*(?<!-l[bc]\.xml)(?<!/)$", name) for name in self._infos):
            raise self._refused("it has macros", "save it without them")
        self._member("content.xml")
        return [name for name in ("content.xml", "styles.xml") if name in self._infos]
