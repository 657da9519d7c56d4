"""`nmt compare`: systems side by side on one test set."""

from __future__ import annotations

import argparse
import collections
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nmt.commands.arguments import natural, positive
from nmt.commands.evaluating import data_arguments, given_test_set, opened_bundle, opened_server
from nmt.errors import ConfigError, DataError

if TYPE_CHECKING:
    from nmt.evaluation.buckets import Frequencies
    from nmt.evaluation.compare import Output
    from nmt.evaluation.evaluate import TestSet

_RESULTS = (".json", ".json.gz")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    command = commands.add_parser(
        "compare", parents=[data_arguments()], help="two systems or more: significance, and where they differ"
    )
    command.add_argument(
        "systems",
        nargs="+",
        metavar="SYSTEM",
        help="an evaluation file (.json, .json.gz), a bundle, the URL of a server, or a file of translations, one a "
        "line; the first one is the baseline",
    )
    command.add_argument("--beam-size", type=int, metavar="N", help="of bundles and servers; their own by default")
    command.add_argument("--length-penalty", type=float, metavar="A", help="of bundles and servers")
    command.add_argument("--threads", type=positive, metavar="N", help="CPU threads; all cores by default")
    command.add_argument("--precision", default="auto", metavar="P", help="of bundles: int8, fp32, or auto")
    command.add_argument(
        "--resamples", type=natural, default=1000, metavar="N", help="of the paired bootstrap, 0 to leave it out"
    )
    command.add_argument(
        "--trials", type=natural, default=10_000, metavar="N", help="of the randomisation test, 0 to leave it out"
    )
    command.add_argument(
        "--show",
        type=natural,
        default=5,
        metavar="N",
        help="sentences that differ most, in each direction (default: 5)",
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_compare, ensemble=[], set=[])


def _compare(options: argparse.Namespace) -> int:
    from nmt.evaluation.compare import compare
    from nmt.evaluation.compare_text import render
    from nmt.evaluation.scores import Metrics

    if len(options.systems) < 2:
        raise ConfigError("give two systems or more, the baseline first")
    metrics = Metrics(options.lowercase, options.tokenize, options.resamples)
    metrics.bleu()  # says what is wrong with the tokenizer
    test = _test_set(options)
    in_order = sorted(options.systems, key=_translates)  # what is wrong with a file is said before others translate
    said = {name: _output(options, name, test) for name in in_order}
    outputs = _distinct([said[name] for name in options.systems], options.systems)
    found = compare(test, outputs, metrics, _frequencies(options, test), options.trials, options.show)
    print(json.dumps(found.to_json(), ensure_ascii=False, indent=1) if options.json else render(found))
    return 0


def _translates(name: str) -> bool:
    """Whether a system is a bundle or a server; raises `DataError` where it is nothing at all."""
    if name.startswith(("http://", "https://")) or Path(name).is_dir():
        return True
    if not Path(name).exists():
        raise DataError(f"{name}: neither a file, nor the folder of a bundle, nor the address of a server")
    return False


def _test_set(options: argparse.Namespace) -> TestSet:
    """What the arguments name, or else that of the evaluation files, which are all of the same."""
    from nmt.evaluation.recording import recorded_test_set
    from nmt.evaluation.results import read_results

    test, whose = given_test_set(options), "the test set that was given"
    for name in options.systems:
        if _translates(name) or not name.endswith(_RESULTS):
            continue
        its = recorded_test_set(read_results(Path(name)), name)
        if test is None:
            test, whose = its, name
        ours, theirs = test.checksums(), its.checksums()
        if ours != theirs:
            what = "sources" if ours[0] != theirs[0] else "references"
            raise DataError(f"{name}: its {what} are not those of {whose}; compare what translated the same test set")
    if test is None:
        raise ConfigError("no evaluation file brings its test set: give --corpus NAME, or --src FILE with --ref FILE")
    return test


def _output(options: argparse.Namespace, name: str, test: TestSet) -> Output:
    """What a system says, or has said, for the sources of the test set."""
    from nmt.evaluation.compare import Output
    from nmt.evaluation.evaluate import parallel_lines, timed
    from nmt.evaluation.results import read_results

    if _translates(name):
        url = name if name.startswith(("http://", "https://")) else None
        options.server, options.bundle = url, Path(name)
        opened = opened_server(options) if url else opened_bundle(options)
        found, _ = timed(lambda texts: opened.ask(texts, "text", 1), test.sources)
        about = f"{opened.about.kind} {name}, {opened.search}"
        return Output(opened.about.name, about, [item.text for item in found], opened.about.source_language)
    if name.endswith(_RESULTS):
        results = read_results(Path(name))
        said = [segment.hypothesis for segment in results.segments]
        about = f"{name}: {results.system.name}, {results.search}"
        stem = Path(name).name.removesuffix(".gz").removesuffix(".json")
        return Output(stem, about, said, results.system.source_language)
    return Output(Path(name).name, f"lines of {name}", parallel_lines(Path(name), test.name, len(test.sources)))


def _distinct(outputs: Sequence[Output], arguments: Sequence[str]) -> list[Output]:
    """The same with names that differ: what was given for those of one name, and a number where that is the same, too."""
    named = [(output.name, argument) for output, argument in zip(outputs, arguments, strict=True)]
    counts = collections.Counter(name for name, _ in set(named))
    names = [name if counts[name] == 1 else argument for name, argument in named]
    numbered = [
        f"{name} ({names[:place].count(name) + 1})" if name in names[:place] else name
        for place, name in enumerate(names)
    ]
    return [replace(output, name=name) for output, name in zip(outputs, numbered, strict=True)]


def _frequencies(options: argparse.Namespace, test: TestSet) -> Frequencies:
    """Of words in the training text where a prepared corpus is given, else in the test set itself."""
    from nmt.corpus.store import MANIFEST, PreparedCorpus
    from nmt.evaluation.buckets import frequencies_in, training_frequencies

    if options.corpus and (Path(options.corpus) / MANIFEST).is_file():
        return training_frequencies(PreparedCorpus.open(Path(options.corpus)), test.sources)
    return frequencies_in(test.sources, "the test set itself")
