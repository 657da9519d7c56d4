"""Batch translation by whole processes, from start to last line: ours beside the peers, in one run; and what of the engine's rate is left.

    benchmarks/peers.sh                                   once: installs the peers in peers/
    python benchmarks/batch.py                            about ten minutes on two quiet cores
    python benchmarks/batch.py --cases engine workers     ours alone

- peers: 2+2 LSTM layers of 512 units over the corpus's subwords, trained for two updates, must say exactly 15 subwords for each of the
  corpus's test and validation sentences: neither quality nor luck with lengths plays a part. Ours is `nmt translate BUNDLE FILE --output
  FILE` (int8, from text to text); theirs are `onmt_translate` and `joeynmt translate`, from subwords to subwords (which is in their
  favour), batches of 64, as benchmarks/decode.py sets them. Seconds are those of the process as a whole.
- engine: the bundled model with different sentences of its corpus's training text; sentences a second of a job (`nmt.batch`), from file to
  file, over those of the engine alone, which is handed all of them at once as subwords. In one process, in turns; placeholders are not
  kept, for which the search would have to watch the attention.
- workers: the same file by `nmt translate` with one and two threads, and on Ray with one and two workers; whole processes. From these
  rates follows what larger jobs take.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import opennmt
from decode import BATCH, BEAMS, BUNDLE, HIDDEN, LENGTH, seconds_of, trained
from training_speed import Turn, spread

from nmt.batch.inputs import Shape
from nmt.batch.job import Task, local
from nmt.batch.job import run as run_job
from nmt.batch.languages import Watched
from nmt.batch.opening import open_input
from nmt.batch.system import System
from nmt.corpus.store import PreparedCorpus
from nmt.errors import NMTError
from nmt.inference.search import Sentence
from nmt.inference.translator import Translator
from nmt.machine import processor
from nmt.text.tokenizer import EOS

CASES = ("peers", "engine", "workers")
_FORCED = ("min_length=15", "max_length_ratio=1e-6", "max_length_extra=15", "split_sentences=false")
_WINDOW = "500"  # so that the last windows of a small job are shared out, too
_JOBS = (1_000_000, 10_000_000, 100_000_000)  # sentences of larger jobs


def nmt(*arguments: str) -> None:
    """Run the command; raise `NMTError` with what it said where it fails."""
    command = [sys.executable, "-m", "nmt", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    if done.returncode not in (0, 3):
        raise NMTError(f"nmt {arguments[0]}: {done.stderr.strip()[-300:]}")


# --- beside the peers ---------------------------------------------------------------------------------------------------


def bundle_of(turn: Turn) -> Path:
    """A bundle of the shape, trained for two updates."""
    stack = {"layers": 2, "hidden": HIDDEN}
    config = {
        "corpus": str(turn.corpus.path),
        "run": str(turn.folder / "run"),
        "model": {
            "embedding": HIDDEN,
            "wiring": "gnmt",
            "encoder": stack,
            "decoder": dict(stack),
            "tie_embeddings": "output",
        },
        "train": {"max_steps": 2, "batch_tokens": 4096, "threads": turn.options.threads},
        "validation": {"every": 2, "sentences": 2},
    }
    nmt("train", turn.write(config))
    nmt("bundle", str(turn.folder / "run"), "--output", str(turn.folder / "bundle"), "--weights", "int8")
    return turn.folder / "bundle"


def beside_peers(options: argparse.Namespace, corpus: PreparedCorpus, folder: Path) -> dict[str, list[float]]:
    """Seconds of whole processes, by system and beam, round by round."""
    data = folder / "data"
    data.mkdir()
    opennmt.write_data(corpus, data)
    texts = [source for split in ("test", "validation") for source, _ in corpus.pairs(split)]
    source, pieces = folder / "source.txt", folder / "source.pieces"
    source.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    tokenizer = corpus.source_tokenizer
    opennmt.write_pieces(pieces, (tokenizer.pieces(ids) for ids in tokenizer.encode(texts)))
    turns = {name: Turn(options, corpus, data, folder / name) for name in ("ours", "opennmt", "joeynmt")}
    for turn in turns.values():
        turn.folder.mkdir()
    bundle = bundle_of(turns["ours"])

    def ours(beam: int) -> None:
        output = folder / "output.txt"
        output.unlink(missing_ok=True)
        forced = [word for each in _FORCED for word in ("--set", each)]
        search = ("--beam-size", str(beam), "--threads", str(options.threads), *forced)
        nmt("translate", str(bundle), str(source), "--output", str(output), *search)
        assert len(output.read_text(encoding="utf-8").splitlines()) == len(texts)

    systems: dict[str, Callable[[int], object]] = {"ours": ours}
    if (options.peers / "opennmt/bin").is_dir():
        checkpoint = trained(turns["opennmt"], False)
        systems["OpenNMT-py 3.5.1"] = lambda beam: onmt(turns["opennmt"], checkpoint, pieces, beam)
        systems["JoeyNMT 2.3.0"] = joeynmt(turns["joeynmt"], pieces)
    else:
        print(f"the peers are left out: {options.peers}/opennmt is missing: install it with benchmarks/peers.sh")
    found: dict[str, list[float]] = {f"{name}, beam {beam}": [] for name in systems for beam in BEAMS}
    for number in range(options.rounds):
        for name in list(systems)[:: -1 if number % 2 else 1]:
            for beam in BEAMS:
                found[f"{name}, beam {beam}"].append(seconds_of(lambda: systems[name](beam)))  # noqa: B023
                say(f"round {number + 1}: {name}, beam {beam}: {found[f'{name}, beam {beam}'][-1]:.1f} s")
    say(f"{len(texts)} sentences")
    return found


def onmt(turn: Turn, checkpoint: Path, source: Path, beam: int) -> None:
    """One run of `onmt_translate`."""
    length = (
        "-min_length",
        str(LENGTH),
        "-max_length",
        str(LENGTH),
        "-batch_size",
        str(BATCH),
        "-beam_size",
        str(beam),
    )
    files = ("-model", str(checkpoint), "-src", str(source), "-output", str(turn.folder / "output"), "-gpu", "-1")
    turn.call(turn.options.peers / "opennmt/bin/onmt_translate", *files, *length)


def joeynmt(turn: Turn, source: Path) -> Callable[[int], object]:
    """Its training, and then one run of `joeynmt translate` by beam."""
    from decode import joeynmt_rate

    rate = joeynmt_rate(turn, source)
    rate(1)  # whatever it writes once
    return rate


# --- ours alone ---------------------------------------------------------------------------------------------------------


def sentences_of(options: argparse.Namespace) -> list[str]:
    """Different sentences of the bundled model's training text."""
    prepared = PreparedCorpus.open(Path("data/prepared/tatoeba-en-de"))
    found: dict[str, None] = {}
    column = prepared.train()[0]
    for index in range(len(column)):
        found.setdefault(prepared.source_tokenizer.decode(column[index].tolist()))
        if len(found) == options.sentences:
            break
    return list(found)


