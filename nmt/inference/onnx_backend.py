"""The ONNX Runtime backend: the route on CPUs. Imports no PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from nmt.errors import BundleError
from nmt.inference.backend import Encoded, Scores
from nmt.inference.bundle import WEIGHTS, Bundle
from nmt.inference.onnx_graph import NEVER, ModelGraphs
from nmt.inference.onnx_writer import Graph, product_graph
from nmt.inference.search import beam_search
from nmt.inference.shortlist import Shortlist
from nmt.inference.types import DecodeOptions, Precision
from nmt.inference.weights import Stored, int8_rows, read_stored, tied_names
from nmt.text.tokenizer import EOS, PAD

_OTHER = "{}: its tensors are not those of the model that config.yaml describes"
_KEPT = 1024  # steps after which the memory between them that is not in use is given back to the system
_MASKED = np.float32(-1e9)  # added to scores at padding

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class OnnxBackend:
    """A model for `RunningBatch` and the engine, run by ONNX Runtime."""

    joins = shows = True

    def __init__(self, graphs: ModelGraphs, threads: int = 1, shortlist: Shortlist | None = None) -> None:
        """`threads` work on one operation; with a `shortlist` sentences may be searched for within it."""
        self.vocabulary, self.attentions, self.rows = graphs.vocabulary, len(graphs.attentions), 320
        # Of the arrays of the memory, keys and values of each attention in turn, the axis of source steps.
        self.step_axes = (2 if graphs.config.attention == "additive" else 3, 2) * self.attentions
        self._encoder, self.step = (_session(graph, threads) for graph in (graphs.encoder(), graphs.step()))
        self.steps = 0  # of all running batches
        self.lists = None if shortlist is None else Lists(graphs, shortlist, threads)
        self.shortlist = shortlist is not None

    @classmethod
    def load(cls, bundle: Bundle, threads: int = 1, precision: Precision = "auto") -> OnnxBackend:
        """The backend of a bundle; `auto` computes in int8 where the bundle's matrices are stored in int8, else in fp32."""
        config, path = bundle.config.model, bundle.path / WEIGHTS
        weights = read_stored(path)
        if "output" in weights:
            weights |= dict.fromkeys(tied_names(config), weights["output"])
        if precision == "fp32":
            weights = {name: Stored(stored.floats()) for name, stored in weights.items()}
        elif precision == "int8":
            weights = {
                name: int8_rows(stored.floats()) if stored.values.ndim == 2 and stored.scales is None else stored
                for name, stored in weights.items()
            }
        try:
            shortlist = bundle.shortlist
            made = cls(ModelGraphs(config, weights, bundle.config.alignment, int8_is_exact()), threads, shortlist)
            sizes = len(weights["source_embedding.weight"].values), made.vocabulary
            beam_search(made, [[EOS]], DecodeOptions(beam_size=1, max_length_ratio=0.1, max_length_extra=1))
        except KeyError as error:
            raise BundleError(f"{path}: lacks {error}, which the model that config.yaml describes has") from None
        except Exception as error:
            if not (isinstance(error, ValueError | IndexError) or type(error).__module__.startswith("onnxruntime")):
                raise
            raise BundleError(f"{_OTHER.format(path)} ({str(error).strip().splitlines()[-1]})") from None
        if sizes != (len(bundle.source_tokenizer), len(bundle.target_tokenizer)):
            raise BundleError(
                f"{_OTHER.format(path)}: it has {sizes[0]} and {sizes[1]} subwords, the tokenizers others"
            )
        return made

    def encode(self, sentences: Sequence[Sequence[int]]) -> OnnxEncoded:
        """Run the encoder over sentences of ids, end marks included."""
        lengths = np.array([len(ids) for ids in sentences], np.int64)
        padded = np.full((int(lengths.max()), len(sentences)), PAD, np.int64)
        for column, ids in enumerate(sentences):
            padded[: len(ids), column] = ids
        found = self._encoder.run(None, {"ids": padded, "lengths": lengths})
        memory = 2 * self.attentions
        return OnnxEncoded(sentences, lengths, found[:memory], found[memory:])

    def running(self, beam: int, width: int, shortlist: bool = False) -> OnnxRows:
        """An empty running batch of `beam` rows a sentence, whose sources have up to `width` tokens, within the shortlist or not."""
        return OnnxRows(self, beam, width, self.lists if shortlist else None)


