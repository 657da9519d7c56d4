"""The PyTorch backend: the reference, and the route on GPUs."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt.errors import BundleError
from nmt.inference.backend import Ints, Scores
from nmt.inference.bundle import WEIGHTS, Bundle
from nmt.inference.types import AlignmentHead
from nmt.inference.weights import read_stored, tied_names
from nmt.model.attention import Attention
from nmt.model.capture import recorded
from nmt.model.seq2seq import Seq2Seq
from nmt.text.tokenizer import PAD

Floats = NDArray[np.float32]

_ROWS = {"cpu": 320, "cuda": 4096}


class Value(Protocol):
    """A value with a row for each sentence or hypothesis of a batch."""

    def select(self, rows: Tensor) -> Self:
        """The value of `rows` (N,) of the batch, in that order; a row may be repeated or left out."""

    def joined(self, other: Self) -> Self:
        """The rows of both, one after the other."""


S = TypeVar("S", bound=Value)
M = TypeVar("M", bound="EncodedValue[Any]")
State_co = TypeVar("State_co", bound=Value, covariant=True)


class EncodedValue(Value, Protocol[State_co]):
    """What encoding leaves for decoding: `nmt.model.decoder.Memory`, or as much of it as search must know."""

    @property
    def state(self) -> State_co:
        """The state before the first target step."""

    def widened(self, steps: int) -> Self:
        """The same with room for so many source steps."""


class TranslationModel(Protocol[M, S]):
    """All that search knows of a model in PyTorch: `Seq2Seq` is one, an `Ensemble` of them another."""

    @property
    def device(self) -> torch.device:
        """Where source and target ids are expected."""

    @property
    def vocabulary(self) -> int:
        """Target tokens."""

    @property
    def steady(self) -> bool:
        """Whether the state has one size at every step."""

    def attentions(self) -> Sequence[Sequence[Attention]]:
        """Those of each member, lowest first; none of a model that has none to show."""

    def eval(self) -> Self:
        """Turn off what only training has, such as dropout."""

    def encode(self, source: Tensor, lengths: Tensor) -> M:
        """Encode `source` ids (B, S), right-padded, of `lengths` (B,), end marks included."""

    def decode(self, target: Tensor, memory: M, state: S) -> tuple[Tensor, S]:
        """Logits (B, T, V) after each of the `target` ids (B, T), and the state after the last."""


class TorchBackend:
    """A model in PyTorch for `RunningBatch` and the engine."""

    shortlist = False

    def __init__(self, model: TranslationModel[Any, Any], alignments: Sequence[AlignmentHead | None] = ()) -> None:
        """`alignments` are the heads that are shown, one for each member of an ensemble."""
        self.model = model.eval()
        self._shown = [
            (layers[head.layer], head.head)
            for layers, given in itertools.zip_longest(model.attentions(), alignments)
            if layers and (head := given or AlignmentHead())
        ]
        self.shows = bool(self._shown)
        self.vocabulary, self.rows = model.vocabulary, _ROWS[model.device.type]
        self.joins = model.steady
        self._threads = torch.get_num_threads()

    def encode(self, sentences: Sequence[Sequence[int]]) -> Any:
        """Run the encoder over sentences of ids, end marks included; a `Memory`."""
        torch.set_num_threads(self._threads)  # which every thread has for itself
        lengths = torch.tensor([len(ids) for ids in sentences])
        padded = torch.full((len(sentences), int(lengths.max())), PAD)
        for row, ids in enumerate(sentences):
            padded[row, : len(ids)] = torch.tensor(ids)
        with torch.inference_mode():
            return self.model.encode(padded.to(self.model.device), lengths.to(self.model.device))

    def running(self, beam: int, width: int, shortlist: bool = False) -> TorchRows:
        """An empty running batch of `beam` rows a sentence, whose sources have up to `width` tokens."""
        assert not shortlist
        return TorchRows(self, beam, width)

    @contextlib.contextmanager
    def watched(self) -> Iterator[Callable[[], Floats]]:
        """While it is open the model runs one step of R rows; the callable then gives the weights (R, S) of the heads that are shown, the
        mean of an ensemble's members."""
        with recorded(attention for attention, _ in self._shown) as calls:

            def weights() -> Floats:
                found = []
                for attention, head in self._shown:
                    query, key, _, mask = calls[attention][-1].arguments
                    found.append(attention.weights(query, key, mask, head)[:, -1].float())
                return torch.stack(found).mean(dim=0).cpu().numpy()

            yield weights