def of_the_engine(options: argparse.Namespace, texts: list[str], folder: Path) -> dict[str, list[float]]:
    """Sentences a second of the engine and of a job, in turns."""
    source = folder / "engine.txt"
    source.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    # Without what makes the search itself another one: attention is watched where a sentence holds a number.
    opened = System(bundle=BUNDLE, threads=options.threads, overrides=("keep_placeholders=false",)).open()
    translator = Translator.load(BUNDLE, options.threads)
    ids = sorted(([*each, EOS] for each in translator.vocabularies.source.encode(texts)), key=len, reverse=True)
    found: dict[str, list[float]] = {"engine": [], "job": []}

    def engine() -> None:
        for each in translator.engine.submit_all([Sentence(one, translator.defaults) for one in ids]):
            each.result()

    def job(number: int) -> None:
        output = folder / f"engine.{number}.out"
        tasks = [Task(Watched(open_input(str(source), Shape()), "", False), output)]
        outcome = run_job(tasks, folder / "engine.work", {}, local(opened.begin, False, False))
        assert outcome.records == len(texts)

    for number in range(options.rounds + 1):  # the first is not counted
        for name, call in (("engine", engine), ("job", lambda: job(number))):  # noqa: B023
            rate = len(texts) / seconds_of(call)
            if number:
                found[name].append(rate)
                say(f"round {number}: {name} {rate:,.0f} sentences/s")
    return found


def by_workers(options: argparse.Namespace, texts: list[str], folder: Path) -> dict[str, list[float]]:
    """Seconds of whole processes with one and two threads or workers."""
    source, few = folder / "workers.txt", folder / "few.txt"
    source.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    few.write_text(f"{texts[0]}\n", encoding="utf-8")
    ways = {f"{count} threads": ("--threads", str(count)) for count in (1, 2)}
    ways |= {
        f"Ray, {count} workers": ("--threads", "1", "--ray", "--workers", str(count), "--window", _WINDOW)
        for count in (1, 2)
    }
    found: dict[str, list[float]] = {f"{name}, {what}": [] for name in ways for what in ("all", "one sentence")}

    def translate(file: Path, way: Sequence[str]) -> None:
        nmt("translate", str(BUNDLE), str(file), "--output", str(folder / "workers.out"), "--force", *way)

    for number in range(options.rounds):
        for name, way in ways.items():
            for what, file in (("all", source), ("one sentence", few)):
                found[f"{name}, {what}"].append(seconds_of(lambda: translate(file, way)))  # noqa: B023
                say(f"round {number + 1}: {name}, {what}: {found[f'{name}, {what}'][-1]:.1f} s")
    return found


