"""What the tests of office documents share: documents with everything in them, and ways to look into their packages."""

from __future__ import annotations

import copy
import io
import re
import zipfile
from collections.abc import Callable

import docx
import pptx
from docx.opc.constants import RELATIONSHIP_TYPE
from docx.opc.packuri import PackURI
from docx.opc.part import Part
from docx.oxml import parse_xml
from docx.shared import Inches, Pt
from lxml import etree
from odf import dc, draw, office, style, table, text
from odf.opendocument import OpenDocumentText
from PIL import Image
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE

from nmt.documents.office import Office
from nmt.inference.types import Hypothesis

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
A = "http://schemas.openxmlformats.org/drawingml/2006/main"
T = "urn:oasis:names:tc:opendocument:xmlns:text:1.0"
NAMES = (
    f'xmlns:w="{W}" xmlns:a="{A}" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
    ' xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" xmlns:v="urn:schemas-microsoft-com:vml"'
    ' xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape"'
    ' xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
)
FOOTNOTES = "application/vnd.openxmlformats-officedocument.wordprocessingml.footnotes+xml"


def same(said: str) -> Hypothesis:
    """A translation that is its source."""
    return Hypothesis(said, 0.0, alignment=tuple((place, place) for place in range(len(said.split()))))


def turned(said: str) -> Hypothesis:
    """A translation that is its words from the last to the first, in capitals."""
    words = said.split()
    links = tuple((place, len(words) - 1 - place) for place in range(len(words)))
    return Hypothesis(" ".join(words[::-1]).upper(), 0.0, alignment=links)


def written(content: bytes, suffix: str, translate: Callable[[str], Hypothesis] = same) -> bytes:
    office_document = Office(content, suffix)
    return office_document.write([translate(each) for each in office_document.texts])


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, part in parts.items():
            archive.writestr(name, part, zipfile.ZIP_STORED if name == "mimetype" else None)
    return buffer.getvalue()


def canonical(xml: bytes) -> bytes:
    """XML in its canonical form, with one text or element in a run."""
    root = etree.fromstring(xml)
    for node in list(root.iter(f"{{{W}}}r", f"{{{A}}}r")):
        look = [each for each in node if each.tag.endswith("}rPr")]
        for piece in [each for each in node if each not in look]:
            single = etree.Element(node.tag, node.attrib)
            single.extend([*map(copy.deepcopy, look), piece])
            node.addprevious(single)
        node.getparent().remove(node)
    return etree.tostring(root, method="c14n")


def saved(document: object) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)  # type: ignore[attr-defined]
    return buffer.getvalue()


def paragraph(inside: str) -> bytes:
    """A Word document with this in its only paragraph."""
    document = f"<w:document {NAMES}><w:body><w:p>{inside}</w:p></w:body></w:document>"
    return zipped(BLANK | {"word/document.xml": document.encode()}, zipfile.ZIP_STORED)


def run(said: str, properties: str = "") -> str:
    look = f"<w:rPr>{properties}</w:rPr>" if properties else ""
    space = ' xml:space="preserve"' if said != said.strip() else ""
    return f"<w:r>{look}<w:t{space}>{said}</w:t></w:r>"


BLANK = members(saved(docx.Document()))
BOLD, ITALIC = "<w:b/>", "<w:i/>"


def one_run(*runs: str) -> str:
    """Runs without properties as one."""
    return "".join(runs).replace("</w:r><w:r>", "")


def inside(content: bytes) -> str:
    """What is in the first paragraph of a Word document, without namespaces' declarations."""
    found = etree.fromstring(members(content)["word/document.xml"]).find(f".//{{{W}}}p")
    xml = "".join(etree.tostring(node, encoding="unicode") for node in found)
    return re.sub(r' xmlns:\w+="[^"]*"', "", xml)


# --- documents with everything in them -----------------------------------------------------------------------------------------


