"""`nmt translate`, `score`, `evaluate`, `info`: the commands that use a bundle."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

from nmt.commands import translating
from nmt.commands.arguments import decode_options, decoding, given, open_translator, served_language
from nmt.errors import ConfigError, InputError

if TYPE_CHECKING:
    from nmt.inference.client import Options


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The commands that use a bundle."""
    opened = argparse.ArgumentParser(add_help=False, parents=[decoding()])
    opened.add_argument(
        "--precision",
        default="auto",
        metavar="P",
        help="int8, fp32, bf16, fp16, or auto: int8 where the bundle stores int8",
    )
    searched = argparse.ArgumentParser(add_help=False, parents=[opened])
    searched.add_argument("--length-penalty", type=float, metavar="A", help="scores are log P / length ** A")
    searched.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another option of the search, such as min_length=5",
    )
    searched.add_argument("--json", action="store_true", help="print JSON")

    translating.add(commands, searched)

    _add_evaluate(commands, searched)

    _addgiven(commands, opened)

    command = commands.add_parser("info", help="what a model bundle is")
    command.add_argument("bundle", type=Path)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_info)


def _addgiven(commands: argparse._SubParsersAction[argparse.ArgumentParser], opened: argparse.ArgumentParser) -> None:
    """The commands that look at given translations."""
    command = commands.add_parser("score", parents=[opened], help="what given translations are worth to a bundle")
    command.add_argument("bundle", type=Path)
    command.add_argument("--source", type=Path, required=True, metavar="FILE", help="sentences, one a line")
    command.add_argument("--target", type=Path, required=True, metavar="FILE", help="their translations, one a line")
    command.add_argument(
        "--length-penalty", type=float, default=1.0, metavar="A", help="scores are log P / length ** A"
    )
    command.set_defaults(run=_score)

    command = commands.add_parser(
        "align", parents=[opened], help="which word of given translations comes from which: 0-0 1-2 a line"
    )
    command.add_argument("bundle", type=Path)
    command.add_argument("--source", type=Path, metavar="FILE", help="sentences, one a line")
    command.add_argument("--target", type=Path, metavar="FILE", help="their translations, one a line")
    command.add_argument("--corpus", metavar="NAME", help="say how many copied numbers and names are linked rightly")
    command.add_argument("--split", default="test", choices=("validation", "test"))
    command.add_argument(
        "--choose", action="store_true", help="choose the head of attention anew, by the validation split of the corpus"
    )
    command.set_defaults(run=_align)


def _add_evaluate(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], searched: argparse.ArgumentParser
) -> None:
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
    command.add_argument(
        "--tok-lc",
        action="store_true",
        help="also BLEU of lowercased text cut by Moses' rules, for comparison with figures published so; never with the 13a score",
    )
    command.add_argument("--output", type=Path, metavar="FILE", help="write the translations here")
    command.add_argument(
        "--record", action="store_true", help="write the scores into the bundle's metrics and model card"
    )
    command.set_defaults(run=_evaluate)


def _score(options: argparse.Namespace) -> int:
    pairs = _pairs_of(options)
    for scored in open_translator(options).score(pairs, options.length_penalty):
        print(f"{scored.score:.4f}")
    return 0


def _pairs_of(options: argparse.Namespace) -> list[tuple[str, str]]:
    from nmt.text.lines import read_lines

    sources, targets = (list(read_lines(path)) for path in (options.source, options.target))
    if len(sources) != len(targets):
        raise InputError(f"{options.source} has {len(sources)} lines, {options.target} has {len(targets)}")
    return list(zip(sources, targets, strict=True))


