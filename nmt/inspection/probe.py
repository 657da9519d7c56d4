"""Linear probes: what can be read off each encoder layer by a linear classifier, and how much of it the network has learned.

A probe is a logistic regression on a layer's outputs, standardised, its penalty chosen on sentences apart (Alain and Bengio 2016;
Belinkov et al. 2017 for translation). Its accuracy alone says little, so each is beside three controls: the majority answer; random
answers, one for each form (Hewitt and Liang 2019: the accuracy above theirs is the probe's *selectivity*); and an untrained network
of the same shape.
"""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from nmt.errors import DataError
from nmt.inference import torch_backend
from nmt.inference.bundle import Bundle
from nmt.inspection.probe_tasks import Level, Material, Task
from nmt.model.capture import encoder_grid
from nmt.model.seq2seq import Seq2Seq
from nmt.progress import progress
from nmt.text.tokenizer import PAD

Network = Literal["trained", "untrained"]
Readout = Literal["last", "mean"]
READOUTS: dict[Level, tuple[Readout, ...]] = {
    "word": ("last",),
    "clause": ("last", "mean"),
    "sentence": ("last", "mean"),
}
SPLITS = 3
PENALTIES = (0.0003, 0.003, 0.03, 0.3)  # values of C, the inverse strength of the L2 penalty
ITERATIONS = 100
_SHARES = (0.6, 0.8)  # where training and validation sentences end
_LEAST = 5  # items that each of two answers has in every part of every split
_BATCH = 64

_Features = NDArray[np.float32]
_Labels = NDArray[np.int64]
_Parts = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Probed:
    """Accuracies of one task, readout and network: `accuracy[layer][split]`, layer 0 being the embedding.

    `control` is the same with random answers, `majority[split]` the share of the answer that is most frequent in training.
    """

    task: str
    level: Level
    readout: Readout
    network: Network
    items: int
    accuracy: tuple[tuple[float, ...], ...]
    control: tuple[tuple[float, ...], ...]
    majority: tuple[float, ...]


def probe(bundle: Bundle, materials: Sequence[Material], seed: int, threads: int | None = None) -> list[Probed]:
    """Probe every encoder layer of the bundle's model, and of one with random weights, for every task of `materials`.

    Raises `DataError` before any work when a task has too few items for `SPLITS` splits with at least two answers in each part.
    """
    tasks = [task for material in materials for task in material.tasks]
    for task in tasks:
        for split in range(SPLITS):
            check(task, split_items(task, seed + split))
    layers = 1 + bundle.config.model.encoder.layers
    model = torch_backend.load_model(bundle, threads)
    networks: dict[Network, Seq2Seq] = {"trained": model, "untrained": untrained(model, seed)}
    total = sum(len(READOUTS[task.level]) for task in tasks) * len(networks) * SPLITS * layers
    found = []
    with progress("probe", "probes", total=total) as bar:
        for network, probed in networks.items():
            for material in materials:
                for task, readout, states in features(probed, material):
                    found.append(_probed(task, readout, network, states, seed, bar))
    return found


def check(task: Task, parts: _Parts) -> None:
    """Raise `DataError` unless two answers have `_LEAST` items in each part of a split."""
    for part in parts:
        counts = Counter(task.items[i].label for i in part)
        if sum(count >= _LEAST for count in counts.values()) < 2:
            need = round(_LEAST / (1 - _SHARES[1]) * 2)
            raise DataError(
                f"too few sentences to probe {task.name!r}: {len(task.items)} items in all; at least two answers with about {need} each "
                "are needed (raise --sentences, or give a larger corpus; sentences longer than the model takes are left out)"
            )


def untrained(model: Seq2Seq, seed: int) -> Seq2Seq:
    """A model of the same shape with new random weights, in evaluation mode."""
    vocabularies = model.source_embedding.num_embeddings, model.target_embedding.num_embeddings
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Seq2Seq(model.config, *vocabularies).requires_grad_(False).eval()


