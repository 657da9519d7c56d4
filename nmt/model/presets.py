"""Shapes of models by name: the landmarks as published, and our own. A configuration may change any key of them.

gnmt-4x1024, gnmt-8x1024   Wu et al. 2016 in the wiring of NVIDIA's GNMT v2: bidirectional first layer, residual from the third,
                           normalised additive attention queried by the bottom decoder layer, weights uniform in +-0.1
deep                       residual pre-LN recurrence, multi-head attention and feed-forward in every layer (Domhan 2018, section 4)
luong-2x512                Luong, Pham and Manning 2015: input feeding, "general" score
bahdanau-1x1000            Bahdanau, Cho and Bengio 2015: bidirectional GRU, attention queried by the previous state

What is ours in all of them: the decoder begins from the mean of the encoder's outputs, the attention projects its values, gnmt has
Luong's combination before the output (and so can tie it). In bahdanau-1x1000 the maxout layer is as wide as the embedding (published:
500), and the GRU is the one with fused kernels (published: cell gru_before).
"""

from __future__ import annotations

from typing import Any


def _gnmt(layers: int) -> dict[str, Any]:
    return {
        "embedding": 1024,
        "wiring": "gnmt",
        "encoder": {
            "layers": layers,
            "hidden": [2048] + [1024] * (layers - 1),
            "bidirectional": "first",
            "residual": 3,
        },
        "decoder": {"layers": layers, "hidden": 1024, "residual": 3},
        "attention": "additive",
        "attention_heads": 1,
        "dropout": {"embedding": 0.2, "layer": 0.2, "output": 0.0},
        "init": 0.1,
    }


PRESETS: dict[str, dict[str, Any]] = {
    "gnmt-4x1024": _gnmt(4),
    "gnmt-8x1024": _gnmt(8),
    "deep": {
        "embedding": 512,
        "wiring": "deep",
        "encoder": {"layers": 4, "hidden": 512, "bidirectional": "all", "layer_norm": True},
        "decoder": {"layers": 4, "hidden": 512, "layer_norm": True},
        "attention_heads": 8,
        "feed_forward": 1024,
        "dropout": {"embedding": 0.2, "layer": 0.2, "output": 0.2},
    },
    "luong-2x512": {
        "embedding": 512,
        "wiring": "luong",
        "encoder": {"layers": 2, "hidden": 512, "bidirectional": "none", "residual": False},
        "decoder": {"layers": 2, "hidden": 512, "residual": False},
        "attention": "dot",
        "attention_heads": 1,
        "tie_embeddings": "none",
        "dropout": {"embedding": 0.2, "layer": 0.2, "output": 0.0},
        "init": 0.1,
    },
    "bahdanau-1x1000": {
        "embedding": 620,
        "wiring": "bahdanau",
        "encoder": {"layers": 1, "hidden": 2000, "cell": "gru", "bidirectional": "all"},
        "decoder": {"layers": 1, "hidden": 1000, "cell": "gru"},
        "attention": "additive",
        "attention_heads": 1,
        "tie_embeddings": "none",
        "dropout": {"embedding": 0.0, "layer": 0.0, "output": 0.0},
    },
}
