"""What tests are made of: a tiny corpus, tiny models, a tiny training run. Plain functions; each test says what it uses."""

from __future__ import annotations

import contextlib
import json
import random
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import nmt.config
from nmt.corpus.prepare import prepare
from nmt.corpus.recipe import Recipe
from nmt.inference import search
from nmt.inference.bundle import ModelInfo
from nmt.inference.onnx_backend import OnnxBackend
from nmt.inference.onnx_graph import ModelGraphs
from nmt.inference.search import Candidate
from nmt.inference.torch_backend import TorchBackend
from nmt.inference.types import DecodeOptions
from nmt.inference.weights import Stored, int8_rows
from nmt.model.attention import Attention
from nmt.model.config import ModelConfig
from nmt.model.decoder import DecoderState, Memory
from nmt.model.seq2seq import Seq2Seq
from nmt.text.tokenizer import EOS
from nmt.training.checkpoint import Checkpoints
from nmt.training.config import RunConfig
from nmt.training.trainer import Trainer

_NOUNS = {
    "cat": "Katze",
    "dog": "Hund",
    "bird": "Vogel",
    "fish": "Fisch",
    "tree": "Baum",
    "house": "Haus",
    "river": "Fluss",
}
_ADJECTIVES = {"red": "rot", "blue": "blau", "small": "klein", "large": "gross", "old": "alt", "new": "neu"}
_VERBS = {"sees": "sieht", "finds": "findet", "loves": "liebt", "has": "hat"}


def sentence_pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """`count` distinct pairs of an invented language, word for word, of 5 to 11 words."""
    rng = random.Random(seed)
    pairs: dict[str, str] = {}
    while len(pairs) < count:
        source, target = [], []
        for position in range(2):
            adjectives = rng.sample(sorted(_ADJECTIVES), rng.randint(0, 2))
            noun = rng.choice(sorted(_NOUNS))
            source += ["the", *adjectives, noun]
            target += ["das", *(_ADJECTIVES[word] for word in adjectives), _NOUNS[noun]]
            if position == 0:
                verb = rng.choice(sorted(_VERBS))
                source.append(verb)
                target.append(_VERBS[verb])
        pairs[" ".join(source) + "."] = " ".join(target) + "."
    return list(pairs.items())


