"""The `nmt` command: parse, call, exit code. Success is 0, a user's mistake 2, Ctrl-C 130."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import nmt
from nmt.config import dump, find_shipped, load
from nmt.errors import ConfigError, InputError, NMTError

if TYPE_CHECKING:
    from nmt.inference.translator import Translator
    from nmt.inference.types import DecodeOptions

# Each command imports what it needs when it runs, so that `nmt --help` and `nmt serve` answer at once.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["serve"]:  # the server reads its own options
        return _serve(given[1:])
    options = _parser().parse_args(given)
    try:
        status: int = options.run(options)
        return status
    except NMTError as error:
        print(f"nmt {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"nmt {options.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away: nothing is wrong, and there is nowhere to say it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


# --- commands -------------------------------------------------------------------------------------------------------


def _prepare(options: argparse.Namespace) -> int:
    from nmt.corpus.prepare import prepare
    from nmt.corpus.recipe import Recipe
    from nmt.corpus.store import MANIFEST, PreparedCorpus

    recipe = load(Recipe, find_shipped(options.recipe, "recipes"), options.set)
    if options.print_config:
        print(dump(recipe), end="")
        return 0
    output = options.output or Path("data/prepared") / recipe.name
    made = prepare(recipe, output, options.force)
    splits = PreparedCorpus.open(output).manifest["splits"]
    counts = ", ".join(f"{split} {count:,}" for split, count in splits.items())
    print(
        f"{output}: {counts} pairs"
        if made
        else f"{output}: nothing has changed ({counts} pairs); --force makes it anew"
    )
    if made:
        print(f"{(output / 'report.md').read_text(encoding='utf-8').rstrip()}\n\nmanifest: {output / MANIFEST}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from nmt.training.check import check
    from nmt.training.config import RunConfig

    for finding in check(load(RunConfig, find_shipped(options.config, "configs"), options.set)):
        print(finding)
    return 0


def _train(options: argparse.Namespace) -> int:
    from nmt.training.config import RunConfig
    from nmt.training.trainer import Interrupted, Trainer

    config = load(RunConfig, find_shipped(options.config, "configs"), options.set)
    if options.print_config:
        print(dump(config), end="")
        return 0
    trainer = Trainer(config)
    try:
        progress = trainer.run()
    except Interrupted as stopped:
        print(f"nmt train: {stopped}", file=sys.stderr)
        return 130
    print(
        f"{config.run}: {progress.step:,} updates, best validation {config.validation.metric} {abs(progress.best or 0):.2f}"
    )
    print(f"next: nmt bundle {config.run} --output MODEL")
    return 0


def _bundle(options: argparse.Namespace) -> int:
    from nmt.inference.bundle import Bundle
    from nmt.training.bundling import BundleOptions, make_bundle

    command = "nmt " + " ".join(sys.argv[1:]) if not options.note else options.note
    output = options.output or options.run_folder / "bundle"
    make_bundle(options.run_folder, output, BundleOptions(options.average, options.weights, options.name, command))
    size = sum(path.stat().st_size for path in output.iterdir())
    print(f"{output}: {Bundle.open(output).info.architecture}; {size / 1e6:.1f} MB")
    return 0


def _translate(options: argparse.Namespace) -> int:
    from nmt.inference.batch import translate_lines
    from nmt.progress import progress

    if options.text and options.files:
        raise InputError("give files or --text, not both")
    translator = _open_translator(options)
    decode = _decode_options(options, translator.defaults)
    interactive = not options.files and not options.text and sys.stdin.isatty()
    lines = iter(options.text) if options.text else _input_lines(options.files)
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    with progress("translate", "lines") as bar:
        for output in translate_lines(translator, lines, decode, options.json, 1 if interactive else options.window):
            sys.stdout.write("".join(f"{line}\n" for line in output))
            sys.stdout.flush()
            bar.update(len(output))
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from nmt.evaluation.evaluate import corpus_test_set, evaluate, file_test_set

    if bool(options.bundle) == bool(options.server):
        raise ConfigError("give a bundle or --server URL, one of the two")
    if bool(options.corpus) == bool(options.source) or bool(options.source) != bool(options.reference):
        raise ConfigError("give --corpus NAME, or --source FILE with --reference FILE")
    if options.record and not options.bundle:
        raise ConfigError("--record writes into a bundle: give one instead of --server")
    test = (
        corpus_test_set(options.corpus, options.split)
        if options.corpus
        else file_test_set(options.source, options.reference)
    )
    if options.server:
        from nmt.inference.client import ServerTranslator
        from nmt.inference.types import DecodeOptions

        server = ServerTranslator(options.server)
        decode = _decode_options(options, DecodeOptions()) if _given(options) else None
        search = f"beam {decode.beam_size}" if decode else "the server's defaults"
        result = evaluate(lambda texts: server.translate(texts, decode), test, search, options.lowercase)
    else:
        translator = _open_translator(options)
        decode = _decode_options(options, translator.defaults)
        search = f"beam {decode.beam_size}, length penalty {decode.length_penalty:g}"
        result = evaluate(
            lambda texts: [item.text for item in translator.translate(texts, decode)], test, search, options.lowercase
        )
    if options.output:
        options.output.write_text("".join(f"{text}\n" for text in result.hypotheses), encoding="utf-8")
    if options.record:
        from nmt.training.bundling import record_scores

        record_scores(options.bundle, result.records())
    summary = {
        "scores": result.records(),
        "exact_match": result.exact,
        "sentences_per_second": result.sentences_per_second,
    }
    print(json.dumps(summary, ensure_ascii=False, indent=1) if options.json else result.render())
    return 0


def _serve(arguments: list[str]) -> int:
    # No shell; the server takes this process's place, and with it its signals.
    os.execv(sys.executable, [sys.executable, "-m", "serving", *arguments])


def _info(options: argparse.Namespace) -> int:
    from nmt.inference.bundle import Bundle

    bundle = Bundle.open(options.bundle)
    if options.json:
        print(json.dumps(asdict(bundle.info), ensure_ascii=False, indent=1))
        return 0
    info, config = bundle.info, bundle.config
    print(f"{info.name}: {info.source_language} to {info.target_language}")
    print(f"  {info.architecture}; {info.parameters / 1e6:.1f} M parameters in {config.weights}")
    print(
        f"  vocabulary {len(bundle.source_tokenizer)} / {len(bundle.target_tokenizer)}, sentences up to {config.max_source_tokens} subwords"
    )
    print(f"  search: {', '.join(f'{key} {value:g}' for key, value in config.decode.model_dump().items())}")
    for item in info.scores:
        print(f"  {item['data']}: {item['name']} {item['score']:.2f} ({item['search']}; {item['signature']})")
    print(f"  weights sha256 {info.digest}")
    return 0


# --- what commands share ----------------------------------------------------------------------------------------------


def _open_translator(options: argparse.Namespace) -> Translator:
    from nmt.inference.translator import Translator

    return Translator.load(options.bundle, options.threads)


def _given(options: argparse.Namespace) -> dict[str, object]:
    """The search options that were given on the command line."""
    names = ("beam_size", "length_penalty", "n_best")
    return {name: value for name in names if (value := getattr(options, name, None)) is not None}


def _decode_options(options: argparse.Namespace, defaults: DecodeOptions) -> DecodeOptions:
    from nmt.config import parse
    from nmt.inference.types import DecodeOptions

    return parse(DecodeOptions, defaults.model_dump() | _given(options), "search options")


def _input_lines(files: list[Path]) -> Iterator[str]:
    from nmt.text.lines import decode_lines, read_lines

    for path in files:
        yield from read_lines(path)
    if not files:
        with contextlib.suppress(BlockingIOError):
            yield from decode_lines(sys.stdin.buffer, "standard input")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nmt", description="Deep recurrent translation: train it, measure it, serve it."
    )
    parser.add_argument("--version", action="version", version=f"nmt {nmt.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_training(commands)
    _add_using(commands)
    return parser


def _add_training(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The commands that lead from text to a bundle."""
    configured = argparse.ArgumentParser(add_help=False)
    configured.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting, as in train.lr=3e-4"
    )

    command = commands.add_parser(
        "prepare", parents=[configured], help="turn a recipe into a cleaned corpus of token ids"
    )
    command.add_argument("recipe", help="a recipe file, or the name of a shipped one")
    command.add_argument("--output", type=Path, metavar="FOLDER", help="default: data/prepared/NAME")
    command.add_argument("--force", action="store_true", help="make it anew even if nothing has changed")
    command.add_argument("--print-config", action="store_true", help="print the resolved recipe and stop")
    command.set_defaults(run=_prepare)

    command = commands.add_parser(
        "check", parents=[configured], help="look at corpus, memory, disk and time before training"
    )
    command.add_argument("config", help="a training configuration, or the name of a shipped one")
    command.set_defaults(run=_check)

    command = commands.add_parser("train", parents=[configured], help="train a model; the same command resumes")
    command.add_argument("config", help="a training configuration, or the name of a shipped one")
    command.add_argument("--print-config", action="store_true", help="print the resolved settings and stop")
    command.set_defaults(run=_train)

    command = commands.add_parser("bundle", help="make a self-contained model of a training run")
    command.add_argument("run_folder", type=Path, metavar="RUN")
    command.add_argument("--output", type=Path, metavar="FOLDER", help="default: RUN/bundle")
    command.add_argument(
        "--average", type=int, default=1, metavar="N", help="average the last N checkpoints; default: the best"
    )
    command.add_argument("--weights", choices=("fp32", "fp16", "int8"), default="fp16", help="how weights are stored")
    command.add_argument("--name", help="name of the model; default: the corpus's")
    command.add_argument("--note", metavar="TEXT", help="how it was trained, for the model card; default: this command")
    command.set_defaults(run=_bundle)


