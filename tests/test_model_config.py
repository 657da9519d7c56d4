"""The configuration of a model: presets, and one clear error for each shape that cannot be."""

from __future__ import annotations

from typing import Any

import pytest

import nmt.config
from nmt.errors import ConfigError
from nmt.model.config import ModelConfig
from nmt.model.presets import PRESETS


def parsed(data: dict[str, Any]) -> ModelConfig:
    return nmt.config.parse(ModelConfig, data, "model")


A_LAYER = "or a list with one for each layer"


def test_a_key_beside_the_preset_changes_that_key_alone() -> None:
    plain, changed = parsed({"preset": "luong-2x512"}), parsed({"preset": "luong-2x512", "decoder": {"cell": "gru"}})
    assert changed.decoder.cells == ("gru", "gru")
    same = changed.model_copy(update={"decoder": changed.decoder.model_copy(update={"cell": "lstm"})})
    assert same == plain


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_written_out_reads_back_the_same(preset: str) -> None:
    config = parsed({"preset": preset})
    assert parsed(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"preset": "gnmt-4x1042"}, "no preset is called 'gnmt-4x1042' (did you mean 'gnmt-4x1024'?)"),
        ({"preset": "xyz"}, f"no preset is called 'xyz' (known: {', '.join(PRESETS)})"),
        ({"preset": ["deep"]}, "no preset is called ['deep'] (did you mean 'deep'?)"),
        ({"attention_heads": 3}, "attention_heads 3 does not divide decoder width 512"),
        ({"preset": "deep", "decoder": {"hidden": [512, 512, 500, 512]}}, "attention_heads 8 does not divide decoder width 500"),
        ({"attention_heads": 0}, "attention_heads: input should be greater than or equal to 1"),
        ({"encoder": {"hidden": [512]}}, "encoder: hidden lists 1 values for 2 layers"),
        ({"preset": "gnmt-4x1024", "encoder": {"layers": 3}}, "encoder: hidden lists 4 values for 3 layers"),
        ({"decoder": {"cell": ["lstm"] * 3}}, "decoder: cell lists 3 values for 2 layers"),
        ({"encoder": {"bidirectional": [True]}}, "encoder: bidirectional lists 1 values for 2 layers"),
        ({"encoder": {"hidden": 0}}, "encoder: hidden is 0 in layer 1: at least 1 is needed"),
        ({"decoder": {"hidden": [512, -1]}}, "decoder: hidden is -1 in layer 2: at least 1 is needed"),
        ({"encoder": {"hidden": 7}}, "encoder: hidden is 7 in bidirectional layer 1: an even number is needed"),
        ({"encoder": {"hidden": "wide"}}, f"encoder.hidden: expected a whole number, {A_LAYER} (got 'wide')"),
        ({"encoder": {"layers": 0}}, "encoder.layers: input should be greater than or equal to 1"),
        ({"embedding": 0}, "embedding: input should be greater than or equal to 1"),
        ({"feed_forward": 64}, "feed_forward has no meaning for wiring gnmt: only deep has such blocks"),
        ({"preset": "luong-2x512", "feed_forward": 64}, "feed_forward has no meaning for wiring luong"),
        ({"wiring": "deep"}, "wiring deep is residual and pre-LN in every layer: set encoder.residual and encoder.layer_norm to true"),
        ({"preset": "deep", "decoder": {"layer_norm": False}}, "set decoder.residual and decoder.layer_norm to true"),
        ({"preset": "deep", "encoder": {"residual": 2}}, "set encoder.residual and encoder.layer_norm to true"),
        ({"encoder": {"residual": 1}}, "encoder.residual: expected true, false, or the number of the first residual layer, which is 2 "),
        ({"encoder": {"residual": "yes"}}, "encoder.residual: expected true, false, or the number"),
        ({"decoder": {"bidirectional": "all"}}, "decoder.bidirectional: expected none: a decoder only reads forward (got 'all')"),
        ({"decoder": {"bidirectional": [False, True]}}, "decoder.bidirectional: expected none: a decoder only reads forward"),
        ({"encoder": {"bidirectional": "both"}}, f"encoder.bidirectional: expected none, first, all, {A_LAYER}"),
        ({"encoder": {"cell": "lstm_peephole"}}, "encoder.cell: expected one of lstm, gru, rnn, rnn_relu, gru_before, or a list"),
        ({"encoder": {"cell": ["lstm", "qrnn"]}}, "encoder.cell: expected one of lstm, gru, rnn, rnn_relu, gru_before, or a list"),
        ({"attention": "multiplicative"}, "attention: input should be 'scaled_dot', 'dot' or 'additive'"),
        ({"init": 0}, "init: expected orthogonal, uniform, or a number above 0 and at most 1 (got 0)"),
        ({"init": "glorot"}, "init: expected orthogonal, uniform, or a number above 0 and at most 1 (got 'glorot')"),
        ({"dropout": {"layer": 1.0}}, "dropout.layer: input should be less than 1 (got 1.0)"),
        ({"encoder": {"layer": 3}}, "unknown key 'encoder.layer' (did you mean 'layers'?)"),
        ({"preset": "deep", "heads": 8}, "unknown key 'heads' (known keys: attention, attention_heads"),
    ],
)  # fmt: skip
def test_a_shape_that_cannot_be_is_one_clear_config_error(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(data)
    assert message in str(caught.value)
    assert "; " not in str(caught.value), "one mistake, one message"
    assert "\n" not in str(caught.value)
