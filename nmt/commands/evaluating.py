"""`nmt evaluate`: scores of a bundle or a running server, and the file of all that was said."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmt.commands.arguments import decode_options, given, natural, open_translator
from nmt.errors import ConfigError, DataError, InputError

if TYPE_CHECKING:
    from nmt.evaluation.evaluate import Evaluation, TestSet
    from nmt.evaluation.scores import Metrics, Moses
    from nmt.evaluation.systems import Opened


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser], searched: argparse.ArgumentParser) -> None:
    """Add the command; `searched` has the arguments of a search."""
    command = commands.add_parser(
        "evaluate",
        parents=[searched, data_arguments()],
        help="BLEU, chrF, TER and more of a bundle or a running server",
    )
    command.add_argument("bundle", type=Path, nargs="?")
    command.add_argument("--server", metavar="URL", help="evaluate a running server instead of a bundle")
    command.add_argument("--target", metavar="LANGUAGE", help="of a server, or of a model, with several")
    command.add_argument(
        "--tok-lc",
        action="store_true",
        help="also BLEU of lowercased text cut by Moses' rules, for comparison with figures published so; never with the 13a score",
    )
    command.add_argument(
        "--comet",
        nargs="?",
        const="Unbabel/wmt22-comet-da",
        metavar="MODEL",
        help="also COMET, where unbabel-comet is installed: a checkpoint file, or a name that it knows (default: %(const)s); give it last",
    )
    command.add_argument(
        "--resamples", type=natural, default=1000, metavar="N", help="of the intervals, 0 for none (default: 1000)"
    )
    command.add_argument("--output", type=Path, metavar="FILE", help="write the translations here")
    command.add_argument(
        "--results", type=Path, metavar="FILE", help="write everything here: scores and sentences, .json or .json.gz"
    )
    command.add_argument(
        "--show", type=natural, default=60, metavar="N", help="sentences with candidates and attention in --results"
    )
    command.add_argument(
        "--record", action="store_true", help="write the scores into the bundle's metrics and model card"
    )
    command.set_defaults(run=_evaluate)


def data_arguments() -> argparse.ArgumentParser:
    """The arguments that say what is translated and how it is scored, as a parent."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--corpus", metavar="NAME", help="a prepared corpus, a recipe file, or the name of a shipped recipe"
    )
    parent.add_argument("--split", default="test", choices=("validation", "test"))
    parent.add_argument("--src", "--source", type=Path, metavar="FILE", help="source sentences, one a line")
    parent.add_argument(
        "--ref",
        "--reference",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="their reference translations; may be repeated, with other translations of the same",
    )
    parent.add_argument("--lowercase", action="store_true", help="score without regard to case")
    parent.add_argument(
        "--tokenize", default="13a", metavar="NAME", help="of BLEU, as sacreBLEU has it: 13a, intl, zh, char, ja-mecab"
    )
    return parent


def given_test_set(options: argparse.Namespace) -> TestSet | None:
    """What the arguments of `data_arguments` name, None where they name nothing; raises `ConfigError` for half of it."""
    from nmt.evaluation.evaluate import corpus_test_set, file_test_set

    if bool(options.src) != bool(options.ref) or (options.corpus and options.src):
        raise ConfigError("give --corpus NAME, or --src FILE with --ref FILE")
    if options.corpus:
        return corpus_test_set(options.corpus, options.split)
    return file_test_set(options.src, options.ref) if options.src else None


def opened_bundle(options: argparse.Namespace) -> Opened:
    """The bundle that the arguments name, or the ensemble."""
    from nmt.evaluation.systems import open_bundle

    translator = open_translator(options)
    decode = decode_options(options, translator.defaults)
    return open_bundle(translator, decode, options.bundle, options.ensemble)


def opened_server(options: argparse.Namespace) -> Opened:
    """The running server that the arguments name."""
    from nmt.evaluation.systems import open_server
    from nmt.inference.client import Client

    if options.set:
        raise ConfigError("--set changes the search for a bundle: a server takes --beam-size and --length-penalty")
    return open_server(Client(options.server, os.environ.get("STRATA_KEY")), given(options))


def _evaluate(options: argparse.Namespace) -> int:
    from nmt.evaluation.comet import Comet
    from nmt.evaluation.evaluate import judge, timed
    from nmt.evaluation.recording import evaluation_file
    from nmt.evaluation.results import write_results

    metrics = _checked(options)
    test = given_test_set(options)
    if test is None:
        raise ConfigError("give --corpus NAME, or --src FILE with --ref FILE")
    comet = Comet(options.comet) if options.comet else None
    opened = opened_server(options) if options.server else opened_bundle(options)
    moses = _moses(options, opened)
    found, seconds = timed(lambda texts: opened.ask(texts, "links" if options.results else "text", 1), test.sources)
    result = judge(test, [item.text for item in found], seconds, opened.search, metrics, moses)
    if comet:
        result = result.with_score(comet.score(test.sources, result.hypotheses, test.references[0]))
    print(json.dumps(_summary(result), ensure_ascii=False, indent=1) if options.json else result.render())
    if options.output:
        _write_lines(options.output, result.hypotheses)
    if options.results:
        write_results(
            options.results, evaluation_file(opened, test, result, found, metrics, options.words, options.show)
        )
    if options.record:
        from nmt.training.bundling import record_scores

        record_scores(options.bundle, result.records())
    return 0


def _checked(options: argparse.Namespace) -> Metrics:
    """The metrics; raises `ConfigError` for arguments that don't go together, before any work is done."""
    from nmt.evaluation.scores import Metrics

    if bool(options.bundle) == bool(options.server):
        raise ConfigError("give a bundle or --server URL, one of the two")
    if options.server and options.ensemble:
        raise ConfigError("--ensemble adds to a bundle: give one instead of --server")
    if options.record and (options.server or options.ensemble):
        raise ConfigError("--record writes the scores of one bundle into it: leave out --server and --ensemble")
    if options.results and not options.results.name.endswith((".json", ".json.gz")):
        raise ConfigError(f"--results {options.results}: the name must end in .json or .json.gz")
    metrics = Metrics(options.lowercase, options.tokenize, options.resamples)
    metrics.bleu()  # says what is wrong with the tokenizer
    return metrics


def _moses(options: argparse.Namespace, opened: Opened) -> Moses | None:
    from nmt.evaluation.scores import Moses

    if not options.tok_lc:
        return None
    if not opened.target_language:
        raise InputError(f"{options.server}: serves several target languages; --tok-lc needs one: add --target")
    return Moses(opened.target_language)


def _write_lines(path: Path, lines: list[str]) -> None:
    try:
        path.write_text("".join(f"{text}\n" for text in lines), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: the translations could not be written ({error.strerror or error})") from None


def _summary(result: Evaluation) -> dict[str, Any]:
    """What `--json` prints."""
    scores = []
    for item, record in zip(result.scores, result.records(), strict=True):
        between = item.interval
        scores.append(
            record | ({"signature": between.signature, "low": between.low, "high": between.high} if between else {})
        )
    return {
        "scores": scores,
        "exact_match": result.exact,
        "length_ratio": result.length_ratio,
        "seconds": result.seconds,
        "sentences_per_second": result.sentences_per_second,
    }