def features(model: Seq2Seq, material: Material) -> Iterator[tuple[Task, Readout, list[_Features]]]:
    """For each task and readout, what each layer says about the task's items: arrays (items, H^L), the embedding first.

    The readout "last" is the layer's output at an item's last step; of a layer that reads both ways, the backward half is taken at
    the first step, where it has read the whole item too. "mean" is the mean from the first step to the last.
    """
    encoder = model.config.encoder
    widths = (model.config.embedding, *encoder.widths)
    forward = (widths[0], *(width // (1 + encoder.both_ways(i)) for i, width in enumerate(encoder.widths)))
    wanted = [(task, readout) for task in material.tasks for readout in READOUTS[task.level]]
    states = [[np.zeros((len(task.items), width), np.float32) for width in widths] for task, _ in wanted]
    texts = sorted({item.text for task in material.tasks for item in task.items})
    texts.sort(key=lambda text: len(material.sentences[text]))
    for start in range(0, len(texts), _BATCH):
        rows = {text: row for row, text in enumerate(texts[start : start + _BATCH])}
        grid = encoder_grid(model, *_padded([material.sentences[text] for text in rows]))
        for (task, readout), layers in zip(wanted, states, strict=True):
            here = [i for i, item in enumerate(task.items) if item.text in rows]
            items = [task.items[i] for i in here]
            where = torch.tensor([(rows[item.text], item.first, item.last) for item in items], dtype=torch.long)
            for layer, outputs, units in zip(layers, grid, forward, strict=True):
                layer[here] = _read(outputs, where.view(-1, 3), units if readout == "last" else None)
    for (task, readout), layers in zip(wanted, states, strict=True):
        yield task, readout, layers


def _read(outputs: Tensor, where: Tensor, forward: int | None) -> _Features:
    """Vectors (items, H) out of `outputs` (B, S, H) at `where` (items, 3): row, first and last step of each item.

    `forward` units are those at the last step, the others at the first; None stands for the mean of all steps.
    """
    row, first, last = where.unbind(1)
    if forward is not None:
        return torch.cat((outputs[row, last, :forward], outputs[row, first, forward:]), dim=1).numpy()
    sums = torch.nn.functional.pad(outputs.cumsum(1), (0, 0, 1, 0))  # (B, 1 + S, H), each of the steps before
    return ((sums[row, last + 1] - sums[row, first]) / (last + 1 - first)[:, None]).numpy()


def _padded(sentences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids (B, S), right-padded, and lengths (B,)."""
    lengths = torch.tensor([len(ids) for ids in sentences])
    ids = torch.full((len(sentences), int(lengths.max())), PAD)
    for row, sentence in enumerate(sentences):
        ids[row, : len(sentence)] = torch.tensor(sentence)
    return ids, lengths


def split_items(task: Task, seed: int) -> _Parts:
    """Numbers of the items for training, validation and test; all of a sentence are in the same part."""
    texts = sorted({item.text for item in task.items})
    random.Random(seed).shuffle(texts)
    ends = [round(share * len(texts)) for share in _SHARES]
    part = {text: int(np.searchsorted(ends, place, side="right")) for place, text in enumerate(texts)}
    of_item = np.array([part[item.text] for item in task.items], dtype=np.int64)
    training, validation, test = (np.flatnonzero(of_item == number) for number in range(3))
    return training, validation, test


def control_labels(task: Task, seed: int) -> list[str]:
    """A random answer for every item, the same wherever the item's form is the same, as frequent as the right answers are."""
    draw = random.Random(seed)
    pool = [item.label for item in task.items]
    drawn = {form: draw.choice(pool) for form in sorted({item.form for item in task.items})}
    return [drawn[item.form] for item in task.items]


def _probed(task: Task, readout: Readout, network: Network, states: list[_Features], seed: int, bar: Any) -> Probed:
    right = _numbers([item.label for item in task.items])
    accuracy: list[list[float]] = [[] for _ in states]
    control: list[list[float]] = [[] for _ in states]
    majority = []
    for split in range(seed, seed + SPLITS):
        parts = split_items(task, split)
        random_answers = _numbers(control_labels(task, split))
        majority.append(float((right[parts[2]] == np.bincount(right[parts[0]]).argmax()).mean()))
        for layer, values in enumerate(states):
            score, of_control = accuracies(values, right, random_answers, parts)
            accuracy[layer].append(score)
            control[layer].append(of_control)
            bar.update()
    return Probed(
        task.name,
        task.level,
        readout,
        network,
        len(task.items),
        tuple(map(tuple, accuracy)),
        tuple(map(tuple, control)),
        tuple(majority),
    )


def accuracies(values: _Features, right: _Labels, control: _Labels, parts: _Parts) -> tuple[float, float]:
    """Test accuracy of a probe of `values` (items, H), its penalty chosen on the validation items, and of the same on `control`."""
    training, validation, test = parts
    mean, deviation = values[training].mean(axis=0), values[training].std(axis=0)
    x = (values - mean) / np.where(deviation > 1e-6, deviation, 1.0)  # an unused unit stays zero
    probes = [_fit(x[training], right[training], penalty) for penalty in PENALTIES]
    scores = [float((one(x[validation]) == right[validation]).mean()) for one in probes]
    best = int(np.argmax(scores))  # of equals the most strictly penalised
    of_control = _fit(x[training], control[training], PENALTIES[best])
    return float((probes[best](x[test]) == right[test]).mean()), float((of_control(x[test]) == control[test]).mean())


def _fit(x: _Features, y: _Labels, penalty: float) -> Callable[[_Features], _Labels]:
    """A trained probe: features to answers."""
    if len(np.unique(y)) == 1:  # random answers to few forms may all be the same
        return lambda other: np.full(len(other), y[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the limit is part of the protocol, alike for every layer
        fitted = LogisticRegression(C=penalty, max_iter=ITERATIONS).fit(x, y)
    return lambda other: fitted.predict(other).astype(np.int64)


def _numbers(labels: Sequence[str]) -> _Labels:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