def write_files(folder: Path, name: str, pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Write `pairs` as two parallel text files; return them as a source of a recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for side, language in enumerate(("en", "de")):
        path = folder / f"{name}.{language}"
        path.write_text("".join(f"{pair[side]}\n" for pair in pairs), encoding="utf-8")
        paths.append(str(path))
    return {"files": paths}


def prepared(folder: Path, joint: bool = True) -> Path:
    """A corpus of 300 training, 12 validation and 12 test pairs, prepared in `folder`."""
    pairs = sentence_pairs(324, seed=7)
    data = {
        "name": "tiny",
        "source_language": "en",
        "target_language": "de",
        "train": [write_files(folder / "text", "train", pairs[:300])],
        "validation": [write_files(folder / "text", "validation", pairs[300:312])],
        "test": [write_files(folder / "text", "test", pairs[312:])],
        "tokenizer": {"vocab_size": 90, "joint": joint},
        "cleaning": {"max_tokens": 60},
    }
    prepare(nmt.config.parse(Recipe, data, "tiny recipe"), folder / "corpus")
    return folder / "corpus"


def model_config(*overrides: str) -> ModelConfig:
    """A model of 2 layers of 8 units on each side, without dropout, changed by `overrides` such as `decoder.layers=1`."""
    data = {
        "embedding": 6,
        "encoder": {"layers": 2, "hidden": 8},
        "decoder": {"layers": 2, "hidden": 8},
        "attention_heads": 2,
        "dropout": {"embedding": 0.0, "layer": 0.0, "output": 0.0},
    }
    return nmt.config.parse(ModelConfig, nmt.config.apply_overrides(data, overrides), "tiny model")


def model(config: ModelConfig | None = None, vocabulary: int = 40, seed: int = 0, sharpness: float = 1.0) -> Seq2Seq:
    """A random model in evaluation mode; `sharpness` multiplies its weights, so that its choices become decided."""
    torch.set_num_threads(1)  # on tensors this small more threads only wait for each other
    torch.manual_seed(seed)
    made = Seq2Seq(config or model_config(), vocabulary, vocabulary).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.mul_(sharpness)
    return made


def check_steps(model: Seq2Seq, source: tuple[Tensor, Tensor], target: Tensor) -> None:
    """Assert that decoding `target` (B, T) at once gives the logits and the state of one step at a time."""
    memory = model.encode(*source)
    together, end = model.decode(target, memory, memory.state)
    assert together.shape == (*target.shape, len(model.output_bias))
    state = memory.state
    for step in range(target.shape[1]):
        logits, state = model.decode(target[:, step : step + 1], memory, state)
        torch.testing.assert_close(logits[:, 0], together[:, step])
    for one, many in zip(state.layers, end.layers, strict=True):
        for part, whole in zip(one, many, strict=True):
            torch.testing.assert_close(part, whole)


def info(source: str = "en", target: str = "de") -> ModelInfo:
    """What is said of a tiny model."""
    return ModelInfo("tiny", source, target, "", 0, "", [], "")


def run_config(corpus: Path, run: Path, *overrides: str) -> RunConfig:
    """A run of 12 steps of a tiny model with every kind of dropout on one thread, changed by `overrides`."""
    data = {
        "corpus": str(corpus),
        "run": str(run),
        "model": {
            "embedding": 6,
            "encoder": {"layers": 2, "hidden": 8},
            "decoder": {"layers": 2, "hidden": 8},
            "attention_heads": 2,
            "dropout": {"embedding": 0.1, "layer": 0.1, "output": 0.1, "word": 0.1},
        },
        "optimizer": {"lr": 0.01, "warmup_steps": 4, "ema_decay": 0.9},
        "train": {
            "max_steps": 12,
            "batch_tokens": 512,
            "precision": "fp32",
            "device": "cpu",
            "threads": 1,
            "log_every": 1,
            "save_every": 5,
        },
        "validation": {"every": 6, "sentences": 2},
    }
    return nmt.config.parse(RunConfig, nmt.config.apply_overrides(data, overrides), "tiny run")


def trained(corpus: Path, run: Path, *overrides: str) -> Path:
    """Train as `run_config` says, from where the run folder stands; return that folder."""
    Trainer(run_config(corpus, run, *overrides)).run()
    return run


def last_checkpoint(run: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of the last checkpoint of a run."""
    checkpoints = Checkpoints(run, keep=1)
    return checkpoints.load(checkpoints.steps()[-1])


def records(run: Path, kind: str = "train") -> list[dict[str, Any]]:
    """The records of one kind in the log of a run, without what a clock has measured."""
    found = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").split("\n") if line]
    timed = ("tokens_per_second", "seconds", "memory_gb")
    return [{key: value for key, value in item.items() if key not in timed} for item in found if item["kind"] == kind]


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, which writers meet as they meet a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class CopyModel(nn.Module):
    """A stand-in for a trained model behind the same boundary: its translation of a sentence is that sentence."""

    steady = True

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.output_bias = nn.Parameter(torch.zeros(vocabulary), requires_grad=False)

    @property
    def device(self) -> torch.device:
        """Where ids are expected."""
        return self.output_bias.device

    @property
    def vocabulary(self) -> int:
        """Target tokens."""
        return len(self.output_bias)

    def attentions(self) -> list[list[Attention]]:
        """None to show."""
        return [[]]

    def encode(self, source: Tensor, lengths: Tensor) -> Memory:
        """The source ids (B, S) are the memory, the position in them is the state."""
        mask = torch.arange(source.shape[1]) < lengths[:, None]
        start = DecoderState(((torch.zeros(len(source), 1, dtype=torch.long),),))
        kept = source[:, None, :, None]
        return Memory((kept,), (kept,), mask, start)

    def decode(self, target: Tensor, memory: Memory, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Logits (B, 1, V) that all but make sure of the next source id."""
        position = state.layers[0][0]
        last = memory.mask.sum(1, keepdim=True) - 1
        chosen = memory.keys[0][:, 0, :, 0].gather(1, torch.minimum(position, last))  # (B, 1)
        chosen = torch.where(position > last, EOS, chosen)
        logits = torch.zeros(len(target), 1, len(self.output_bias)).scatter_(2, chosen[:, :, None], 20.0)
        return logits, DecoderState(((position + 1,),))


def onnx_backend(model: Seq2Seq, int8: bool = False) -> OnnxBackend:
    """The model run by ONNX Runtime, its matrices rounded to int8 where that is wanted."""
    weights = {name: Stored(value.numpy()) for name, value in model.state_dict().items()}
    if int8:
        for name, stored in weights.items():
            if stored.values.ndim == 2 and min(stored.values.shape) > 1:
                weights[name] = int8_rows(stored.values)
    return OnnxBackend(ModelGraphs(model.config, weights))


def beam_search(model: Any, source: list[list[int]], options: DecodeOptions, *cancelled: Any) -> list[list[Candidate]]:
    """Search with a model in PyTorch, all sentences in one batch."""
    return search.beam_search(TorchBackend(model), source, options, *cancelled)
