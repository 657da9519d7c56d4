"""The rate of training on the CPU: ours, a bare PyTorch loop of the same model, and the peers, in one run.

    benchmarks/peers.sh                                  once: installs the peers in peers/
    python benchmarks/training_speed.py                  about ten minutes on two quiet cores
    python benchmarks/training_speed.py --peers none --threads 1 --rounds 1

All train 2+2 LSTM layers of 512 units on the same pairs in the same subwords, with the same threads, dropout 0.2, label smoothing 0.1,
Adam and clipping, on batches of 4,096 tokens a side, padding included. They take turns, each a process of its own that begins anew:

- ours: `nmt train`, wiring gnmt, with all that it does beside: making batches, moving average, log. In the precision that it chooses by
  itself, and in fp32. The validation after the last update is not counted.
- bare loop: the same model in the same precision on the same batches, already made, with autocast, PyTorch's cross-entropy over the real
  tokens, clipping by norm and fused AdamW; nothing of our trainer.
- OpenNMT-py 3.5.1: bidirectional encoder, decoder with input feeding, batches by length; fp32, as it has no bf16 on a CPU.
- JoeyNMT 2.3.0: the same, but batches of sentences in random order, which is all it has.

A token is a source or target subword or the end mark of a sentence, padding is not counted. OpenNMT-py gives its source no end mark: one
is counted for each pair of its log. JoeyNMT's log counts target tokens alone: the source tokens follow from the ratio of both sides in
the whole corpus. A system's rate in a turn is the median of its reports after the first third; from the rates of the rounds the table
gives median and range, and ratios are those of turns of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import opennmt
import torch
import yaml
from torch.nn import functional as F

from nmt.config import load
from nmt.corpus.store import PreparedCorpus
from nmt.errors import NMTError, TrainingError
from nmt.model.seq2seq import Seq2Seq
from nmt.text.tokenizer import PAD
from nmt.training.batches import Batch, TrainingBatches
from nmt.training.config import RunConfig
from nmt.training.machine import processor

REPORT = 2  # updates between two lines of a log
DROPOUT, SMOOTHING, CLIP, RATE = 0.2, 0.1, 1.0, 1e-3
BARE = "bare loop"
LEAST = 3 * REPORT  # updates that leave two reports after the first third


@dataclass(frozen=True)
class Turn:
    """One training of one system: what is asked for, the corpus, its data as pieces, an empty folder."""

    options: argparse.Namespace
    corpus: PreparedCorpus
    data: Path
    folder: Path

    def call(self, tool: Path, *arguments: str) -> str:
        """Run a tool with the threads that are asked for and no GPU; return its output."""
        threads, log = str(self.options.threads), self.folder / "output.log"
        settings = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": ""}
        opennmt.call(tool, arguments, log, settings)
        return log.read_text(encoding="utf-8", errors="replace")

    def write(self, settings: Mapping[str, Any]) -> str:
        """Write a configuration file; return its path."""
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(dict(settings)), encoding="utf-8")
        return str(path)


Measure = Callable[[Turn], Sequence[float]]  # the rates of a turn's reports, tokens a second


# --- ours, and the bare loop ---------------------------------------------------------------------------------------------


def run_settings(turn: Turn, precision: str) -> dict[str, Any]:
    """The configuration file of `nmt train`."""
    options = turn.options
    stack = {"layers": options.layers, "hidden": options.hidden}
    return {
        "corpus": str(turn.corpus.path),
        "run": str(turn.folder / "run"),
        "model": {
            "embedding": options.hidden,
            "wiring": "gnmt",
            "encoder": stack,
            "decoder": dict(stack),
            "tie_embeddings": "all" if turn.corpus.joint else "output",
            "dropout": {"embedding": DROPOUT, "layer": DROPOUT, "output": DROPOUT},
        },
        "optimizer": {"lr": RATE, "clip_norm": CLIP, "label_smoothing": SMOOTHING},
        "train": {
            "max_steps": options.updates,
            "batch_tokens": 2 * options.batch_tokens,  # which counts both sides
            "precision": precision,
            "device": "cpu",
            "threads": options.threads,
            "log_every": REPORT,
            "save_every": options.updates,
        },
        "validation": {"every": options.updates, "sentences": 1},
    }


def ours(turn: Turn, precision: str) -> list[float]:
    """The rates in the log of `nmt train`."""
    turn.call(Path(sys.executable), "-m", "nmt", "train", turn.write(run_settings(turn, precision)))
    lines = (turn.folder / "run" / "log.jsonl").read_text(encoding="utf-8").split("\n")
    records = map(json.loads, filter(None, lines))
    return [record["tokens_per_second"] for record in records if record["kind"] == "train"]


def bare(turn: Turn, precision: str) -> list[float]:
    """The rates that the bare loop prints, in a process of its own."""
    output = turn.call(Path(sys.executable), __file__, "--bare", turn.write(run_settings(turn, precision)))
    return [float(rate) for rate in re.findall(r"^([\d.]+) tokens/s$", output, re.MULTILINE)]


def first_batches(config: RunConfig) -> list[Batch]:
    """The batches of all updates, as the trainer would take them."""
    assert isinstance(config.train.batch_tokens, int)  # as `run_settings` writes it
    source = TrainingBatches(PreparedCorpus.open(config.corpus), config.train.batch_tokens, config.seed)
    made: list[Batch] = []
    epoch = position = 0
    while len(made) < config.train.max_steps:
        try:
            made.append(source.batch(epoch, position))
            position += 1
        except IndexError:
            epoch, position = epoch + 1, 0
    return made


def bare_loop(path: Path) -> None:
    """Train the model of a configuration file in plain PyTorch, printing the rate after every few updates."""
    config = load(RunConfig, path)
    torch.set_num_threads(config.train.threads or 1)
    batches = first_batches(config)
    vocabulary = PreparedCorpus.open(config.corpus).manifest["vocabulary"]
    torch.manual_seed(config.seed)
    model = Seq2Seq(config.model, vocabulary["source"], vocabulary["target"]).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    tokens, since = 0, time.perf_counter()
    for number, batch in enumerate(batches, 1):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.train.precision == "bf16"):
            vectors = model(batch.source, batch.source_lengths, batch.target)
            real = batch.labels != PAD
            loss = F.cross_entropy(model.logits(vectors[real]), batch.labels[real], label_smoothing=SMOOTHING)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += batch.total
        if number % REPORT == 0:
            now = time.perf_counter()
            print(f"{tokens / (now - since):.1f} tokens/s")
            tokens, since = 0, now


# --- the peers -----------------------------------------------------------------------------------------------------------


def opennmt_rates(turn: Turn) -> list[float]:
    """Train OpenNMT-py; source and target tokens a second, and an end mark of the source for each pair."""
    options, never = turn.options, 1_000_000
    shape = argparse.Namespace(**vars(options), dropout=DROPOUT, lr=RATE, seed=1)
    settings = opennmt.settings(shape, turn.data, options.peer_updates, turn.corpus.joint) | {
        "save_data": str(turn.folder / "samples"),
        "save_model": str(turn.folder / "model"),
        "max_grad_norm": CLIP,
        "label_smoothing": SMOOTHING,
        "bucket_size": turn.corpus.manifest["splits"]["train"],  # pairs that are sorted by length together
        "valid_steps": never,
        "save_checkpoint_steps": never,
        "report_every": REPORT,
    }
    tool = options.peers / "opennmt" / "bin" / "onmt_train"
    lines = opennmt.reports(turn.call(tool, "--config", turn.write(settings)))
    return [line.source_rate + line.target_rate * (1 + line.batch_pairs / max(1, line.batch_target)) for line in lines]


def joeynmt_settings(turn: Turn) -> dict[str, Any]:
    """The configuration file of JoeyNMT. Its bidirectional layers are twice as wide as `hidden_size` says."""
    options, joint = turn.options, turn.corpus.joint
    stack = {
        "type": "recurrent",
        "rnn_type": "lstm",
        "num_layers": options.layers,
        "dropout": DROPOUT,
        "embeddings": {"embedding_dim": options.hidden, "dropout": DROPOUT},
    }
    luong = {"hidden_size": options.hidden, "hidden_dropout": DROPOUT, "attention": "luong", "input_feeding": True}
    sides = {
        name: {"lang": side, "level": "word", "voc_file": str(turn.data / f"{side}.pieces")}
        for name, side in (("src", "source"), ("trg", "target"))
    }
    return {
        "name": "training_speed",
        "model_dir": str(turn.folder / "model"),
        "use_cuda": False,
        "random_seed": 1,
        "data": {"train": str(turn.data / "train"), "dev": str(turn.data / "validation"), **sides},
        "testing": {},
        "training": {
            "optimizer": "adam",
            "learning_rate": RATE,
            "scheduling": "plateau",
            "clip_grad_norm": CLIP,
            "label_smoothing": SMOOTHING,
            "normalization": "tokens",
            "batch_type": "token",
            "batch_size": options.batch_tokens,
            "epochs": 1_000_000,
            "updates": options.peer_updates,
            "logging_freq": REPORT,
            "validation_freq": REPORT * 1_000_000,
        },
        "model": {
            "tied_embeddings": joint,
            "tied_softmax": True,
            "encoder": stack | {"hidden_size": options.hidden // 2, "bidirectional": True},
            "decoder": stack | luong,
        },
    }


def joeynmt_rates(turn: Turn) -> list[float]:
    """Train JoeyNMT; target tokens a second from its log, and as many source tokens for each as the corpus has."""
    for side, tokenizer in (("source", turn.corpus.source_tokenizer), ("target", turn.corpus.target_tokenizer)):
        opennmt.write_pieces(turn.data / f"{side}.pieces", ([name] for name in opennmt.vocabulary(tokenizer)))
    tool = turn.options.peers / "joeynmt" / "bin" / "python"
    output = turn.call(tool, "-m", "joeynmt", "train", "--skip-test", turn.write(joeynmt_settings(turn)))
    source, target = (int(column.lengths.sum(dtype=int)) + len(column) for column in turn.corpus.train())
    return [float(rate) * (1 + source / target) for rate in re.findall(r"Tokens per Sec: *([\d.]+)", output)]


PEERS: dict[str, tuple[str, Measure]] = {  # name: environment, rates
    "OpenNMT-py 3.5.1": ("opennmt", opennmt_rates),
    "JoeyNMT 2.3.0": ("joeynmt", joeynmt_rates),
}


# --- all of them ---------------------------------------------------------------------------------------------------------


def systems(options: argparse.Namespace) -> dict[str, Measure]:
    """What is measured, by name; a peer that is not installed is left out with a line that says so."""
    best = "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"  # what `auto` comes to
    found: dict[str, Measure] = {f"ours {best}": partial(ours, precision="auto")}
    if best != "fp32":
        found["ours fp32"] = partial(ours, precision="fp32")
    found[f"{BARE} {best}"] = partial(bare, precision=best)
    for name, (folder, measure) in PEERS.items():
        place = options.peers / folder
        if (place / "bin").is_dir():
            found[name] = measure
        elif options.peers != Path("none"):
            print(f"{name} is left out: {place} is missing: install it with benchmarks/peers.sh", flush=True)
    return found


def measure_all(options: argparse.Namespace, chosen: Mapping[str, Measure], folder: Path) -> dict[str, list[float]]:
    """The rate of every system in every round; every second round goes backwards."""
    corpus, data = PreparedCorpus.open(options.corpus), folder / "data"
    data.mkdir()
    if chosen.keys() & PEERS.keys():
        opennmt.write_data(corpus, data)
    rates: dict[str, list[float]] = {name: [] for name in chosen}
    for number in range(options.rounds):
        for name in list(chosen)[:: -1 if number % 2 else 1]:
            turn = Turn(options, corpus, data, folder / f"{number} {name}".replace(" ", "-"))
            turn.folder.mkdir()
            start, reports = time.perf_counter(), chosen[name](turn)
            if not reports:
                raise TrainingError(f"{name}: its log tells no rate: did it train? (see {turn.folder})")
            rates[name].append(statistics.median(reports[len(reports) // 3 :]))
            shutil.rmtree(turn.folder)
            seconds = time.perf_counter() - start
            print(f"round {number + 1}: {name}: {rates[name][-1]:,.0f} tokens/s [{seconds:.0f} s]", flush=True)
    return rates


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(rates: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """Ours over the bare loop and over the best peer, round by round: median, range, and what is aimed at in our own precision."""
    mine = next(iter(rates))
    pairs = [(mine, name, "0.95") for name in rates if name.startswith(BARE)]
    if peers := rates.keys() & PEERS.keys():
        best = max(peers, key=lambda name: statistics.median(rates[name]))
        others = [name for name in rates if name.startswith("ours") and name != mine]
        pairs += [(mine, best, "2.4, stretch 3"), *((name, best, "") for name in others)]
    return {
        f"{one} / {other}": spread([a / b for a, b in zip(rates[one], rates[other], strict=True)]) | {"target": target}
        for one, other, target in pairs
    }


def versions(options: argparse.Namespace) -> str:
    """Of Python and torch, here and in the peers' environments."""
    found = [f"Python {platform.python_version()}, torch {torch.__version__}"]
    for name, (folder, _) in PEERS.items():
        installed = (options.peers / folder).glob("lib/python*/site-packages/torch-*.dist-info")
        found += [f"{name} with {path.stem.replace('-', ' ')}" for path in installed]
    return "; ".join(found)