def planned(seconds: dict[str, list[float]], sentences: int, price: float) -> list[str]:
    """What larger jobs take, from the start-up and the rate of two workers: they share nothing but the order of answers."""
    whole, start = (statistics.median(seconds[f"Ray, 2 workers, {what}"]) for what in ("all", "one sentence"))
    rate = (sentences - 1) / (whole - start) / 2
    lines = [
        f"model: seconds = {start:.0f} + sentences / ({rate:.0f} x workers); a worker is a core at {price:g} an hour",
        "",
        "| sentences | workers | hours | cost |",
        "|---|---|---|---|",
    ]
    for count in _JOBS:
        for workers in (2, 16, 128):
            hours = (start + count / (rate * workers)) / 3600
            lines.append(f"| {count:,} | {workers} | {hours:,.2f} | {hours * workers * price:,.2f} |")
    return lines


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)


def report(result: dict[str, Any], options: argparse.Namespace) -> None:
    """The tables."""
    say(
        f"\n{processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}; "
        f"threads: {options.threads}\ncommand: {shlex.join(['python', *sys.argv])}\n"
    )
    if peers := result.get("peers"):
        say(f"| whole process, seconds, median of {options.rounds} | range | ours is faster by |\n|---|---|---|")
        for name, values in peers.items():
            mine = peers[f"ours, beam {name[-1]}"]
            ratio = statistics.median(its / our for its, our in zip(values, mine, strict=True))
            seen = spread(values)
            say(f"| {name}: {seen['median']:.1f} | {seen['min']:.1f} to {seen['max']:.1f} | {ratio:.1f} |")
    if engine := result.get("engine"):
        shares = [job / alone for job, alone in zip(engine["job"], engine["engine"], strict=True)]
        seen = spread(shares)
        rates = {name: statistics.median(values) for name, values in engine.items()}
        say(
            f"\njob {rates['job']:,.0f}/s, engine alone {rates['engine']:,.0f}/s: {seen['median']:.3f} of it "
            f"({seen['min']:.3f} to {seen['max']:.3f}); {options.sentences} sentences"
        )
    if workers := result.get("workers"):
        say("")
        for name, values in workers.items():
            say(f"{name}: {statistics.median(values):.1f} s ({min(values):.1f} to {max(values):.1f})")
        for kind in ("{} threads", "Ray, {} workers"):
            one, two = (
                [
                    all_ - one
                    for all_, one in zip(
                        workers[f"{kind.format(n)}, all"], workers[f"{kind.format(n)}, one sentence"], strict=True
                    )
                ]
                for n in (1, 2)
            )
            gain = statistics.median(a / b for a, b in zip(one, two, strict=True))
            say(f"{kind.format('2')}: {gain:.2f} times the rate of 1, start-up apart")
        say("\n".join(["", *planned(workers, options.sentences, options.price)]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description="Batch translation by whole processes, ours beside the peers.")
    parser.add_argument("corpus", nargs="?", type=Path, default=Path("data/prepared/multi30k-en-de"))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--peers", type=Path, default=Path("peers"), help="folder of their environments")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sentences", type=int, default=8000, help="of the cases engine and workers")
    parser.add_argument("--price", type=float, default=0.05, help="of a core for an hour, in any currency")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="batch-"))
    result: dict[str, Any] = {}
    try:
        if "peers" in options.cases:
            result["peers"] = beside_peers(options, PreparedCorpus.open(options.corpus), folder)
        texts = sentences_of(options) if {"engine", "workers"} & set(options.cases) else []
        if "engine" in options.cases:
            result["engine"] = of_the_engine(options, texts, folder)
        if "workers" in options.cases:
            result["workers"] = by_workers(options, texts, folder)
    except NMTError as error:  # the folder stays: the line says which log to see
        print(f"batch.py: {error}", file=sys.stderr)
        return 2
    shutil.rmtree(folder)
    report(result, options)
    if options.json:
        options.json.write_text(f"{json.dumps(result, indent=1)}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
