"""The quality table: train every named run, bundle its best checkpoint, translate the test splits, score, print a table.

    python benchmarks/quality.py --dry-run                          what would run, and which corpora are still to be prepared
    python benchmarks/quality.py --at-once 4 --minutes 50           all runs, four processes on one GPU
    python benchmarks/quality.py --only 'multi30k-*' --minutes 30   some of them
    python benchmarks/quality.py --table                            score the stored translations and print the table, train nothing

Needs prepared corpora alone: neither network nor `datasets`. A run that was stopped, by --minutes, Ctrl-C or otherwise, goes on with
the same command; one stopped by --minutes is scored as it stands. FOLDER/NAME holds log, bundle, translations and summary.json;
FOLDER/results.jsonl gets a line for each run as it finishes. BLEU is of beam 5, cased 13a, and tok-lc beside it where sacremoses is
installed; without it run --table later, where it is. The two are never compared with each other.
"""

from __future__ import annotations

import argparse
import fnmatch
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformer as rival

from nmt.config import find_shipped, load
from nmt.corpus.store import MANIFEST, PreparedCorpus
from nmt.errors import DataError, NMTError
from nmt.evaluation.scores import score, tok_lc
from nmt.inference.translator import Translator
from nmt.training.bundling import BundleOptions, make_bundle
from nmt.training.config import RunConfig
from nmt.training.trainer import Interrupted, Trainer

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Run:
    """A shipped configuration, named as its corpus, with changes; other prepared corpora whose test split it translates too."""

    config: str
    settings: tuple[str, ...] = ()
    transformer: rival.Shape | None = None
    tests: tuple[str, ...] = ()
    weights: str = "fp16"


_MULTI30K = ("train.max_steps=10000",)  # twice the shipped configuration's: its validation loss is still falling
_TINY = (
    "train={max_steps: 10000, batch_tokens: 4096, save_every: 500}",
    "optimizer={lr: 5.0e-3, schedule: inverse_sqrt, warmup_steps: 1000}",
    "model.dropout={embedding: 0.3, layer: 0.3}",
)
_TATOEBA = ("train={max_steps: 20000, batch_tokens: 8192, save_every: 1000}", "validation={every: 1000}")
_GNMT = (  # 12.0 M parameters; tatoeba-deep and its Transformer have 12.2 M
    "model={embedding: 256, encoder: {layers: 2, hidden: 512}, decoder: {layers: 2, hidden: 512}, "
    "dropout: {embedding: 0.1, layer: 0.2, output: 0.1}}",
)
RUNS = {  # the end -s1, -s2, ... is a seed; seeds share a row of the table
    **{f"multi30k-en-de-s{seed}": Run("multi30k-en-de", (*_MULTI30K, f"seed={seed}")) for seed in (1, 2, 3)},
    "multi30k-en-fr-s1": Run("multi30k-en-fr", _MULTI30K),
    "multi30k-transformer-tiny-s1": Run("multi30k-en-de", _TINY, rival.Shape(4, 128, 4, 256)),
    "tatoeba-gnmt-s1": Run("tatoeba-en-de", (*_TATOEBA, *_GNMT), tests=("general-en-de",)),
    "tatoeba-deep-s1": Run("tatoeba-en-de", _TATOEBA, tests=("general-en-de",)),
    "tatoeba-transformer-s1": Run("tatoeba-en-de", (*rival.DEFAULTS, *_TATOEBA), rival.Shape()),
    "general-s1": Run("general-en-de", weights="int8"),
}
# The domains of a mixed test split, in the order of its recipe, and how many sentences each has.
DOMAINS = {"general-en-de": {"tatoeba-en-de": 2000, "software-en-de": 1000, "docs-en-de": 1000, "prose-en-de": 1000}}


def configure(options: argparse.Namespace, name: str) -> RunConfig:
    """The configuration of a run, its corpus and run folder where the options say."""
    run = RUNS[name]
    places = (f"corpus={options.corpora / run.config}", f"run={options.folder / name}")
    return load(RunConfig, find_shipped(run.config, "configs"), [*run.settings, *places, *options.set])


