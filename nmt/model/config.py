"""The shape of a model, as written in a training configuration and in a bundle."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, StrictBool, model_validator

from nmt.config import Section, expected, merge
from nmt.model.presets import PRESETS

Cell = Literal["lstm", "gru", "rnn", "rnn_relu", "gru_before"]
Wiring = Literal["gnmt", "deep", "luong", "bahdanau"]
Initialisation = Literal["orthogonal", "uniform"] | Annotated[float, Field(gt=0, le=1)]


_A_LAYER = "or a list with one for each layer"
Widths = Annotated[int | tuple[int, ...], expected(f"a whole number, {_A_LAYER}")]
Cells = Annotated[Cell | tuple[Cell, ...], expected(f"one of {', '.join(get_args(Cell))}, {_A_LAYER}")]
Directions = Annotated[
    Literal["none", "first", "all"] | tuple[bool, ...], expected(f"none, first, all, {_A_LAYER} (true or false)")
]
Residual = Annotated[
    StrictBool | Annotated[int, Field(strict=True, ge=2)],
    expected("true, false, or the number of the first residual layer, which is 2 at least"),
]


class StackConfig(Section):
    """A stack of recurrent layers. Width, cell and direction are one value for all layers or a list with one value a layer."""

    layers: int = Field(2, ge=1, le=64)
    hidden: Widths = Field(512, description="width of a layer's output; both directions together")
    cell: Cells = Field(
        "lstm",
        description="gru_before: reset before the matrix product, in a loop over time; the others run on fused kernels",
    )
    bidirectional: Directions = Field("none", description="which layers read both ways")
    residual: Residual = Field(
        True, description="add a layer's input to its output from the second layer on, or from the layer of this number"
    )
    layer_norm: bool = Field(False, description="normalise a layer's input (pre-LN)")

    @model_validator(mode="after")
    def _fits(self) -> StackConfig:
        for name in ("hidden", "cell", "bidirectional"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.layers:
                raise ValueError(
                    f"{name} lists {len(value)} values for {self.layers} layers (the list may be a preset's: write {name} beside "
                    "layers)"
                )
        for layer, width in enumerate(self.widths):
            if width < 1:
                raise ValueError(f"hidden is {width} in layer {layer + 1}: at least 1 is needed")
            if self.both_ways(layer) and width % 2:
                raise ValueError(f"hidden is {width} in bidirectional layer {layer + 1}: an even number is needed")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Output width of each layer."""
        return self.hidden if isinstance(self.hidden, tuple) else (self.hidden,) * self.layers

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Cell of each layer."""
        return self.cell if isinstance(self.cell, tuple) else (self.cell,) * self.layers

    @property
    def first_residual(self) -> int:
        """The lowest layer (from 0) whose input is added to its output; `layers` when there is none."""
        if isinstance(self.residual, bool):
            return 1 if self.residual else self.layers
        return self.residual - 1

    def both_ways(self, layer: int) -> bool:
        """Whether layer `layer` (from 0) is bidirectional."""
        if isinstance(self.bidirectional, tuple):
            return self.bidirectional[layer]
        return self.bidirectional == "all" or (self.bidirectional == "first" and layer == 0)


class EncoderConfig(StackConfig):
    """The encoder's stack; its first layer reads both ways unless said otherwise."""

    bidirectional: Directions = "first"


class DecoderConfig(StackConfig):
    """The decoder's stack, which can only read forward."""

    bidirectional: Annotated[Literal["none"], expected("none: a decoder only reads forward")] = "none"


class DropoutConfig(Section):
    """Dropout rates in training. Masks of `layer` are shared by all steps of a sentence (Gal 2016)."""

    embedding: float = Field(0.2, ge=0.0, lt=1.0)
    layer: float = Field(0.2, ge=0.0, lt=1.0, description="on the output of every recurrent layer")
    output: float = Field(0.2, ge=0.0, lt=1.0, description="on the vector that meets the vocabulary")
    word: float = Field(0.0, ge=0.0, lt=1.0, description="whole tokens of source and target input")


class ModelConfig(Section):
    """A deep recurrent encoder-decoder with attention.

    `preset: NAME` may stand among the keys: it gives every key that is not written beside it.
    """

    embedding: int = Field(512, ge=1)
    wiring: Wiring = Field(
        "gnmt",
        description="gnmt: attention queried by the bottom decoder layer, context to every layer; deep: pre-LN residual "
        "recurrence, attention and feed-forward in every layer; luong, bahdanau: input feeding, one step at a time",
    )
    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    attention: Literal["scaled_dot", "dot", "additive"] = Field(
        "scaled_dot", description="how query and key are scored; additive is normalised"
    )
    attention_heads: int = Field(4, ge=1)
    feed_forward: int | None = Field(
        None, ge=1, description="inner width of wiring deep's feed-forward blocks; twice the layer's width by default"
    )
    tie_embeddings: Literal["none", "output", "all"] = Field(
        "all", description="output = target embedding; all = source embedding too (needs a joint vocabulary)"
    )
    dropout: DropoutConfig = DropoutConfig()
    init: Annotated[Initialisation, expected("orthogonal, uniform, or a number above 0 and at most 1")] = Field(
        "orthogonal",
        description="recurrent weights orthogonal, with Glorot input weights or (uniform) in 1/sqrt(H); a number u: all in +-u, and "
        "embeddings are then not scaled by sqrt(E)",
    )

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "preset" not in data:
            return data
        name = data["preset"]
        if not isinstance(name, str) or name not in PRESETS:
            close = difflib.get_close_matches(str(name), PRESETS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(PRESETS)}"
            raise ValueError(f"no preset is called {name!r} ({hint})")
        return merge(PRESETS[name], {key: value for key, value in data.items() if key != "preset"})

    @model_validator(mode="after")
    def _serves(self) -> ModelConfig:
        for width in self.attended_widths:
            if width % self.attention_heads:
                raise ValueError(f"attention_heads {self.attention_heads} does not divide decoder width {width}")
        if self.wiring != "deep" and self.feed_forward is not None:
            raise ValueError(f"feed_forward has no meaning for wiring {self.wiring}: only deep has such blocks")
        if self.wiring == "deep":
            for name, stack in (("encoder", self.encoder), ("decoder", self.decoder)):
                if stack.residual is not True or not stack.layer_norm:
                    raise ValueError(
                        f"wiring deep is residual and pre-LN in every layer: set {name}.residual and {name}.layer_norm to true"
                    )
        return self

    @property
    def attended_widths(self) -> tuple[int, ...]:
        """The widths of the decoder layers that query the attention."""
        widths = self.decoder.widths
        return {"gnmt": widths[:1], "deep": widths, "luong": widths[-1:], "bahdanau": widths[-1:]}[self.wiring]