def word_document() -> bytes:
    document = docx.Document()
    first = document.add_paragraph("I have a ", style="Heading 1")
    first.add_run("big").bold = True
    first.add_run(" and ")
    first.add_run("old").italic = True
    first.add_run(" house.")
    link = document.add_paragraph("See ")
    related = document.part.relate_to("https://example.com", RELATIONSHIP_TYPE.HYPERLINK, is_external=True)
    link._p.append(
        parse_xml(f'<w:hyperlink r:id="{related}" {NAMES}>{run("our web ")}{run("site", BOLD)}</w:hyperlink>')
    )
    link.add_run(" for more.")
    lines = document.add_paragraph("Name:\tTom\nTown:\tUlm ")
    image = io.BytesIO()
    Image.new("RGB", (2, 2)).save(image, "png")
    lines.runs[0].add_picture(image, Inches(1))
    grid = document.add_table(2, 2)
    grid.cell(0, 0).text, grid.cell(1, 1).text = "Upper cell", "Lower cell"
    section = document.sections[0]
    section.header.paragraphs[0].text, section.footer.paragraphs[0].text = "At the top", "At the bottom"
    noted = document.add_paragraph()
    commented = noted.add_run("A remark")
    noted.add_run(" and a note")
    noted._p.append(parse_xml(f'<w:r {NAMES}><w:footnoteReference w:id="2"/></w:r>'))
    noted.add_run(".")
    document.add_comment(commented, text="Is it so?", author="Ann", initials="A")
    note = f'<w:footnote w:id="2"><w:p>{run("Below the line")}</w:p></w:footnote>'
    note = f'<?xml version="1.0" encoding="utf-8"?>\n<w:footnotes {NAMES}>{note}</w:footnotes>'
    part = Part(PackURI("/word/footnotes.xml"), FOOTNOTES, note.encode(), document.part.package)
    document.part.relate_to(part, RELATIONSHIP_TYPE.FOOTNOTES)
    box = f"<w:txbxContent><w:p>{run('In the box')}</w:p></w:txbxContent>"
    document.add_paragraph("Beside it")._p.append(
        parse_xml(
            f'<w:r {NAMES}><mc:AlternateContent><mc:Choice Requires="wps"><w:drawing><wps:txbx>{box}</wps:txbx></w:drawing>'
            f"</mc:Choice><mc:Fallback><w:pict><v:textbox>{box}</v:textbox></w:pict></mc:Fallback></mc:AlternateContent></w:r>"
        )
    )
    return saved(document)


def slides() -> bytes:
    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[1])
    slide.shapes.title.text = "A title\vin two lines"
    body = slide.placeholders[1].text_frame.paragraphs[0]
    for said, bold in (("I have a ", None), ("big", True), (" house, see ", None)):
        piece = body.add_run()
        piece.text, piece.font.bold = said, bold
    link = body.add_run()
    link.text, link.hyperlink.address = "here", "https://example.com"
    body.add_line_break()
    last = body.add_run()
    last.text = "a\tb"
    last.font.size = Pt(30)
    grid = slide.shapes.add_table(1, 2, 0, 0, Inches(2), Inches(1)).table
    grid.cell(0, 0).text, grid.cell(0, 1).text = "Left cell", "Right cell"
    data = CategoryChartData()
    data.categories = ["x"]
    data.add_series("s", (1,))
    chart = slide.shapes.add_chart(XL_CHART_TYPE.PIE, 0, 0, Inches(2), Inches(2), data).chart
    chart.has_title = True
    chart.chart_title.text_frame.text = "Title of the chart"
    slide.notes_slide.notes_text_frame.text = "Said, not shown"
    return saved(show)