def rates_table(result: Mapping[str, Any], unit: str) -> list[str]:
    """How it was measured, and the rate of every system."""
    lines = [
        f"{result['machine']}; {result['versions']}; threads: {result['threads']}",
        f"command: {result['command']}",
        "",
        f"| system | {unit}, median of {result['rounds']} | range |",
        "|---|---|---|",
    ]
    for name, values in result["systems"].items():
        lines.append(f"| {name} | {values['median']:,.0f} | {values['min']:,.0f} to {values['max']:,.0f} |")
    return lines


def table(result: Mapping[str, Any]) -> str:
    """The report for people."""
    lines = rates_table(result, "source and target tokens a second")
    lines += ["", "| ratio | median | range | target |", "|---|---|---|---|"]
    for name, values in result["ratios"].items():
        span = f"{values['min']:.2f} to {values['max']:.2f}"
        lines.append(f"| {name} | {values['median']:.2f} | {span} | {values['target']} |")
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Rates of training on the CPU, ours beside the peers'.")
    corpus = Path("data/prepared/multi30k-en-de")
    parser.add_argument("corpus", nargs="?", type=Path, default=corpus, help="a prepared corpus")
    parser.add_argument("--peers", type=Path, default=Path("peers"), help="folder of their environments, or none")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=24, help="of ours and of the bare loop in a turn")
    parser.add_argument("--peer-updates", type=int, default=12, help="of a peer in a turn")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--batch-tokens", type=int, default=4096, help="of a side, padding included")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for name, least in (("threads", 1), ("rounds", 1), ("updates", LEAST), ("peer_updates", LEAST)):
        if getattr(options, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be {least} at least")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print."""
    options = parse(arguments)
    if options.bare:
        bare_loop(options.bare)
        return 0
    folder = Path(tempfile.mkdtemp(prefix="training-speed-"))
    try:
        rates = measure_all(options, systems(options), folder)
    except NMTError as error:  # the folder stays: the line says which log to see
        print(f"training_speed.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        return 130
    shutil.rmtree(folder)
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "versions": versions(options),
        "threads": options.threads,
        "rounds": options.rounds,
        "systems": {name: spread(values) | {"rounds": values} for name, values in rates.items()},
        "ratios": ratios(rates),
    }
    print(f"\n{table(result)}")
    if options.json:
        options.json.write_text(f"{json.dumps(result, indent=1)}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