def _add_using(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The commands that use a bundle."""
    searched = argparse.ArgumentParser(add_help=False)
    searched.add_argument("--beam-size", type=int, metavar="N", help="hypotheses kept at each step; 1 is greedy")
    searched.add_argument("--length-penalty", type=float, metavar="A", help="scores are log P / length ** A")
    searched.add_argument("--threads", type=int, metavar="N", help="CPU threads; all cores by default")
    searched.add_argument("--json", action="store_true", help="print JSON")

    command = commands.add_parser(
        "translate", parents=[searched], help="translate text, files or standard input, line by line"
    )
    command.add_argument("bundle", type=Path)
    command.add_argument(
        "files", type=Path, nargs="*", metavar="FILE", help="text, one sentence or paragraph a line (.gz too)"
    )
    command.add_argument("--text", action="append", metavar="TEXT", help="translate this instead; may be repeated")
    command.add_argument("--n-best", type=int, metavar="N", help="N candidates a line: NUMBER ||| TEXT ||| SCORE")
    command.add_argument("--window", type=int, default=2000, metavar="N", help="lines read before any is written")
    command.set_defaults(run=_translate)

    command = commands.add_parser("evaluate", parents=[searched], help="BLEU and chrF of a bundle or a running server")
    command.add_argument("bundle", type=Path, nargs="?")
    command.add_argument("--server", metavar="URL", help="evaluate a running server instead of a bundle")
    command.add_argument(
        "--corpus", metavar="NAME", help="a prepared corpus, a recipe file, or the name of a shipped recipe"
    )
    command.add_argument("--split", default="test", choices=("validation", "test"))
    command.add_argument("--source", type=Path, metavar="FILE", help="source sentences, one a line")
    command.add_argument("--reference", type=Path, metavar="FILE", help="their reference translations")
    command.add_argument("--lowercase", action="store_true", help="score without regard to case")
    command.add_argument("--output", type=Path, metavar="FILE", help="write the translations here")
    command.add_argument(
        "--record", action="store_true", help="write the scores into the bundle's metrics and model card"
    )
    command.set_defaults(run=_evaluate)

    commands.add_parser("serve", add_help=False, help="serve a model over HTTP (see nmt serve --help)")  # see `main`

    command = commands.add_parser("info", help="what a model bundle is")
    command.add_argument("bundle", type=Path)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_info)
