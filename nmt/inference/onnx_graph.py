"""A model as two ONNX graphs, made from the weights of its bundle when it is loaded: the encoder, and one step of the decoder.

The graphs compute what `nmt.model` computes in PyTorch; names of weights are those of its state dict. A matrix that is stored in int8
stays in int8: activations are quantised row by row, so a row's result does not depend on the rows beside it (one scale for a whole
batch, as ONNX Runtime's own dynamic quantisation has it, would let a neighbour change the answer).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import helper

from nmt.inference.onnx_parts import Parts
from nmt.inference.onnx_writer import FLOAT, INT64, UINT8, Graph, Writer
from nmt.inference.shortlist import Shortlist
from nmt.inference.types import AlignmentHead
from nmt.inference.weights import Stored
from nmt.model.config import ModelConfig, StackConfig
from nmt.text.tokenizer import PAD

_BLOCK = 64  # columns of the vocabulary whose maximum is taken first when the best are looked for
_TABLE = 64 << 20  # bytes of the table of the lowest layer's gates by word, at most
NEVER = -1e30  # a score of no probability, finite so that no difference of two is no number


class ModelGraphs(Parts):
    """The graphs of one model."""

    def __init__(
        self,
        config: ModelConfig,
        weights: dict[str, Stored],
        alignment: AlignmentHead | None = None,
        signed: bool = False,
    ) -> None:
        """`weights` by the names of the state dict, tied ones under each of their names; `alignment` is the head that is shown; `signed`
        says that sums of products of uint8 and int8 are exact."""
        scale = 1.0 if isinstance(config.init, float) else config.embedding**0.5  # as in `Seq2Seq`
        super().__init__(weights, scale)
        self.config = config
        self.vocabulary = len(weights["output"].values)
        self.attentions = {
            "gnmt": ["decoder.attention"],
            "deep": [f"decoder.cross.{i}.attention" for i in range(config.decoder.layers)],
            "luong": ["decoder.attention"],
            "bahdanau": ["decoder.attention"],
        }[config.wiring]
        self.alignment = alignment or AlignmentHead()
        self.shown = ""  # the weights (R, S) of that head
        self.signed = signed
        self.state_widths = [
            width
            for cell, width in zip(config.decoder.cells, config.decoder.widths, strict=True)
            for _ in range(2 if cell == "lstm" else 1)
        ]
        # The width of what the state holds beside the layers'.
        self.fed = config.embedding if config.wiring == "luong" else 0

    # --- the encoder ------------------------------------------------------------------------------------------------

    def encoder(self) -> Graph:
        """From `ids` (S, B) and `lengths` (B,): `keys_i` and `values_i` of every attention, `state_i` (B, H) of every part of the state.

        Keys are (B, A, H / A, S), for additive attention (B, A, S, H / A) as values are.
        """
        g = self.g = Writer()
        x = self.embedded("source_embedding.weight", "ids")  # (S, B, E)
        outputs = self._deep_encoder(x) if self.config.wiring == "deep" else self._stacked_encoder(x)
        results: dict[str, str] = {}
        for number, name in enumerate(self.attentions):
            both = self.linear(outputs, f"{name}.key_value")  # (S, B, 2 H)
            for kind, part in zip(("keys", "values"), g.ops("Split", 2, both, axis=-1, num_outputs=2), strict=True):
                shape = self.joined_shape(g.op("Shape", "ids"), g.ints(self.config.attention_heads, -1))
                heads = g.op("Reshape", part, shape)  # (S, B, A, d)
                turned = [1, 2, 3, 0] if kind == "keys" and self.config.attention != "additive" else [1, 2, 0, 3]
                results[f"{kind}_{number}"] = g.op("Transpose", heads, perm=turned)
        steps = g.op("Range", g.constant(np.array(0, np.int64)), self.size("ids", 0), g.constant(np.array(1, np.int64)))
        real = g.op("Cast", g.op("Less", g.op("Unsqueeze", steps, g.ints(1)), "lengths"), to=FLOAT)  # (S, B)
        total = g.op("ReduceSum", g.op("Mul", outputs, g.op("Unsqueeze", real, g.ints(2))), g.ints(0), keepdims=0)
        count = g.op("Unsqueeze", g.op("Cast", "lengths", to=FLOAT), g.ints(1))
        first = g.op("Tanh", self.linear(g.op("Div", total, count), "decoder.bridge.linear"))
        parts = g.ops("Split", len(self.state_widths), first, g.ints(*self.state_widths), axis=-1)
        results |= {f"state_{number}": part for number, part in enumerate(parts)}
        if self.fed:
            results[f"state_{len(parts)}"] = self.zeros(self.fed)
        return self._finished([("ids", INT64, ("S", "B")), ("lengths", INT64, ("B",))], results)

    def _finished(self, inputs: Sequence[tuple[str, int, Sequence[int | str]]], results: dict[str, str]) -> Graph:
        """The graph that was being written; nothing of it is kept here."""
        graph, self.g = self.g.finished(inputs, results), Writer()
        return graph

    def _deep_encoder(self, x: str) -> str:
        for i, width in enumerate(self.config.encoder.widths):
            name = f"encoder.recurrences.{i}"
            inputs = self.config.encoder.widths[i - 1] if i else self.config.embedding
            y = self._recurrent_layer(self.norm(x, f"{name}.norm"), f"{name}.layer", self.config.encoder, i)
            x = self.g.op("Add", self.shortcut(x, inputs, width, f"{name}.shortcut"), y)
            x = self.feed_forward(x, f"encoder.feed_forwards.{i}")
        return self.norm(x, "encoder.norm")

    def _stacked_encoder(self, x: str) -> str:
        stack = self.config.encoder
        for i, width in enumerate(stack.widths):
            below = self.norm(x, f"encoder.stack.norms.{i}") if stack.layer_norm and i else x
            y = self._recurrent_layer(below, f"encoder.stack.layers.{i}", stack, i)
            if i >= stack.first_residual:
                name = f"encoder.stack.shortcuts.{i - stack.first_residual}"
                y = self.g.op("Add", y, self.shortcut(x, stack.widths[i - 1], width, name))
            x = y
        return x

    def _recurrent_layer(self, x: str, name: str, stack: StackConfig, index: int) -> str:
        """Outputs (S, B, H) of a layer over all steps of `x` (S, B, inputs): products with the input at once, the rest in a loop."""
        g, cell, both = self.g, stack.cells[index], stack.both_ways(index)
        units = stack.widths[index] // (2 if both else 1)
        ways = ("forwards", "backwards") if both else ("forwards",)
        body = Writer(f"{name}.", g.constants)
        states: list[str] = []
        nexts: list[str] = []
        sequences, outputs = [], []
        for way in ways:
            gates = self.input_gates(x, cell, f"{name}.{way}", "_l0")
            sequences.append(
                g.op("ReverseSequence", gates, "lengths", time_axis=0, batch_axis=1) if way != "forwards" else gates
            )
            before = tuple(f"{name}.{way}_{part}" for part in ("hc" if cell == "lstm" else "h"))
            main, self.g = self.g, body
            after = self.cell(cell, f"{name}.{way}_gates", before, f"{name}.{way}", "_l0")
            outputs.append(body.op("Identity", after[0]))
            self.g = main
            states += before
            nexts += after
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            body.nodes,
            name,
            [info(each, FLOAT, None) for each in (*states, *(f"{name}.{way}_gates" for way in ways))],
            [info(each, FLOAT, None) for each in (*nexts, *outputs)],
        )
        results = g.ops(
            "Scan",
            len(nexts) + len(ways),
            *([self.zeros(units)] * len(states)),
            *sequences,
            body=graph,
            num_scan_inputs=len(ways),
        )[len(nexts) :]
        if not both:
            return results[0]
        backward = g.op("ReverseSequence", results[1], "lengths", time_axis=0, batch_axis=1)
        return g.op("Concat", results[0], backward, axis=-1)

    # --- the decoder ------------------------------------------------------------------------------------------------

    def step(self, shortlist: Shortlist | None = None) -> Graph:
        """One step of R rows, K of each of N sentences.

        From `tokens` (R,), `rows` (R,) of the state to go on from, `top` (1,) and `mask` (N, 1, 1, S), 0 at real tokens and far below at
        padding, beside keys, values and state as the encoder gives them: `log_p` (R, V), the `top` best of each row as `best` and `ids`
        (R, top), the weights of the head that is shown as `attention` (R, S), and the next state. V is rounded up; what is beyond the
        vocabulary has no probability.

        With a `shortlist` V are its head and the T subwords of each sentence's tail, of which more inputs say what weights they have:
        `tail_matrix` (N, T, E), in uint8 with 128 for zero where `output` is int8, then also `tail_scales` (N, T, 1), and `tail_bias`
        (N, T, 1).
        """
        g = self.g = Writer()
        names = [f"state_{i}" for i in range(len(self.state_widths) + bool(self.fed))]
        state = [g.op("Gather", name, "rows", axis=0) for name in names]
        word = self.embedded("target_embedding.weight", "tokens")  # (R, E)
        vector, after = {
            "gnmt": self._gnmt_step,
            "deep": self._deep_step,
            "luong": self._luong_step,
            "bahdanau": self._bahdanau_step,
        }[self.config.wiring](word, state)
        log_p = g.op("LogSoftmax", self._listed(vector, shortlist) if shortlist else self._logits(vector), axis=-1)
        best, ids = self._best(log_p, None if shortlist else self.vocabulary)
        results = {"log_p": log_p, "best": best, "ids": ids, "attention": self.shown} | {
            f"next_{i}": each for i, each in enumerate(after)
        }
        widths = [*self.state_widths, *([self.fed] if self.fed else [])]
        inputs: list[tuple[str, int, Sequence[int | str]]] = [
            ("tokens", INT64, ("R",)),
            ("rows", INT64, ("R",)),
            ("top", INT64, (1,)),
            ("mask", FLOAT, ("N", 1, 1, "S")),
        ]
        for number in range(len(self.attentions)):
            inputs += [(f"{kind}_{number}", FLOAT, ("N", "A", f"{kind}_1", f"{kind}_2")) for kind in ("keys", "values")]
        inputs += [(name, FLOAT, ("P", width)) for name, width in zip(names, widths, strict=True)]
        if shortlist:
            int8 = self.weights["output"].scales is not None
            inputs.append(("tail_matrix", UINT8 if int8 else FLOAT, ("N", "T", self.config.embedding)))
            inputs += [(f"tail_{part}", FLOAT, ("N", "T", 1)) for part in ("bias", *(("scales",) if int8 else ()))]
        return self._finished(inputs, results)

    def _deep_step(self, x: str, state: list[str]) -> tuple[str, list[str]]:
        g, stack = self.g, self.config.decoder
        after: list[str] = []
        places = self._places()
        for i, width in enumerate(stack.widths):
            name = f"decoder.recurrences.{i}"
            inputs = stack.widths[i - 1] if i else self.config.embedding
            gates = self._word_gates(f"{name}.layer.forwards", f"{name}.norm") if i == 0 else None
            below = "" if gates else self.norm(x, f"{name}.norm")
            final = self._one_step(below, i, [state[p] for p in places[i]], f"{name}.layer.forwards", "_l0", gates)
            x = g.op("Add", self.shortcut(x, inputs, width, f"{name}.shortcut"), final[0])
            cross = f"decoder.cross.{i}"
            context = self._attend(self.norm(x, f"{cross}.norm"), i)
            x = g.op("Add", x, self.linear(context, f"{cross}.mix"))
            x = self.feed_forward(x, f"decoder.feed_forwards.{i}")
            after += final
        return self.linear(self.norm(x, "decoder.norm"), "decoder.combine"), after

    def _gnmt_step(self, x: str, state: list[str]) -> tuple[str, list[str]]:
        g, stack = self.g, self.config.decoder
        places = self._places()
        first = "decoder.layers.0.forwards"
        after = list(self._one_step(x, 0, [state[p] for p in places[0]], first, "_l0", self._word_gates(first)))
        x = after[0]
        context = self._attend(x, 0)
        for i in range(1, stack.layers):
            below = self.norm(x, f"decoder.norms.{i - 1}") if stack.layer_norm else x
            below = g.op("Concat", below, context, axis=-1)
            final = self._one_step(below, i, [state[p] for p in places[i]], f"decoder.layers.{i}.forwards", "_l0")
            x = self._with_shortcut(final[0], x, i)
            after += final
        return g.op("Tanh", self.linear(g.op("Concat", x, context, axis=-1), "decoder.combine")), after

    def _luong_step(self, word: str, state: list[str]) -> tuple[str, list[str]]:
        g = self.g
        top, after = self._climb(g.op("Concat", word, state[-1], axis=-1), state)
        joined = g.op("Concat", self._attend(top, 0), top, axis=-1)
        vector = g.op("Tanh", self.linear(joined, "decoder.combine"))
        return vector, [*after, vector]

    def _bahdanau_step(self, word: str, state: list[str]) -> tuple[str, list[str]]:
        g = self.g
        context = self._attend(state[self._places()[-1][0]], 0)
        top, after = self._climb(g.op("Concat", word, context, axis=-1), state)
        pairs = self.linear(g.op("Concat", top, word, context, axis=-1), "decoder.readout")
        pairs = g.op("Reshape", pairs, g.ints(0, self.config.embedding, 2))
        return g.op("ReduceMax", pairs, g.ints(2), keepdims=0), after

    def _one_step(
        self, x: str, index: int, before: list[str], name: str, suffix: str, gates: str | None = None
    ) -> tuple[str, ...]:
        """The state of a layer after one step, from its input, or from the `gates` that come of it."""
        cell = self.config.decoder.cells[index]
        return self.cell(cell, gates or self.input_gates(x, cell, name, suffix), tuple(before), name, suffix)

    def _word_gates(self, name: str, norm: str = "") -> str | None:
        """W x of the lowest layer, whose input is the word alone, out of a table with a row for each; None where that would be large."""
        words = self.values("target_embedding.weight") * np.float32(self.scale)
        matrix = self.values(f"{name}.weight_ih_l0")
        if 4 * len(words) * len(matrix) > _TABLE:
            return None
        if norm:
            mean, variance = words.mean(axis=1, keepdims=True), words.var(axis=1, keepdims=True)
            words = (words - mean) / np.sqrt(variance + 1e-5) * self.values(f"{norm}.weight") + self.values(
                f"{norm}.bias"
            )
        table = words @ matrix.T
        if (bias := self.input_bias(self.config.decoder.cells[0], name, "_l0")) is not None:
            table += bias
        half = self.weights["output"].scales is not None  # nobody sees the difference beside int8
        kept = self.g.constant(table.astype(np.float16 if half else np.float32), f"{name}.of_words")
        rows = self.g.op("Gather", kept, "tokens", axis=0)
        return self.g.op("Cast", rows, to=FLOAT) if half else rows

    def _climb(self, x: str, state: list[str]) -> tuple[str, list[str]]:
        after: list[str] = []
        for i, places in enumerate(self._places()):
            below = self.norm(x, f"decoder.norms.{i - 1}") if i and self.config.decoder.layer_norm else x
            final = self._one_step(below, i, [state[p] for p in places], f"decoder.cells.{i}", "")
            x = self._with_shortcut(final[0], x, i)
            after += final
        return x, after

    def _places(self) -> list[list[int]]:
        """Where in the state each layer's parts are."""
        places, begin = [], 0
        for cell in self.config.decoder.cells:
            parts = 2 if cell == "lstm" else 1
            places.append(list(range(begin, begin + parts)))
            begin += parts
        return places

    def _with_shortcut(self, output: str, x: str, index: int) -> str:
        stack = self.config.decoder
        if index < stack.first_residual:
            return output
        name = f"decoder.shortcuts.{index - stack.first_residual}"
        return self.g.op("Add", output, self.shortcut(x, stack.widths[index - 1], stack.widths[index], name))

    def _attend(self, query: str, number: int) -> str:
        """The context (R, H) of `query` (R, H); the K rows of a sentence share its keys and values."""
        g, config, name = self.g, self.config, self.attentions[number]
        heads = config.attention_heads
        width = len(self.weights[f"{name}.query.weight"].values)
        sentences = g.op("Shape", "mask", start=0, end=1)
        query = g.op(
            "Reshape",
            self.linear(query, f"{name}.query"),
            self.joined_shape(sentences, g.ints(-1, heads, width // heads)),
        )
        query = g.op("Transpose", query, perm=[0, 2, 1, 3])  # (N, A, K, d)
        if config.attention == "additive":
            scores = self._additive_scores(query, f"keys_{number}", name)
        else:
            scores = g.op("MatMul", query, f"keys_{number}")  # (N, A, K, S)
            if config.attention == "scaled_dot":
                scores = g.op("Mul", scores, g.number((width // heads) ** -0.5))
        weights = g.op("Softmax", g.op("Add", scores, "mask"), axis=-1)
        if number == self.alignment.layer % len(self.attentions):
            self.shown = self._shown(weights)
        context = g.op("Transpose", g.op("MatMul", weights, f"values_{number}"), perm=[0, 2, 1, 3])
        return g.op("Reshape", context, g.ints(-1, width))

    def _shown(self, weights: str) -> str:
        """One head of attention weights (N, A, K, S), or their mean, as (R, S)."""
        g, head = self.g, self.alignment.head
        one = (
            g.op("ReduceMean", weights, g.ints(1), keepdims=0)
            if head is None
            else g.op("Gather", weights, g.constant(np.array(head, np.int64), "head"), axis=1)
        )  # (N, K, S)
        steps = g.op("Shape", "mask", start=3, end=4)
        return g.op("Reshape", one, self.joined_shape(g.ints(-1), steps))

    def _additive_scores(self, query: str, keys: str, name: str) -> str:
        g = self.g
        gain, v, bias = (self.values(f"{name}.{part}") for part in ("gain", "v", "bias"))
        direction = v * (gain / np.linalg.norm(v, axis=-1))[:, None]  # (A, d)
        query = g.op("Add", query, g.constant(bias[:, None]))
        hidden = g.op(
            "Tanh", g.op("Add", g.op("Unsqueeze", query, g.ints(3)), g.op("Unsqueeze", keys, g.ints(2)))
        )  # (N, A, K, S, d)
        product = g.op("MatMul", hidden, g.constant(direction[:, None, :, None].astype(np.float32)))  # (N, A, K, S, 1)
        return g.op("Squeeze", product, g.ints(4))

    @property
    def _bounded(self) -> bool:
        """Whether the vectors that meet the vocabulary come out of a tanh."""
        return self.config.wiring in ("gnmt", "luong")

    def _logits(self, vector: str) -> str:
        stored = self.weights["output"]
        extra = -self.vocabulary % _BLOCK
        bias = np.concatenate((self.values("output_bias"), np.full(extra, NEVER, np.float32)))
        values = np.pad(stored.values, ((0, extra), (0, 0)))
        scales = None if stored.scales is None else np.pad(stored.scales, (0, extra))
        return self.product(vector, "output", Stored(values, scales), bias, self._bounded)

    def _listed(self, vector: str, shortlist: Shortlist) -> str:
        """The logits of the head of the shortlist, and of the tail of each row's sentence."""
        g, stored, head = self.g, self.weights["output"], shortlist.head
        some = Stored(stored.values[head], None if stored.scales is None else stored.scales[head])
        bias = np.where(head == PAD, np.float32(NEVER), self.values("output_bias")[head])
        of_head = self.product(vector, "output.head", some, bias, self._bounded)
        shape = self.joined_shape(g.op("Shape", "mask", start=0, end=1), g.ints(-1, self.config.embedding))

        def columns(x: str) -> str:
            """`x` (R, E) as (N, E, K): few columns beside a matrix that is read once."""
            return g.op("Transpose", g.op("Reshape", x, shape), perm=[0, 2, 1])

        if stored.scales is None:
            of_tail = g.op("MatMul", "tail_matrix", columns(vector))
        else:
            # What is not signed is exact everywhere, what is signed only where such products don't saturate, and twice as fast there.
            rounded, largest = self.quantised(vector, self._bounded, signed=self.signed)
            zero = g.constant(np.array(128, np.uint8), "zero_point")
            zeros = [zero] if self.signed else [zero, zero]
            whole = g.op("MatMulInteger", "tail_matrix", columns(rounded), *zeros)
            of_tail = g.op("Mul", g.op("Cast", whole, to=FLOAT), g.op("Mul", "tail_scales", g.number(1 / 127)))
            if largest:
                one = self.joined_shape(g.op("Shape", "mask", start=0, end=1), g.ints(1, -1))
                of_tail = g.op("Mul", of_tail, g.op("Reshape", largest, one))
        of_tail = g.op("Transpose", g.op("Add", of_tail, "tail_bias"), perm=[0, 2, 1])  # (N, K, T)
        steps = g.op("Shape", "tail_bias", start=1, end=2)
        return g.op("Concat", of_head, g.op("Reshape", of_tail, self.joined_shape(g.ints(-1), steps)), axis=-1)

    def _best(self, log_p: str, words: int | None) -> tuple[str, str]:
        """The `top` best of each row: first the blocks that hold them, by their maxima, then the best in those; `words` is how many there
        are, where that is known."""
        g = self.g
        rows = g.op("Reshape", log_p, g.ints(0, -1, _BLOCK))
        most = g.op("ReduceMax", rows, g.ints(2), keepdims=0)  # (R, blocks)
        blocks = g.op("Shape", most, start=1, end=2) if words is None else g.ints(-(-words // _BLOCK))
        fewer = g.op("Min", "top", blocks)
        _, chosen = g.ops("TopK", 2, most, fewer, axis=-1)  # (R, k)
        inside = g.op("GatherND", rows, g.op("Unsqueeze", chosen, g.ints(2)), batch_dims=1)  # (R, k, 64)
        best, where = g.ops("TopK", 2, g.op("Reshape", inside, g.ints(0, -1)), "top", axis=-1)
        block = g.op("GatherElements", chosen, g.op("Div", where, g.ints(_BLOCK)), axis=1)
        ids = g.op("Add", g.op("Mul", block, g.ints(_BLOCK)), g.op("Mod", where, g.ints(_BLOCK)))
        return best, ids
