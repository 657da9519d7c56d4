"""Weights on disk: safetensors in fp32, fp16, or int8 with one scale an output channel beside each matrix. No PyTorch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from nmt.errors import BundleError
from nmt.model.config import ModelConfig

Storage = Literal["fp32", "fp16", "int8"]
_SCALE = ".scale"


@dataclass(frozen=True)
class Stored:
    """A tensor as it is stored: `values`, to be multiplied row by row by `scales` (rows,) where they are int8."""

    values: NDArray[Any]
    scales: NDArray[np.float32] | None = None

    def floats(self) -> NDArray[np.float32]:
        """The tensor in fp32."""
        values = self.values.astype(np.float32)
        return values if self.scales is None else values * self.scales[:, None]

    def rows(self, which: slice) -> Stored:
        """Some of its rows."""
        return Stored(self.values[which], None if self.scales is None else self.scales[which])


def tied_names(config: ModelConfig) -> tuple[str, ...]:
    """Other names of the weight `output` in the state dict of a model: what a file holds once."""
    embeddings = ("target_embedding.weight", "source_embedding.weight")
    names: dict[str, tuple[str, ...]] = {"none": (), "output": embeddings[:1], "all": embeddings}
    return names[config.tie_embeddings]


def write_weights(path: Path, tensors: Mapping[str, ArrayLike], storage: Storage) -> None:
    """Store `tensors`; in int8 only matrices are quantised, symmetrically, row by row, the rest is fp32.

    Raises `BundleError` for a weight that fp16 can't hold, and when the file can't be written.
    """
    stored: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        value = np.asarray(tensor, dtype=np.float32)
        if storage == "int8" and value.ndim == 2:
            quantised = int8_rows(value)
            assert quantised.scales is not None
            stored[name], stored[name + _SCALE] = quantised.values, quantised.scales
        else:
            with np.errstate(over="ignore"):
                stored[name] = np.ascontiguousarray(value, np.float16 if storage == "fp16" else np.float32)
            if storage == "fp16" and not np.isfinite(stored[name]).all():
                raise BundleError(f"{path}: {name} holds a number too large for fp16: store fp32 or int8")
    try:
        save_file(stored, path, metadata={"storage": storage})
        path.chmod(0o644)  # the library makes it readable by its owner alone
    except (SafetensorError, OSError) as error:  # a full disk is either, by where it strikes
        raise BundleError(f"{path}: could not be written ({error}); free some space, or see to the folder") from None


def int8_rows(matrix: NDArray[np.float32]) -> Stored:
    """`matrix` in int8, symmetrically, with a scale for each row."""
    scales = np.maximum(np.abs(matrix).max(axis=1), np.float32(1e-12)) / np.float32(127.0)
    values = np.clip(np.round(matrix / scales[:, None]), -127, 127).astype(np.int8)
    return Stored(values, scales)


def read_stored(path: Path) -> dict[str, Stored]:
    """The tensors of a file that `write_weights` made, as they are stored; raise `BundleError` naming a damaged file."""
    try:
        arrays = load_file(path)
    except FileNotFoundError:
        raise BundleError(f"{path}: the weights are missing") from None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise BundleError(f"{path}: damaged or cut short ({error})") from None
    tensors = {}
    for name, value in arrays.items():
        if name.endswith(_SCALE):
            continue
        scales = arrays.get(name + _SCALE)
        if (value.dtype == np.int8) != (scales is not None):
            raise BundleError(f"{path}: {name} lacks its scale")
        tensors[name] = Stored(value, scales)
    return tensors
