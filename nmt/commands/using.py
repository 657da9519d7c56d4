"""`nmt translate`, `score`, `align`, `evaluate`, `compare`, `info`: the commands that use a bundle."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from nmt.commands import comparing, evaluating, translating
from nmt.commands.arguments import decoding, open_translator
from nmt.errors import ConfigError, InputError


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

    evaluating.add(commands, searched)

    comparing.add(commands)

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
    from nmt.inference.rendering import pharaoh

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