class Lists:
    """The shortlist of a model, the weights of what is on it, and the step that knows nothing else."""

    def __init__(self, graphs: ModelGraphs, shortlist: Shortlist, threads: int) -> None:
        self.shortlist = shortlist
        self._graphs, self._threads = graphs, threads
        stored = graphs.weights["output"]
        self._matrix = stored.values if stored.scales is None else (stored.values.view(np.uint8) ^ 128)  # 128 is zero
        self._scales, self._bias = stored.scales, graphs.values("output_bias")
        self.names = ["tail_matrix", "tail_bias", *(["tail_scales"] if stored.scales is not None else [])]

    @functools.cached_property
    def step(self) -> Any:
        """Its session, made when it is wanted first."""
        return _session(self._graphs.step(self.shortlist), self._threads)

    def tails(self, sentences: Sequence[Sequence[int]], width: int) -> tuple[Ints, list[NDArray[Any]]]:
        """The subwords (N, T) of the tails of sources, and their weights in the order of `names`."""
        ids = np.stack([self.shortlist.tail(ids, width) for ids in sentences])
        bias = np.where(ids == PAD, np.float32(NEVER), self._bias[ids])
        found = [self._matrix[ids], bias[:, :, None]]
        return ids, found if self._scales is None else [*found, self._scales[ids][:, :, None]]


@dataclass(frozen=True)
class OnnxEncoded:
    """Sentences that are encoded: keys and values of each attention in turn, and the parts of the state, a row each."""

    sentences: Sequence[Sequence[int]]
    lengths: Ints
    memory: list[Floats]
    state: list[Floats]


class OnnxRows:
    """The running batch: arrays with room for more than the N sentences of now. A step reads the state of one array and writes the other's;
    what is bound stays bound for as long as the same rows go on."""

    def __init__(self, backend: OnnxBackend, beam: int, width: int, lists: Lists | None) -> None:
        self._backend, self._beam, self._width, self._lists = backend, beam, width, lists
        self._session = backend.step if lists is None else lists.step
        self._names = [f"{kind}_{i}" for i in range(backend.attentions) for kind in ("keys", "values")]
        self._names += [] if lists is None else lists.names
        extra = len(self._names) - len(backend.step_axes)
        self._axes: list[int | None] = [*backend.step_axes, *[None] * extra]  # of source steps
        self._tails: Ints = np.zeros((0, 0), np.int64)  # the subwords (N, T) of each sentence's tail
        self._count = 0  # sentences
        self._mask: Floats = np.zeros((0, 1, 1, width), np.float32)
        self._memory: list[NDArray[Any]] = []  # by `_names`
        self._state: list[Floats] = []  # of the last step
        self._other: list[Floats] = []  # of the one before, to be overwritten
        self._filled = 0  # rows of the state
        self._rows: Ints = np.zeros(0, np.int64)  # of the state, to go on from
        self._bindings: dict[tuple[int, int, int, bool], _Bound] = {}

    def insert(self, encoded: Encoded) -> None:
        """Let the sentences join after those that are there."""
        assert isinstance(encoded, OnnxEncoded)
        begin, end = self._count, self._count + len(encoded.lengths)
        memory = list(encoded.memory)
        if self._lists is not None:
            tails, weights = self._lists.tails(encoded.sentences, self._width)
            memory += weights
            self._tails = np.concatenate((self._tails[:begin], tails)) if begin else tails
        if end > len(self._mask):
            self._grow(end, memory, encoded.state)
        self._mask[begin:end, 0, 0] = np.where(np.arange(self._width) < encoded.lengths[:, None], 0, _MASKED)
        for kept, new, axis in zip(self._memory, memory, self._axes, strict=True):
            if axis is None:
                kept[begin:end] = new
            else:
                kept[begin:end] = 0
                (kept[begin:end, :, : new.shape[2]] if axis == 2 else kept[begin:end, :, :, : new.shape[3]])[:] = new
        old = len(self._rows)
        for before, after, new in zip(self._state, self._other, encoded.state, strict=True):
            after[:old] = before[self._rows]
            after[old : end * self._beam] = np.repeat(new, self._beam, axis=0)
        self._state, self._other = self._other, self._state
        self._count, self._filled = end, end * self._beam
        self._rows = np.arange(self._filled)
        self._bindings.clear()

    def step(self, tokens: Ints, top: int, whole: bool = False, attention: bool = False) -> Scores:
        """Feed a token (N K,) to each row; the `top` best continuations of each."""
        key = (id(self._state), self._filled, top, whole)
        if key not in self._bindings:
            self._bindings[key] = self._bound(len(tokens), top, whole)
        bound = self._bindings[key]
        bound.tokens[:], bound.rows[:] = tokens, self._rows
        self._backend.steps += 1
        self._session.run_with_iobinding(bound.binding, _giving_back() if self._backend.steps % _KEPT == 0 else None)
        self._state, self._other = self._other, self._state
        if self._filled != len(tokens):
            self._filled = len(tokens)
            self._bindings.clear()
        self._rows = np.arange(len(tokens))
        log_p = bound.binding.get_outputs()[-1].numpy()[:, : self._backend.vocabulary].copy() if whole else None
        ids = bound.ids if self._lists is None else self._listed(bound.ids)
        return Scores(bound.best, ids, log_p, bound.attention if attention else None)

    def _listed(self, places: Ints) -> Ints:
        """The subwords at `places` (R, M) of the lists of their rows' sentences."""
        assert self._lists is not None
        head = self._lists.shortlist.head
        sentence = np.arange(len(places)) // self._beam
        return np.where(
            places < len(head),
            head[np.minimum(places, len(head) - 1)],
            self._tails[sentence[:, None], np.maximum(places - len(head), 0)],
        )

    def select(self, rows: Ints, sentences: Ints | None = None) -> None:
        """Keep these of the rows, in this order; where `sentences` is given, those alone stay, in that order."""
        self._rows = self._rows[rows]
        if sentences is not None:
            moved = np.flatnonzero(sentences != np.arange(len(sentences)))
            for array in (self._mask, *self._memory, *([self._tails] if self._lists else [])):
                array[moved] = array[sentences[moved]]
            self._count = len(sentences)
            self._bindings.clear()

    def _bound(self, rows: int, top: int, whole: bool) -> _Bound:
        """Everything of a step of so many rows bound to where it is and goes."""
        binding = self._session.io_binding()
        bound = _Bound(
            binding,
            tokens=np.zeros(rows, np.int64),
            rows=np.zeros(rows, np.int64),
            best=np.zeros((rows, top), np.float32),
            ids=np.zeros((rows, top), np.int64),
            attention=np.zeros((rows, self._width), np.float32),
        )
        inputs: dict[str, NDArray[Any]] = {
            "tokens": bound.tokens,
            "rows": bound.rows,
            "top": np.array([top], np.int64),
            "mask": self._mask[: self._count],
        }
        inputs |= {name: array[: self._count] for name, array in zip(self._names, self._memory, strict=True)}
        inputs |= {f"state_{i}": part[: self._filled] for i, part in enumerate(self._state)}
        outputs = {"best": bound.best, "ids": bound.ids, "attention": bound.attention} | {
            f"next_{i}": part[:rows] for i, part in enumerate(self._other)
        }
        for bind, arrays in ((binding.bind_ortvalue_input, inputs), (binding.bind_ortvalue_output, outputs)):
            for name, array in arrays.items():
                value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
                bound.alive.append(value)  # the binding knows its memory, not it
                bind(name, value)
        if whole:
            binding.bind_output("log_p", "cpu")
        return bound

    def _grow(self, needed: int, memory: Sequence[NDArray[Any]], state: Sequence[Floats]) -> None:
        room = max(needed, 2 * len(self._mask))
        shapes = [list(new.shape) for new in memory]
        for shape, axis in zip(shapes, self._axes, strict=True):
            shape[0] = room
            if axis is not None:
                shape[axis] = self._width
        arrays = [np.zeros([room, 1, 1, self._width], np.float32)]
        arrays += [np.zeros(shape, new.dtype) for shape, new in zip(shapes, memory, strict=True)]
        states = [[np.zeros((room * self._beam, new.shape[1]), np.float32) for new in state] for _ in range(2)]
        if self._count:
            for array, before in zip(arrays, (self._mask, *self._memory), strict=True):
                array[: self._count] = before[: self._count]
            for part, before in zip(states[0], self._state, strict=True):
                part[: self._filled] = before[: self._filled]
        self._mask, *self._memory = arrays
        self._state, self._other = states


