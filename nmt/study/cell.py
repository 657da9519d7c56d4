"""One cell of a study, from its configuration to its result: train (or go on), bundle the best weights, measure, clean up.

Each cell is a process of its own, `python -m nmt.study.cell CELL.yaml`, with a device to itself; the runner starts it. The training
is the one of `nmt train CELL.yaml`, and that command goes on with it just as well.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nmt.config import load
from nmt.corpus.store import PreparedCorpus
from nmt.errors import CheckpointError, NMTError, TrainingError
from nmt.evaluation.evaluate import Evaluation, corpus_test_set, evaluate
from nmt.inference.translator import Translator
from nmt.inference.types import DecodeOptions
from nmt.study.config import Cell, same_run
from nmt.study.result import Machine, Result, write_result
from nmt.study.run_log import read_log
from nmt.study.verdict import CurvePoint, judge
from nmt.training.batches import TrainingBatches
from nmt.training.bundling import BundleOptions, make_bundle
from nmt.training.checkpoint import Checkpoints
from nmt.training.config import RunConfig
from nmt.training.machine import processor
from nmt.training.run_folder import RESOLVED
from nmt.training.trainer import Interrupted, Trainer

SPEED_SENTENCES = 200  # of the test split, translated once more at each beam size to time it
SPEED_BEAMS = (1, 5)


def run_cell(config: RunConfig, at_once: int = 1, keep: bool = False) -> Result:
    """Train what `config` describes from where its run folder stands, measure it, and write RUN.json beside that folder.

    Checkpoints and bundle are removed at the end unless `keep`. Raises what training raises, `Interrupted` included.
    """
    cell = Cell(config.run.name, {}, config)
    _begin_anew_if_changed(config)
    trainer = Trainer(config)
    trainer.run()
    make_bundle(
        config.run,
        config.run / "bundle",
        BundleOptions(weights="fp32", name=cell.name, command=f"study cell {cell.name}"),
    )
    result = _measure(cell, trainer, at_once)
    write_result(cell, result)
    if not keep:
        for name in ("checkpoints", "bundle"):
            shutil.rmtree(config.run / name, ignore_errors=True)
    return result


def _begin_anew_if_changed(config: RunConfig) -> None:
    """A run folder that was begun with another configuration or another state of the corpus is one of an earlier study."""
    path, checkpoints = config.run / RESOLVED, Checkpoints(config.run, keep=1)
    if not path.exists():
        return
    try:
        what = "" if same_run(load(RunConfig, path), config) else "study file"
        if not what and (steps := checkpoints.steps()):
            trained_on = checkpoints.load(steps[-1])[1].get("corpus")
            what = "" if trained_on == PreparedCorpus.open(config.corpus).manifest["content_hash"] else "corpus"
    except CheckpointError:
        return  # training says what to do about it
    except NMTError:
        what = "study file"
    if what:
        print(f"{config.run}: the {what} has changed since; beginning anew", flush=True)
        shutil.rmtree(config.run)


def _measure(cell: Cell, trainer: Trainer, at_once: int) -> Result:
    config, corpus = cell.config, trainer.corpus
    tokens = tokens_by_step(trainer.batches, config.train.accumulate, trainer.progress.step)
    log = read_log(config.run)
    trained, validated = log.of("train"), log.of("validation")
    epoch_steps = trainer.batches.epoch_batches() / config.train.accumulate
    curve = tuple(_point(record, epoch_steps) for record in validated)
    steps = Checkpoints(config.run, keep=1)
    best = steps.best() or trainer.progress.step
    at_best = next((record for record in validated if record["step"] == best), None)
    if at_best is None:
        raise TrainingError(
            f"{config.run}: its log holds no validation of step {best}: remove the folder and run again"
        )
    test, speed = _translate(config, trainer.device)
    metrics = json.loads((config.run / "bundle" / "metrics.json").read_text(encoding="utf-8"))
    return Result(
        cell=cell.name,
        config=config.model_dump(mode="json"),
        corpus_hash=corpus.manifest["content_hash"],
        pairs=sum(count for count, _ in trainer.batches.weights),
        parameters=sum(parameter.numel() for parameter in trainer.model.parameters()),
        steps=trainer.progress.step,
        epochs=round(trainer.progress.step / epoch_steps, 2),
        tokens=sum(tokens),
        seconds=round(training_seconds(trained, tokens), 1),
        tokens_per_second=statistics.median(record["tokens_per_second"] for record in trained),
        curve=curve,
        best_step=best,
        validation_bleu=at_best["bleu"],
        validation_signature=at_best["bleu_signature"],
        validation_sentences=min(
            config.validation.sentences or len(trainer.validator.pairs), len(trainer.validator.pairs)
        ),
        validation_loss=at_best["loss"],
        test_bleu=test.scores[0].score,
        test_signature=test.scores[0].signature,
        test_sentences=test.sentences,
        search=test.search,
        decode_speed=speed,
        decode_sentences=min(SPEED_SENTENCES, test.sentences),
        verdict=judge(curve),
        versions=metrics["versions"],
        machine=_machine(trainer, at_once),
    )


def _point(record: dict[str, Any], epoch_steps: float) -> CurvePoint:
    return CurvePoint(
        step=record["step"],
        epoch=round(record["step"] / epoch_steps, 3),
        validation_loss=record["loss"],
        train_loss=record["train_loss"],
        bleu=record["bleu"],
    )


def tokens_by_step(batches: TrainingBatches, accumulate: int, steps: int) -> list[int]:
    """Real source and target tokens (as stored, end marks included) of each of the first `steps` updates."""
    source, target = batches.source.lengths, batches.target.lengths
    sizes = (
        int(source[rows].sum()) + int(target[rows].sum()) + 2 * len(rows)
        for epoch in itertools.count()
        for rows in batches.epoch(epoch)
    )
    return [sum(itertools.islice(sizes, accumulate)) for _ in range(steps)]


def training_seconds(trained: Sequence[dict[str, Any]], tokens: Sequence[int]) -> float:
    """Seconds that the updates took, from the rates in the log: right for a run that was stopped and resumed too."""
    seconds, done = 0.0, 0
    for record in trained:
        seconds += sum(tokens[done : record["step"]]) / record["tokens_per_second"]
        done = record["step"]
    return seconds


def _translate(config: RunConfig, device: torch.device) -> tuple[Evaluation, dict[str, float]]:
    """The test split translated with beam 5, and the speed of a part of it at each beam size."""
    translator = Translator.load(config.run / "bundle", config.train.threads, str(device))
    test = corpus_test_set(str(config.corpus), "test")
    options = DecodeOptions()
    search = f"beam {options.beam_size}, length penalty {options.length_penalty:g}"
    found = evaluate(lambda texts: [item.text for item in translator.translate(texts, options)], test, search)
    sources, speed = [source for source, _ in test.pairs[:SPEED_SENTENCES]], {}
    for beam in SPEED_BEAMS:
        started = time.perf_counter()
        translator.translate(sources, DecodeOptions(beam_size=beam))
        speed[str(beam)] = round(len(sources) / (time.perf_counter() - started), 1)
    return found, speed


def _machine(trainer: Trainer, at_once: int) -> Machine:
    cuda = trainer.device.type == "cuda"
    return Machine(
        processor=processor(),
        device=torch.cuda.get_device_name(trainer.device) if cuda else "cpu",
        precision=trainer.precision,
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        at_once=at_once,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this module; 0 when the result is written, 130 when it was stopped, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m nmt.study.cell", description="Train and measure one cell of a study."
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--threads", type=int, help="CPU threads, where the configuration names none")
    parser.add_argument("--at-once", type=int, default=1, help="cells that share the machine, for the record")
    parser.add_argument("--keep", action="store_true", help="keep checkpoints and bundle")
    options = parser.parse_args(arguments)
    try:
        config = load(RunConfig, options.config)
        if options.threads and config.train.threads is None:
            config = load(RunConfig, options.config, [f"train.threads={options.threads}"])
        with options.config.open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go when this process ends, however it ends
            except BlockingIOError:
                raise TrainingError(f"{options.config}: this cell is being run by another process") from None
            result = run_cell(config, options.at_once, options.keep)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return 130
    except NMTError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    print(f"test BLEU {result.test_bleu:.2f} ({result.test_signature}); {result.verdict}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