def test_sets(options: argparse.Namespace, run: Run) -> dict[str, Pairs]:
    """The test split of the run's own corpus, and of its other ones as far as they are prepared; a mixed one by domain."""
    found: dict[str, Pairs] = {}
    for name in (run.config, *run.tests):
        if name == run.config or (options.corpora / name / MANIFEST).is_file():
            pairs = PreparedCorpus.open(options.corpora / name).pairs("test")
            domains = DOMAINS.get(name, {name: len(pairs)})
            if sum(domains.values()) != len(pairs):
                raise DataError(f"{name}: {len(pairs)} test pairs, but its domains add up to {sum(domains.values())}")
            ends = list(itertools.accumulate(domains.values()))
            found |= {domain: pairs[end - domains[domain] : end] for domain, end in zip(domains, ends, strict=True)}
    return found


def work(options: argparse.Namespace, name: str) -> None:
    """Train, bundle and translate one run; in a process of its own."""
    run, config = RUNS[name], configure(options, name)
    trainer = rival.make_trainer(config, run.transformer) if run.transformer else Trainer(config)
    late = threading.Event()

    def stop() -> None:
        late.set()
        os.kill(os.getpid(), signal.SIGTERM)  # the trainer saves and raises

    timer = threading.Timer(60 * options.minutes, stop)
    timer.start()
    try:
        trainer.run()
    except Interrupted:
        if not late.is_set():
            raise
    finally:
        timer.cancel()
    command, bundle = " ".join(["python", *sys.argv]), config.run / "bundle"
    if run.transformer:
        translator = rival.best_translator(trainer)
    else:
        make_bundle(config.run, bundle, BundleOptions(weights=run.weights, name=run.config, command=command))
        translator = Translator.load(bundle, device=str(trainer.device))
    for test, pairs in test_sets(options, run).items():
        texts = [item.text for item in translator.translate([source for source, _ in pairs])]
        (config.run / f"{test}.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    summary = {
        "run": name,
        "parameters": translator.info.parameters,
        "bundle MB": None if run.transformer else round(sum(p.stat().st_size for p in bundle.iterdir()) / 1e6, 2),
        "updates": trainer.progress.step,
        "stopped early": late.is_set(),
        "subwords seen": rival.seen_subwords(trainer),
        "search": f"beam {translator.defaults.beam_size}, length penalty {translator.defaults.length_penalty:g}",
        "command": command,
    }
    (config.run / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")


def result(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Summary and scores of a finished run; nothing before that."""
    folder, scores = options.folder / name, {}
    if not (folder / "summary.json").is_file():
        return {}
    moses = rival.moses_of(RUNS[name].config.rpartition("-")[2])
    for test, pairs in test_sets(options, RUNS[name]).items():
        if (folder / f"{test}.txt").is_file():
            texts = (folder / f"{test}.txt").read_text(encoding="utf-8").split("\n")[:-1]
            references = [reference for _, reference in pairs]
            measured = [*score(texts, references), *([tok_lc(texts, references, moses)] if moses else [])]
            scores[test] = {item.name: {"score": item.score, "signature": item.signature} for item in measured}
    return json.loads((folder / "summary.json").read_text(encoding="utf-8")) | {"scores": scores}


def table(options: argparse.Namespace, names: Sequence[str]) -> str:
    """Markdown: a row for each run and test split, the mean and spread of its seeds; what is missing is open."""
    rows = [
        "| run | parameters | updates | test split | BLEU 13a | BLEU tok-lc | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    signatures = set()
    for row in dict.fromkeys(re.sub(r"-s\d+$", "", name) for name in names):
        seeds = [name for name in names if re.sub(r"-s\d+$", "", name) == row]
        done = [found for name in seeds if (found := result(options, name))]
        updates = " ".join(f"{one['updates']:,}{'*' * one['stopped early']}" for one in done)
        size = f"{done[0]['parameters'] / 1e6:.1f} M" if done else ""
        for test in done[0]["scores"] if done else [RUNS[seeds[0]].config]:
            cells = []
            for metric in ("BLEU", "BLEU tok-lc"):
                found = [one["scores"][test][metric] for one in done if metric in one["scores"].get(test, {})]
                signatures |= {f"{metric}: `{item['signature']}`" for item in found}
                values = [item["score"] for item in found]
                spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.2f}{spread}" if values else "open")
            rows.append(f"| {row} | {size} | {updates} | {test} | {' | '.join(cells)} | {len(done)} of {len(seeds)} |")
    return "\n".join([*rows, "", "* stopped by --minutes; ± is the standard deviation over seeds", *sorted(signatures)])


def plan(options: argparse.Namespace, names: Sequence[str]) -> bool:
    """Print what would run; whether every corpus is prepared."""
    ready = True
    for name in names:
        run, config = RUNS[name], configure(options, name)
        there = (config.corpus / MANIFEST).is_file()
        ready = ready and there
        steps = f"{config.train.max_steps:,} updates of {config.train.batch_tokens:,} subwords"
        print(
            f"{name}: {run.transformer or config.model.wiring}, {steps}{'' if there else f'; {config.corpus} NOT PREPARED'}"
        )
    return ready


def run_all(options: argparse.Namespace, names: Sequence[str], passed: Sequence[str]) -> bool:
    """Run each in a process of its own, --at-once of them at a time; whether all went well."""
    options.folder.mkdir(parents=True, exist_ok=True)
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // options.at_once))}

    def run(name: str) -> bool:
        log = options.folder / f"{name}.log"
        with log.open("ab") as stream:
            command = [sys.executable, __file__, *passed, "--work", name]
            code = subprocess.run(command, stdout=stream, stderr=stream, env=threads | os.environ).returncode
        line = json.dumps(result(options, name), ensure_ascii=False) if code == 0 else ""
        print(line or f"{name}: failed ({code}), see {log}", flush=True)
        with (options.folder / "results.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(f"{line}\n" if line else "")
        return code == 0

    with ThreadPoolExecutor(options.at_once) as pool:
        try:
            return all(list(pool.map(run, names)))
        except KeyboardInterrupt:  # which the running ones got too, and save
            pool.shutdown(cancel_futures=True)
            raise Interrupted("stopped; the same command goes on") from None


def main() -> int:
    """Plan, run or print."""
    parser = argparse.ArgumentParser(description="Train and score the runs of the quality table.")
    parser.add_argument("--only", action="append", metavar="NAME", help="a run or a pattern; may be repeated")
    parser.add_argument("--minutes", type=float, default=24 * 60, help="of training a run; default: a day")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="processes; several share one GPU")
    parser.add_argument("--corpora", type=Path, default=Path("data/prepared"), help="folder of the prepared corpora")
    parser.add_argument("--folder", type=Path, default=Path("runs/quality"), help="folder of the runs")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override settings of every run"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would run and stop")
    parser.add_argument("--table", action="store_true", help="score the stored translations, print the table and stop")
    parser.add_argument("--work", choices=RUNS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = [name for name in RUNS if any(fnmatch.fnmatchcase(name, pattern) for pattern in options.only or ["*"])]
    if not names:
        parser.error(f"no run is called so; there are {', '.join(RUNS)}")
    try:
        if options.work:
            work(options, options.work)
            return 0
        if options.dry_run:
            return int(not plan(options, names))
        good = options.table or run_all(options, names, sys.argv[1:])
        print(table(options, names))
        return int(not good)
    except (NMTError, Interrupted) as error:
        print(f"quality.py: {error}", file=sys.stderr)
        return 130 if isinstance(error, Interrupted) else 2


if __name__ == "__main__":
    sys.exit(main())