@dataclass(frozen=True)
class _Bound:
    """A binding, the arrays that are written before a step and read after it, and what must live as long."""

    binding: Any
    tokens: Ints
    rows: Ints
    best: Floats
    ids: Ints
    attention: Floats
    alive: list[Any] = field(default_factory=list)


def _session(graph: Graph, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # errors are raised, and need not be printed as well
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if _shared_arena():
        options.add_session_config_entry("session.use_env_allocators", "1")
    if (
        not int8_is_exact()
    ):  # then such products are taken in another way, which is exact everywhere and half as fast with VNNI
        options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])


@functools.cache
def _giving_back() -> Any:
    """How to run a step after which the arena keeps nothing that is free, so that it doesn't grow with every new mixture of shapes."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


@functools.cache
def _shared_arena() -> bool:
    """Have one arena of memory for all sessions of the process, that grows by what is asked for instead of doubling."""
    info = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    config = onnxruntime.OrtArenaCfg({"arena_extend_strategy": 1})  # kSameAsRequested
    onnxruntime.create_and_register_allocator(info, config)
    return True


@functools.cache
def int8_is_exact() -> bool:
    """Whether this processor sums products of int8 without saturation: those of x86-64 without VNNI do not."""
    worst = product_graph(np.full((256, 16), 127, np.int8))
    session = onnxruntime.InferenceSession(worst.model, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {worst.inputs[0]: np.full((4, 256), 255, np.uint8)})
    return bool((found == 255 * 127 * 256).all())
