"""A look before hours are spent: the corpus, the longest batch, the disk, and how long training will take."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmt.corpus.store import PreparedCorpus
from nmt.errors import TrainingError
from nmt.text.normalize import normalize
from nmt.text.tokenizer import UNK
from nmt.training.config import RunConfig
from nmt.training.trainer import Trainer
from nmt.training.update import out_of_memory

_TRIED = 3  # updates that are timed
_SEEN = 100_000  # pairs that statistics are taken of


@dataclass(frozen=True)
class Finding:
    """One line of the report; a warning is something to think about before training."""

    topic: str
    text: str
    warning: bool = False

    def __str__(self) -> str:
        return f"{'WARNING ' if self.warning else ''}{self.topic}: {self.text}"


def check(config: RunConfig) -> list[Finding]:
    """Examine the corpus and try the model on its longest batch; nothing is written. Errors are raised as training would."""
    corpus = PreparedCorpus.open(config.corpus)
    source, target = corpus.train()
    findings = [
        _alignment(source.lengths[:_SEEN].astype(np.float64), target.lengths[:_SEEN].astype(np.float64)),
        *_samples(corpus),
        *_coverage(corpus),
    ]
    return findings + _trial(config, corpus)


def _alignment(source: NDArray[np.float64], target: NDArray[np.float64]) -> Finding:
    """Lengths of translations go together: where they go together no better than with the neighbour's, sides are shifted."""
    if len(source) < 30 or source.std() == 0 or target.std() == 0:
        return Finding("alignment", "too few pairs or too equal lengths to judge")
    here = float(np.corrcoef(source, target)[0, 1])
    beside = max(float(np.corrcoef(source[1:], target[:-1])[0, 1]), float(np.corrcoef(source[:-1], target[1:])[0, 1]))
    text = f"length correlation {here:.2f} (shifted by one pair {beside:.2f}), mean lengths {source.mean():.1f} and {target.mean():.1f}"
    if here < 0.3 or here < beside + 0.1:
        return Finding("alignment", text + ": the two sides do not look like translations of each other", warning=True)
    return Finding("alignment", text)


def _samples(corpus: PreparedCorpus) -> list[Finding]:
    source, target = corpus.train()
    places = np.linspace(0, len(source) - 1, 3).astype(int)
    return [
        Finding(
            f"pair {place + 1}",
            f"{corpus.source_tokenizer.decode(source[place].tolist())!r} / {corpus.target_tokenizer.decode(target[place].tolist())!r}",
        )
        for place in places
    ]


def _coverage(corpus: PreparedCorpus) -> list[Finding]:
    findings = []
    pairs = corpus.pairs("validation")
    columns, tokenizers = corpus.train(), (corpus.source_tokenizer, corpus.target_tokenizer)
    for side, name in enumerate(("source", "target")):
        ids = [i for sentence in tokenizers[side].encode([normalize(pair[side]) for pair in pairs]) for i in sentence]
        unknown = sum(i == UNK for i in ids) / max(1, len(ids))
        seen = np.unique(np.concatenate([columns[side][i] for i in range(min(len(columns[side]), _SEEN))]))
        text = f"{unknown:.2%} of validation subwords unknown, {len(seen):,} of {len(tokenizers[side]):,} pieces seen in training"
        findings.append(Finding(f"{name} vocabulary", text, warning=unknown > 0.01))
    return findings


def _trial(config: RunConfig, corpus: PreparedCorpus) -> list[Finding]:
    """Build the model and take the longest batch and a few common ones through it."""
    trainer = Trainer(config, resume=False)
    device, precision = trainer.device, trainer.precision
    parameters = sum(p.numel() for p in trainer.model.parameters())
    plan = trainer.batches.plan(0)
    longest = max(range(len(plan)), key=lambda i: int(trainer.batches.target.lengths[plan[i]].max()))
    batch = trainer.batches.batch(0, longest)
    try:
        trainer.try_batch(batch)
        seconds, total = 0.0, 0
        for position in range(min(_TRIED, len(plan))):
            common = trainer.batches.batch(0, position)
            trainer.try_batch(common)  # a shape's first time is slow: kernels are chosen for it
            started = time.perf_counter()
            total += trainer.try_batch(common)
            seconds += time.perf_counter() - started
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(
            f"the longest batch does not fit into memory: lower train.batch_tokens ({trainer.config.train.budget})"
        ) from None
    rate = total / seconds
    tokens = sum(corpus.manifest["tokens"].values()) + 2 * corpus.manifest["splits"]["train"]
    batches = trainer.batches.epoch_batches()
    updates = batches / config.train.accumulate
    hours = config.train.max_steps / updates * tokens / rate / 3600
    return [
        Finding("model", f"{parameters / 1e6:.1f} M parameters on {device.type} in {precision}"),
        Finding(
            "longest batch", f"{tuple(batch.source.shape)} source and {tuple(batch.target.shape)} target ids: fits"
        ),
        Finding(
            "epoch",
            f"{batches:,.0f} batches; train.max_steps {config.train.max_steps:,} is {config.train.max_steps / updates:.1f} epochs",
        ),
        Finding(
            "speed", f"about {rate:,.0f} tokens/s (source and target), so about {hours:.1f} hours without validation"
        ),
        _disk(config, parameters),
    ]


def _disk(config: RunConfig, parameters: int) -> Finding:
    copies = 3 + (1 if config.optimizer.ema_decay else 0)  # weights, two moments, average
    need = parameters * 4 * copies * (config.train.keep + 2)  # the kept ones, the best, the one being written
    place = config.run
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"checkpoints need up to {need / 1e9:.2f} GB, {free / 1e9:.1f} GB are free"
    return Finding("disk", text, warning=free < need)