def _align(options: argparse.Namespace) -> int:
    from nmt.inference.batch import pharaoh

    if bool(options.corpus) == bool(options.source) or bool(options.source) != bool(options.target):
        raise ConfigError("give --corpus NAME, or --source FILE with --target FILE")
    if options.choose and not options.corpus:
        raise ConfigError("--choose needs a prepared corpus: add --corpus NAME")
    if not options.corpus:
        for scored in open_translator(options).score(_pairs_of(options), alignment=True):
            print(pharaoh(scored.alignment))
        return 0
    from nmt.evaluation.alignment import evaluate_alignment
    from nmt.evaluation.evaluate import corpus_test_set

    if options.choose:
        from nmt.corpus.store import PreparedCorpus
        from nmt.training.bundling import choose_alignment

        choose_alignment(options.bundle, PreparedCorpus.open(Path(options.corpus)))
    test = corpus_test_set(options.corpus, options.split)
    found = evaluate_alignment(open_translator(options), test.pairs)
    print(
        f"{test.name}: {found.right} of {found.words} copied words linked rightly, {found.share:.1%} ({found.pairs} pairs)"
    )
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from nmt.evaluation.evaluate import corpus_test_set, evaluate, file_test_set
    from nmt.evaluation.scores import Moses

    if bool(options.bundle) == bool(options.server):
        raise ConfigError("give a bundle or --server URL, one of the two")
    if bool(options.corpus) == bool(options.source) or bool(options.source) != bool(options.reference):
        raise ConfigError("give --corpus NAME, or --source FILE with --reference FILE")
    if options.server and options.ensemble:
        raise ConfigError("--ensemble adds to a bundle: give one instead of --server")
    if options.record and (options.server or options.ensemble):
        raise ConfigError("--record writes the scores of one bundle into it: leave out --server and --ensemble")
    test = (
        corpus_test_set(options.corpus, options.split)
        if options.corpus
        else file_test_set(options.source, options.reference)
    )
    if options.server:
        from nmt.inference.client import Client

        server = Client(options.server, os.environ.get("STRATA_KEY"))
        if options.set:
            raise ConfigError("--set changes the search for a bundle: a server takes --beam-size and --length-penalty")
        asked = cast("Options", given(options))
        search = ", ".join(f"{key} {value}" for key, value in asked.items()) or "the server's defaults"
        language = served_language(server)
        if options.tok_lc and not language:
            raise InputError(f"{server.url}: serves several target languages; --tok-lc needs exactly one")
        moses = Moses(language) if options.tok_lc else None
        result = evaluate(
            lambda texts: [item.text for item in server.translate(texts, asked)], test, search, options.lowercase, moses
        )
    else:
        translator = open_translator(options)
        decode = decode_options(options, translator.defaults)
        search = f"beam {decode.beam_size}, length penalty {decode.length_penalty:g}"
        if options.ensemble:
            search = f"ensemble of {1 + len(options.ensemble)}, {search}"
        moses = Moses(translator.info.target_language) if options.tok_lc else None
        result = evaluate(
            lambda texts: [item.text for item in translator.translate(texts, decode)],
            test,
            search,
            options.lowercase,
            moses,
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


def _info(options: argparse.Namespace) -> int:
    from nmt.inference.bundle import Bundle

    bundle = Bundle.open(options.bundle)
    if options.json:
        print(json.dumps(asdict(bundle.info), ensure_ascii=False, indent=1))
        return 0
    info, config = bundle.info, bundle.config
    print(f"{info.name}: {info.source_language} to {', '.join(info.targets)}")
    print(f"  {info.architecture}; {info.parameters / 1e6:.1f} M parameters in {config.weights}")
    print(
        f"  vocabulary {len(bundle.source_tokenizer)} / {len(bundle.target_tokenizer)}, sentences up to {config.max_source_tokens} subwords"
    )
    print(f"  search: {', '.join(f'{key} {value:g}' for key, value in config.decode.model_dump().items() if value)}")
    for item in info.scores:
        print(f"  {item['data']}: {item['name']} {item['score']:.2f} ({item['search']}; {item['signature']})")
    print(f"  weights sha256 {info.digest}")
    return 0