class TorchRows:
    """The running batch: memory and state of N K rows."""

    def __init__(self, backend: TorchBackend, beam: int, width: int) -> None:
        self._backend, self._model, self._beam, self._width = backend, backend.model, beam, width
        self._memory: Any = None
        self._state: Any = None

    def insert(self, encoded: Any) -> None:
        """Let encoded sentences join after those that are there."""
        with torch.inference_mode():
            device = self._model.device
            rows = torch.arange(len(encoded.mask), device=device).repeat_interleave(self._beam)
            new = encoded.widened(self._width).select(rows)
            first = self._memory is None
            self._memory = new if first else self._memory.joined(new)
            self._state = new.state if first else self._state.joined(new.state)

    def step(self, tokens: Ints, top: int, whole: bool = False, attention: bool = False) -> Scores:
        """Feed a token (N K,) to each row; the `top` best continuations of each."""
        watched = self._backend.watched() if attention else contextlib.nullcontext()
        with torch.inference_mode(), watched as weights:
            device = self._model.device
            logits, self._state = self._model.decode(
                torch.from_numpy(tokens)[:, None].to(device), self._memory, self._state
            )
            log_p = torch.log_softmax(logits[:, 0].float(), dim=-1)  # (N K, V)
            best, ids = log_p.topk(top, dim=-1)
            all_words = log_p.cpu().numpy() if whole else None
            return Scores(best.cpu().numpy(), ids.cpu().numpy(), all_words, weights() if weights else None)

    def select(self, rows: Ints, sentences: Ints | None = None) -> None:
        """Keep these of the rows, in this order; where `sentences` is given, those alone stay, in that order."""
        with torch.inference_mode():
            which = torch.from_numpy(rows).to(self._model.device)
            self._state = self._state.select(which)
            if sentences is not None:
                self._memory = self._memory.select(which)


_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_model(bundle: Bundle, threads: int | None = None, device: str = "cpu", precision: str = "fp32") -> Seq2Seq:
    """The bundle's model in fp32, bf16 or fp16, ready to search; `threads` sets PyTorch's for the whole process."""
    if threads is not None:
        torch.set_num_threads(threads)
    with torch.device("meta"):
        model = Seq2Seq(bundle.config.model, len(bundle.source_tokenizer), len(bundle.target_tokenizer))
    tensors = read_weights(bundle.path / WEIGHTS)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if expected != {name: tuple(value.shape) for name, value in with_ties(model, tensors).items()}:
        raise BundleError(f"{bundle.path / WEIGHTS}: its tensors are not those of the model that config.yaml describes")
    model.load_state_dict(with_ties(model, tensors), assign=True)
    retie(model)
    return model.requires_grad_(False).to(device, _DTYPES[precision]).eval()


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of weights, in fp32; raise `BundleError` naming a damaged file."""
    return {name: torch.from_numpy(stored.floats()) for name, stored in read_stored(path).items()}


def without_ties(model: Seq2Seq, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`tensors` of a state dict without the second and third names of tied weights: what is worth storing."""
    return {name: value for name, value in tensors.items() if name not in tied_names(model.config)}


def with_ties(model: Seq2Seq, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict with the names that `without_ties` left out."""
    table = tensors.get("output")
    return tensors | (dict.fromkeys(tied_names(model.config), table) if table is not None else {})


def retie(model: Seq2Seq) -> None:
    """Make tied weights one parameter again after loading."""
    if model.config.tie_embeddings != "none":
        model.target_embedding.weight = model.output
    if model.config.tie_embeddings == "all":
        model.source_embedding = model.target_embedding
