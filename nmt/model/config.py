"""The shape of a model, as written in a training configuration and in a bundle."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from nmt.config import Section

Cell = Literal["lstm", "gru", "rnn"]


class StackConfig(Section):
    """A stack of recurrent layers. Width and cell are one value for all layers or a list with one value a layer."""

    layers: int = Field(2, ge=1, le=64)
    hidden: int | tuple[int, ...] = Field(512, description="width of a layer's output; both directions together")
    cell: Cell | tuple[Cell, ...] = "lstm"
    bidirectional: Literal["none", "first", "all"] = Field("none", description="which layers read both ways")
    residual: bool = Field(True, description="add a layer's input to its output, from the second layer on")
    layer_norm: bool = Field(False, description="normalise a layer's input (pre-LN)")

    @model_validator(mode="after")
    def _fits(self) -> StackConfig:
        for name in ("hidden", "cell"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.layers:
                raise ValueError(f"{name} lists {len(value)} values for {self.layers} layers")
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

    def both_ways(self, layer: int) -> bool:
        """Whether layer `layer` (from 0) is bidirectional."""
        return self.bidirectional == "all" or (self.bidirectional == "first" and layer == 0)


class EncoderConfig(StackConfig):
    """The encoder's stack; its first layer reads both ways unless said otherwise."""

    bidirectional: Literal["none", "first", "all"] = "first"


class DecoderConfig(StackConfig):
    """The decoder's stack, which can only read forward."""

    bidirectional: Literal["none"] = "none"


class DropoutConfig(Section):
    """Dropout rates in training. Masks over hidden units are shared by all steps of a sentence (Gal 2016)."""

    embedding: float = Field(0.2, ge=0.0, lt=1.0)
    layer: float = Field(0.2, ge=0.0, lt=1.0, description="on the output of every recurrent layer")
    output: float = Field(0.2, ge=0.0, lt=1.0, description="on the vector that meets the vocabulary")
    word: float = Field(0.0, ge=0.0, lt=1.0, description="whole tokens of source and target input")


class ModelConfig(Section):
    """A deep recurrent encoder-decoder with attention."""

    embedding: int = Field(512, ge=1)
    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    attention_heads: int = Field(4, ge=1, description="heads of scaled dot-product attention")
    tie_embeddings: Literal["none", "output", "all"] = Field(
        "all", description="output = target embedding; all = source embedding too (needs a joint vocabulary)"
    )
    dropout: DropoutConfig = DropoutConfig()

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelConfig:
        width = self.decoder.widths[0]
        if width % self.attention_heads:
            raise ValueError(f"attention_heads {self.attention_heads} does not divide decoder width {width}")
        return self
