"""OpenNMT-py's LSTM on one of our prepared corpora: the same sentences, subwords, test split and scores as ours.

    benchmarks/peers.sh                                                              once: installs it in peers/opennmt
    python benchmarks/opennmt.py data/prepared/multi30k-en-de --run runs/opennmt --epochs 3.9
    python benchmarks/opennmt.py data/prepared/multi30k-en-de --run runs/opennmt --score-only

It gets subwords (our stored ids as pieces), its own bidirectional encoder and input-feeding decoder, dropout, label smoothing, Adam with
clipping, and, as its guide does, a learning rate that is halved in the second half. Pieces that it prints are joined by
our tokenizer. Prints JSON: parameters, updates, pairs and subwords trained on, tokens a second, scores with signatures. Bound to
the cores and threads it is started with (taskset, OMP_NUM_THREADS). A run that was stopped goes on from its last checkpoint, with its
data from the start again: that is how it resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from transformer import moses_of

from nmt.corpus.store import PreparedCorpus
from nmt.errors import NMTError, TrainingError
from nmt.evaluation.evaluate import TestSet, evaluate
from nmt.text.normalize import normalize
from nmt.text.tokenizer import Tokenizer

CHECKPOINTS = 4  # kept in a run


def write_pieces(path: Path, sentences: Iterable[Sequence[str]]) -> None:
    """One sentence a line, pieces with spaces between them."""
    path.write_text("".join(f"{' '.join(pieces)}\n" for pieces in sentences), encoding="utf-8")


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    """All subwords after our specials: the peers add their own."""
    return tokenizer.pieces(range(4, len(tokenizer)))


def write_data(corpus: PreparedCorpus, folder: Path) -> None:
    """Training and evaluation splits as pieces, and the vocabularies."""
    for side, column, tokenizer in zip(
        ("source", "target"), corpus.train(), (corpus.source_tokenizer, corpus.target_tokenizer), strict=True
    ):
        write_pieces(folder / f"train.{side}", (tokenizer.pieces(column[i].tolist()) for i in range(len(column))))
        for split in ("validation", "test"):
            texts = [normalize(pair[side == "target"]) for pair in corpus.pairs(split)]
            write_pieces(folder / f"{split}.{side}", map(tokenizer.pieces, tokenizer.encode(texts)))
        (folder / f"{side}.vocab").write_text(
            "".join(f"{name}\t1\n" for name in vocabulary(tokenizer)), encoding="utf-8"
        )


def settings(options: argparse.Namespace, folder: Path, steps: int, joint: bool) -> dict[str, Any]:
    """The configuration file of `onmt_train`."""
    return {
        "save_data": str(folder / "samples"),
        "data": {
            "corpus": {
                "path_src": str(folder / "train.source"),
                "path_tgt": str(folder / "train.target"),
                "transforms": [],
            },
            "valid": {
                "path_src": str(folder / "validation.source"),
                "path_tgt": str(folder / "validation.target"),
                "transforms": [],
            },
        },
        "src_vocab": str(folder / "source.vocab"),
        "tgt_vocab": str(folder / "target.vocab"),
        "share_vocab": joint,
        "share_embeddings": joint,
        "share_decoder_embeddings": True,
        "save_model": str(folder / "model"),
        "encoder_type": "brnn",
        "decoder_type": "rnn",
        "rnn_type": "LSTM",
        "layers": options.layers,
        "hidden_size": options.hidden,
        "word_vec_size": options.hidden,  # tied to the output, which is as wide as the decoder
        "global_attention": "general",
        "dropout": [options.dropout],
        "label_smoothing": 0.1,
        "optim": "adam",
        "learning_rate": options.lr,
        "learning_rate_decay": 0.5,
        "start_decay_steps": steps // 2,
        "decay_steps": max(1, steps // 10),
        "max_grad_norm": 1.0,
        "batch_type": "tokens",
        "normalization": "tokens",
        "batch_size": options.batch_tokens,
        "valid_batch_size": 2048,
        "bucket_size": 262_144,
        "num_workers": 0,
        "seed": options.seed,
        "train_steps": steps,
        "valid_steps": max(1, steps // CHECKPOINTS),
        "save_checkpoint_steps": max(1, steps // CHECKPOINTS),
        "keep_checkpoint": CHECKPOINTS,
        "report_every": 20,
    }


def call(tool: Path, arguments: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> None:
    """Run one of its tools, its output appended to `log`; raise `TrainingError` with the last line when it fails."""
    settings = os.environ | {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"} | (environment or {})
    try:
        with log.open("ab") as output:
            status = subprocess.run([str(tool), *arguments], stdout=output, stderr=output, env=settings).returncode
    except OSError as error:
        raise TrainingError(f"{tool}: {error.strerror}: install it with benchmarks/peers.sh") from None
    if status:
        last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        raise TrainingError(f"{tool.name} failed with status {status}: {last} (see {log})")


def checkpoints(folder: Path) -> list[Path]:
    """Its checkpoints, oldest first."""
    return sorted(folder.glob("model_step_*.pt"), key=lambda path: int(path.stem.rpartition("_")[2]))


def train(options: argparse.Namespace, corpus: PreparedCorpus, folder: Path) -> None:
    """Train for the asked number of updates, or of epochs by the size of its batches."""
    epoch = (
        max(corpus.manifest["tokens"].values()) + corpus.manifest["splits"]["train"]
    )  # its batches count the longer side
    steps = options.steps or round(options.epochs * epoch / options.batch_tokens)
    write_data(corpus, folder)
    (folder / "config.yaml").write_text(
        yaml.safe_dump(settings(options, folder, steps, corpus.joint)), encoding="utf-8"
    )
    done = checkpoints(folder)
    resume = ["--train_from", str(done[-1])] if done else []
    call(options.peer / "bin" / "onmt_train", ["--config", str(folder / "config.yaml"), *resume], folder / "train.log")


class Report(NamedTuple):
    """A line of its log: the update, the pairs since the line before, target tokens and pairs of a batch, tokens a second."""

    step: int
    pairs: int
    batch_target: int
    batch_pairs: int
    source_rate: int
    target_rate: int


def reports(log: str) -> list[Report]:
    """The lines of its log that tell of updates."""
    line = r"Step *(\d+)/ *\d+;.*?sents: *(\d+); bsz: *\d+/ *(\d+)/ *(\d+); *(\d+)/ *(\d+) tok/s"
    return [Report(*map(int, found)) for found in re.findall(line, log)]


def trained_on(log: str) -> dict[str, Any]:
    """Parameters, updates, pairs and rate, from the log's last run."""
    lines = reports(log)
    parameters = re.findall(r"number of parameters: (\d+)", log)
    if not lines or not parameters:
        raise TrainingError("its log tells no updates: did it train?")
    return {
        "parameters": int(parameters[-1]),
        "updates": lines[-1].step,
        "pairs trained on": sum(line.pairs for line in lines),
        "tokens a second": statistics.median(line.source_rate + line.target_rate for line in lines),
    }


