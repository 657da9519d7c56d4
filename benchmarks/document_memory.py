"""Memory and time that large documents take: opened and written in a process of its own each, with a translation that is the source.

    python benchmarks/document_memory.py            two minutes on two cores

Of generated text: .docx with 20,000 paragraphs, .pptx with 500 slides, .po with 20,000 messages, .html and .txt of 5 MB. `content` is what
a zip archive holds; `peak` is the most that was resident above what the process had when it had loaded what it needs.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from nmt.documents.formats import open_document, translated
from nmt.inference.types import Hypothesis, Translation
from nmt.machine import kilobytes, processor, versions

WORDS = ["the", "house", "big", "old", "river", "she", "never", "because", "light", "under", "green", "evening"]
STATUS = Path("/proc/self/status")


def main() -> None:
    """Print a table; with a file measure that, as a line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--measure", type=Path, metavar="FILE", help="this file, in this process")
    measured = parser.parse_args().measure
    if measured:
        print(json.dumps(measure(measured)))
        return
    packages = ", ".join(f"{name} {version}" for name, version in versions("lxml", "polib").items())
    print(f"{processor()}, {os.cpu_count()} cores; {packages}")
    print(
        f"{'':6} {'MB':>6} {'content MB':>11} {'passages':>9} {'peak MB':>8} {'x content':>10} {'open s':>7} {'write s':>8}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for suffix, build in BUILDS.items():
            path = Path(folder) / f"large{suffix}"
            path.write_bytes(build())
            command = [sys.executable, __file__, "--measure", str(path)]
            its = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            size, held = path.stat().st_size / 1e6, content(path) / 1e6
            print(
                f"{suffix:6} {size:>6.1f} {held:>11.1f} {its['passages']:>9,} {its['peak'] / 1e6:>8.0f} {its['peak'] / 1e6 / held:>10.0f}"
                f" {its['open']:>7.1f} {its['write']:>8.1f}",
                flush=True,
            )


def measure(path: Path) -> dict[str, float]:
    """Passages, peak in bytes, seconds to open and to write."""
    open_document(BUILDS[path.suffix](small=True), path.name)  # loads what is needed
    before = 1024 * kilobytes(STATUS, "VmHWM")
    started = time.perf_counter()
    document = open_document(path.read_bytes(), path.name)
    opened = time.perf_counter()
    translated(document, lambda texts: list(map(same, texts)))
    ended = time.perf_counter()
    peak = 1024 * kilobytes(STATUS, "VmHWM") - before
    return {"passages": len(document.texts), "peak": peak, "open": opened - started, "write": ended - opened}


def same(text: str) -> Translation:
    """A translation that is its source, with its links."""
    words = range(len(text.split()))
    return Translation(
        text, (Hypothesis(text, 0.0, alignment=tuple(zip(words, words, strict=True))),), len(words), len(words)
    )


def content(path: Path) -> int:
    """Bytes of a file, or of what it holds."""
    if not zipfile.is_zipfile(path):
        return path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        return sum(info.file_size for info in archive.infolist())


def sentences(count: int) -> Iterator[tuple[str, str, str]]:
    """Sentences in three parts, none twice, of which the middle one is to be bold."""
    rng = random.Random(1)
    for number in range(count):
        chosen = [" ".join(rng.choices(WORDS, k=rng.randint(2, 8))) for _ in range(3)]
        yield f"{chosen[0].capitalize()} ", chosen[1], f" {chosen[2]} {number}."


def word(small: bool = False) -> bytes:
    """.docx, of paragraphs with three runs."""
    import docx

    document = docx.Document()
    body = document.element.body
    for before, bold, after in sentences(2 if small else 20_000):
        paragraph = body.add_p()
        for text in (before, bold, after):
            paragraph.add_r().text = text
        paragraph.r_lst[1].get_or_add_rPr().b_val = True
    return saved(document.save)


def slides(small: bool = False) -> bytes:
    """.pptx, of slides with a title, eight lines and notes."""
    import pptx

    show = pptx.Presentation()
    found = sentences(10**6)
    for _ in range(1 if small else 500):
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes.title.text = "".join(next(found))
        slide.placeholders[1].text_frame.text = "\n".join("".join(next(found)) for _ in range(8))
        slide.notes_slide.notes_text_frame.text = "".join(next(found))
    return saved(show.save)


def catalogue(small: bool = False) -> bytes:
    """.po, of messages without a translation."""
    entries = "".join(
        f'#: source.c:{number}\nmsgid "{"".join(parts)}"\nmsgstr ""\n\n'
        for number, parts in enumerate(sentences(2 if small else 20_000))
    )
    return ('msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n' + entries).encode()


def page(small: bool = False) -> bytes:
    """.html, of paragraphs with a bold phrase."""
    return lines("<p>{}<b>{}</b>{}</p>\n", small)


def plain(small: bool = False) -> bytes:
    """.txt, of a sentence a line."""
    return lines("{}{}{}\n", small)


def lines(form: str, small: bool) -> bytes:
    """5 MB of sentences in such a form."""
    found, size = [], 0
    for parts in sentences(10**6):
        found.append(form.format(*parts).encode())
        size += len(found[-1])
        if size > (100 if small else 5_000_000):
            return b"".join(found)
    raise AssertionError("too few")


def saved(save: Callable[[io.BytesIO], None]) -> bytes:
    """What it saves."""
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


BUILDS: dict[str, Callable[..., bytes]] = {
    ".docx": word,
    ".pptx": slides,
    ".po": catalogue,
    ".html": page,
    ".txt": plain,
}


if __name__ == "__main__":
    main()