def text_document() -> bytes:
    document = OpenDocumentText()
    for name, properties in (
        ("T1", {"fontweight": "bold"}),
        ("T2", {"language": "de", "country": "DE"}),
        ("T3", {"fontweight": "bold"}),
    ):
        look = style.Style(name=name, family="text")
        look.addElement(style.TextProperties(**properties))
        document.automaticstyles.addElement(look)

    def add(parent: object, *children: object) -> object:
        for child in children:
            if isinstance(child, str):
                parent.addText(child)  # type: ignore[attr-defined]
            else:
                parent.addElement(child)  # type: ignore[attr-defined]
        return parent

    def span(name: str, said: str) -> object:
        return add(text.Span(stylename=name), said)

    body = document.text
    add(body, text.H(outlinelevel=1, text="A heading"))
    add(
        body,
        add(
            text.P(), "I have a ", span("T1", "big"), " house.", text.S(c=2), "See ",
            add(text.A(href="https://example.com"), "our web ", span("T1", "site")), " now:", text.Tab(), "one", text.LineBreak(), "two",
        ),
    )  # fmt: skip
    body_of_note = add(text.NoteBody(), text.P(text="Below the line"))
    note = add(text.Note(noteclass="footnote"), text.NoteCitation(text="1"), body_of_note)
    remark = add(office.Annotation(), dc.Creator(text="Ann"), text.P(text="Is it so?"))
    add(body, add(text.P(), "A note", note, ", a page ", text.PageNumber(text="7"), " and a remark", remark, "."))
    add(body, add(table.Table(), add(table.TableRow(), add(table.TableCell(), text.P(text="In a cell")))))
    box = add(draw.TextBox(), text.P(text="In the box"))
    add(body, add(text.P(), "Beside it", add(draw.Frame(width="2cm"), box)))
    layout = style.PageLayout(name="page")
    master = add(
        style.MasterPage(name="Standard", pagelayoutname="page"), add(style.Header(), text.P(text="At the top"))
    )
    document.automaticstyles.addElement(layout)
    document.masterstyles.addElement(master)
    return saved(document)


DOCUMENTS = {".docx": word_document(), ".pptx": slides(), ".odt": text_document()}


def with_part(name: str, part: bytes, suffix: str = ".docx") -> bytes:
    return zipped(members(DOCUMENTS[suffix]) | {name: part})


DIAGRAM = "http://schemas.openxmlformats.org/drawingml/2006/diagram"
DIAGRAM_TYPES = {
    "data1": "application/vnd.openxmlformats-officedocument.drawingml.diagramData+xml",
    "drawing1": "application/vnd.ms-office.drawingml.diagramDrawing+xml",
}


def with_diagram(suffix: str, folder: str) -> bytes:
    """A document with a diagram, whose texts are in its data and in the drawing that was last made of them."""
    first = "<a:p><a:r><a:rPr b='1'/><a:t>First</a:t></a:r><a:r><a:t> the plan</a:t></a:r></a:p>"
    inside = [f"<a:bodyPr/>{each}" for each in (first, "<a:p><a:r><a:t>then the work</a:t></a:r></a:p>")]
    points = "".join(f'<dgm:pt modelId="{number}"><dgm:t>{each}</dgm:t></dgm:pt>' for number, each in enumerate(inside))
    shapes = "".join(f"<dsp:sp><dsp:txBody>{each}</dsp:txBody></dsp:sp>" for each in inside)
    drawing = "http://schemas.microsoft.com/office/drawing/2008/diagram"
    xml = {
        "data1": f'<dgm:dataModel xmlns:dgm="{DIAGRAM}" xmlns:a="{A}"><dgm:ptLst>{points}</dgm:ptLst></dgm:dataModel>',
        "drawing1": f'<dsp:drawing xmlns:dsp="{drawing}" xmlns:a="{A}"><dsp:spTree>{shapes}</dsp:spTree></dsp:drawing>',
    }
    parts = members(DOCUMENTS[suffix]) | {f"{folder}/diagrams/{name}.xml": part.encode() for name, part in xml.items()}
    types = "".join(
        f'<Override PartName="/{folder}/diagrams/{name}.xml" ContentType="{kind}"/>'
        for name, kind in DIAGRAM_TYPES.items()
    )
    parts["[Content_Types].xml"] = parts["[Content_Types].xml"].replace(b"</Types>", types.encode() + b"</Types>")
    return zipped(parts)


FIELD = '<w:r><w:fldChar w:fldCharType="{}"/></w:r>'
FIELDS = {kind: FIELD.format(kind) for kind in ("begin", "separate", "end")}


DELETED = '<w:del w:id="1"><w:r><w:delText>gone</w:delText></w:r></w:del>'
NOTE = '<w:r><w:footnoteReference w:id="2"/></w:r>'


def instruction(code: str) -> str:
    return f"{FIELDS['begin']}<w:r><w:instrText>{code}</w:instrText></w:r>{FIELDS['separate']}"