def score(options: argparse.Namespace, corpus: PreparedCorpus, folder: Path) -> dict[str, Any]:
    """Translate the test split with the last checkpoint and score the text."""
    done = checkpoints(folder)
    if not done:
        raise TrainingError(f"{folder}: no checkpoint to score: train first")
    output = folder / "test.output"
    search = ["-beam_size", "5", "-max_length", "120", "-length_penalty", "avg", "-batch_size", "32", "-gpu", "-1"]
    files = ["-model", str(done[-1]), "-src", str(folder / "test.source"), "-output", str(output)]
    call(options.peer / "bin" / "onmt_translate", [*files, *search], folder / "translate.log")
    lines = output.read_text(encoding="utf-8").split("\n")[:-1]
    texts = ["".join(line.split(" ")).replace("\u2581", " ").strip() for line in lines]
    name, pairs = f"{corpus.manifest['recipe']['name']} test", corpus.pairs("test")
    if len(texts) != len(pairs):
        raise TrainingError(f"{output}: {len(texts)} lines for {len(pairs)} sentences")
    by_source = {source: text for (source, _), text in zip(pairs, texts, strict=True)}  # asked for in another order
    result = evaluate(
        lambda sources: [by_source[source] for source in sources],
        TestSet.of_pairs(name, pairs),
        "beam 5, length penalty avg",
        moses=moses_of(corpus.languages[1]),
    )
    return {"checkpoint": done[-1].name, "scores": result.records()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description="Train and score OpenNMT-py's LSTM on a prepared corpus.")
    parser.add_argument("corpus", type=Path, help="a prepared corpus")
    parser.add_argument("--run", required=True, type=Path, metavar="FOLDER", help="the run folder")
    parser.add_argument("--peer", type=Path, default=Path("peers/opennmt"), help="its environment")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--epochs", type=float, default=4.0, help="length of training in epochs, about")
    budget.add_argument("--steps", type=int, help="length of training in updates")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--score-only", action="store_true", help="no training: score the last checkpoint")
    options = parser.parse_args(arguments)
    try:
        corpus = PreparedCorpus.open(options.corpus)
        options.run.mkdir(parents=True, exist_ok=True)
        if not options.score_only:
            train(options, corpus, options.run)
        scores = score(options, corpus, options.run)
        log = (options.run / "train.log").read_text(encoding="utf-8", errors="replace")
        print(json.dumps({"peer": "OpenNMT-py 3.5.1", **trained_on(log), **scores}, indent=1))
    except NMTError as error:
        print(f"opennmt.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
