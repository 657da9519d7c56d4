"""`nmt translate` and `nmt translate-file`: text and documents, by a bundle or by a running server."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nmt.commands import batching
from nmt.commands.arguments import given, positive
from nmt.errors import InputError

if TYPE_CHECKING:
    from nmt.batch.system import System


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser], searched: argparse.ArgumentParser) -> None:
    """The commands; `searched` has the arguments of a search."""
    where = argparse.ArgumentParser(add_help=False, parents=[searched])
    where.add_argument("bundle", type=Path, nargs="?", help="none with --server")
    where.add_argument(
        "--server", metavar="URL", help="translate by a running server; the variable STRATA_KEY may hold an API key"
    )
    where.add_argument("--source", metavar="LANGUAGE", help="of a server with several models")
    where.add_argument("--target", metavar="LANGUAGE", help="of a server, or of a model, with several")
    where.add_argument(
        "--glossary", type=Path, metavar="FILE", help="lines TERM, tab, TRANSLATION: what terms must be called"
    )
    where.add_argument(
        "--cache",
        type=int,
        default=200_000,
        metavar="N",
        help="subwords of sentences remembered in case they come again",
    )
    _add_lines(commands, where)
    _add_files(commands, where)


def _add_lines(commands: argparse._SubParsersAction[argparse.ArgumentParser], where: argparse.ArgumentParser) -> None:
    command = commands.add_parser(
        "translate", parents=[where], help="translate text, tables, datasets or standard input, at any size"
    )
    command.add_argument(
        "files", nargs="*", metavar="FILE", help="text, one sentence or paragraph a line (.gz, .zst too)"
    )
    command.add_argument("--text", action="append", metavar="TEXT", help="translate this instead; may be repeated")
    command.add_argument("--n-best", type=int, metavar="N", help="N candidates a line: NUMBER ||| TEXT ||| SCORE")
    command.add_argument(
        "--alignment",
        action="store_true",
        default=None,
        help="add which source word each word comes from: TEXT ||| 0-0 1-2",
    )
    command.add_argument("--prefix", default="", metavar="TEXT", help="what every translation is to begin with")
    command.add_argument(
        "--window", type=positive, default=2000, metavar="N", help="lines that are translated together, at most"
    )
    batching.add_arguments(command)
    command.set_defaults(run=_translate)


def _add_files(commands: argparse._SubParsersAction[argparse.ArgumentParser], where: argparse.ArgumentParser) -> None:
    command = commands.add_parser(
        "translate-file", parents=[where], help="translate documents: .docx .html .md .odt .po .pptx .srt and more"
    )
    command.add_argument("files", type=Path, nargs="*", metavar="FILE")
    command.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="a file, or a folder for several; by default NAME.LANGUAGE.KIND beside each",
    )
    command.add_argument("--force", action="store_true", help="write over files that are there")
    command.set_defaults(run=_translate_files, prefix="", n_best=None, alignment=True)


def system_of(options: argparse.Namespace) -> System:
    """What translates, as the arguments say. With a server, what stands in the place of the bundle is the first file."""
    from nmt.batch.system import System

    if options.server and options.bundle is not None:
        options.files.insert(0, options.bundle)
    return System(
        bundle=None if options.server else options.bundle,
        server=options.server or "",
        key=os.environ.get("STRATA_KEY"),
        ensemble=tuple(options.ensemble),
        threads=options.threads,
        precision=options.precision,
        given=given(options),
        overrides=tuple(options.set),
        prefix=options.prefix,
        glossary=options.glossary,
        source=options.source or "",
        cache=options.cache,
    )


def _translate(options: argparse.Namespace) -> int:
    from nmt.batch.stream import translated
    from nmt.inference.rendering import as_lines
    from nmt.progress import progress

    if options.text and (options.files or options.input or (options.server and options.bundle)):
        raise InputError("give files or --text, not both")
    system = system_of(options)
    options.files += options.input
    if options.output is not None:
        return batching.run(options, system)
    batching.refuse_without_output(options)
    opened = system.open(tokens=options.json)
    lines = iter(options.text) if options.text else _input_lines(options.files)
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    several = (opened.options.get("n_best") or 1) > 1
    shown, numbers = bool(opened.options.get("alignment")), itertools.count()
    with progress("translate", "lines") as bar:
        for results in translated(opened.begin, lines, options.window):
            for result in results:
                output = as_lines(result, next(numbers), options.json, several, shown)
                sys.stdout.write("".join(f"{line}\n" for line in output))
            sys.stdout.flush()
            bar.update(len(results))
    return 0


def _translate_files(options: argparse.Namespace) -> int:
    from nmt.documents.formats import open_document, translated
    from nmt.progress import progress

    opened = system_of(options).open()
    files = [Path(file) for file in options.files]
    if not files:
        raise InputError("give a file to translate")
    if options.json:
        raise InputError("--json is for lines of text: leave it out")
    if options.output and len(files) > 1 and not options.output.is_dir():
        raise InputError(f"{options.output}: several files need a folder that is there")
    language = "" if options.output else opened.language()
    targets = [_target(file, options.output, language) for file in files]
    for file, target in zip(files, targets, strict=True):
        if target.exists() and not options.force:
            raise InputError(f"{target}: is there already; add --force to write over it")
        if not file.is_file():
            raise InputError(f"{file}: no such file")
    for file, target in zip(files, targets, strict=True):
        try:
            document = open_document(file.read_bytes(), file.name)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        with progress(file.name, "passages", len(document.texts)) as bar:
            content, truncated = translated(document, opened.translate, bar.update)
        partial = target.with_name(f".{target.name}.partial")
        partial.write_bytes(content)
        partial.replace(target)
        print(
            f"{target}" + (f": the length limit ended {truncated} passages, text may be missing" if truncated else "")
        )
    return 0


def _target(file: Path, output: Path | None, language: str) -> Path:
    if output is None:
        return file.with_name(f"{file.stem}.{language or 'translated'}{file.suffix}")
    return output / file.name if output.is_dir() else output


def _input_lines(files: list[str]) -> Iterator[str]:
    from nmt.text.lines import decode_lines, read_lines

    for path in files:
        yield from read_lines(Path(path))
    if not files:
        with contextlib.suppress(BlockingIOError):
            yield from decode_lines(sys.stdin.buffer, "standard input")
