"""`nmt translate` and `nmt translate-file`: lines and documents, by a bundle or a running server."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nmt.commands.arguments import decode_options, given, open_translator, served_language
from nmt.errors import ConfigError, InputError

if TYPE_CHECKING:
    from nmt.inference.client import Options
    from nmt.inference.types import Translation


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
    _add_lines(commands, where)
    _add_files(commands, where)


def _add_lines(commands: argparse._SubParsersAction[argparse.ArgumentParser], where: argparse.ArgumentParser) -> None:
    command = commands.add_parser(
        "translate", parents=[where], help="translate text, files or standard input, line by line"
    )
    command.add_argument(
        "files", type=Path, nargs="*", metavar="FILE", help="text, one sentence or paragraph a line (.gz too)"
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
        "--cache",
        type=int,
        default=200_000,
        metavar="N",
        help="subwords of sentences remembered in case they come again",
    )
    command.add_argument("--window", type=int, default=2000, metavar="N", help="lines read before any is written")
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
    command.set_defaults(run=_translate_files, prefix="", n_best=None, alignment=True, cache=200_000)


def _translate(options: argparse.Namespace) -> int:
    from nmt.inference.batch import translate_lines
    from nmt.progress import progress

    if options.text and (options.files or (options.server and options.bundle)):
        raise InputError("give files or --text, not both")
    translate, _ = opened(options)
    interactive = not options.files and not options.text and sys.stdin.isatty()
    lines = iter(options.text) if options.text else _input_lines(options.files)
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    several, shown = (options.n_best or 1) > 1, bool(options.alignment)
    with progress("translate", "lines") as bar:
        window = 1 if interactive else options.window
        for output in translate_lines(translate, lines, options.json, several, shown, window):
            sys.stdout.write("".join(f"{line}\n" for line in output))
            sys.stdout.flush()
            bar.update(len(output))
    return 0


def opened(options: argparse.Namespace) -> tuple[Callable[[list[str]], list[Translation]], str]:
    """What translates, a bundle or a running server, as the arguments say, and the target language. With a server, what stands in the place
    of the bundle is the first file."""
    if options.server is None and options.bundle is None:
        raise ConfigError("give a bundle, or --server URL")
    if options.server is None:
        return _here(options)
    if options.bundle is not None:
        options.files.insert(0, options.bundle)
    return _at_server(options)


def _here(options: argparse.Namespace) -> tuple[Callable[[list[str]], list[Translation]], str]:
    from nmt.inference.cache import Cache
    from nmt.text.glossary import Glossary

    translator = open_translator(options)
    translator.cache = Cache(options.cache)
    decode = decode_options(options, translator.defaults)
    options.n_best, options.alignment = decode.n_best, decode.alignment
    demands = Glossary.read(options.glossary).phrases if options.glossary else None

    def translate(texts: list[str]) -> list[Translation]:
        prefixes = [options.prefix] * len(texts) if options.prefix else None
        return translator.translate(texts, decode, prefixes=prefixes, demands=demands)

    return translate, decode.target or translator.info.target_language


def _at_server(options: argparse.Namespace) -> tuple[Callable[[list[str]], list[Translation]], str]:
    from nmt.inference.client import Client
    from nmt.text.glossary import Glossary

    if options.ensemble or options.set:
        raise ConfigError("--ensemble and --set are for a bundle: a server has its own, leave them out")
    client = Client(options.server, os.environ.get("STRATA_KEY"))
    asked: dict[str, Any] = given(options) | ({"tokens": True} if options.json else {})
    asked |= {name: value for name in ("prefix", "source", "target") if (value := getattr(options, name))}
    if options.json and options.alignment:
        asked["attention"] = True
    if options.glossary:
        asked["glossary"] = Glossary.read(options.glossary).terms
    language = options.target or served_language(client)
    return lambda texts: client.translate(texts, cast("Options", asked)), language


def _translate_files(options: argparse.Namespace) -> int:
    from nmt.documents.formats import open_document, translated
    from nmt.progress import progress

    translate, language = opened(options)
    files = options.files
    if not files:
        raise InputError("give a file to translate")
    if options.json:
        raise InputError("--json is for lines of text: leave it out")
    if options.output and len(files) > 1 and not options.output.is_dir():
        raise InputError(f"{options.output}: several files need a folder that is there")
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
            content, truncated = translated(document, translate, bar.update)
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


def _input_lines(files: list[Path]) -> Iterator[str]:
    from nmt.text.lines import decode_lines, read_lines

    for path in files:
        yield from read_lines(path)
    if not files:
        with contextlib.suppress(BlockingIOError):
            yield from decode_lines(sys.stdin.buffer, "standard input")
