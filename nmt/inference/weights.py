"""Weights on disk: safetensors in fp32, fp16, or int8 with one scale an output channel beside each matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nmt.errors import BundleError

Storage = Literal["fp32", "fp16", "int8"]
_SCALE = ".scale"


def write_weights(path: Path, tensors: dict[str, Tensor], storage: Storage) -> None:
    """Store `tensors`; in int8 only matrices are quantised, symmetrically, row by row, the rest is fp32.

    Raises `BundleError` for a weight that fp16 can't hold, and when the file can't be written.
    """
    stored: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if storage == "int8" and value.dim() == 2:
            scale = value.abs().amax(dim=1).clamp_min(1e-12) / 127.0  # (rows,)
            stored[name] = (value / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
            stored[name + _SCALE] = scale.float()
        else:
            stored[name] = value.to(torch.float16 if storage == "fp16" else torch.float32).contiguous()
            if storage == "fp16" and not stored[name].isfinite().all():
                raise BundleError(f"{path}: {name} holds a number too large for fp16: store fp32 or int8")
    try:
        save_file(stored, path, metadata={"storage": storage})
        path.chmod(0o644)  # the library makes it readable by its owner alone
    except (SafetensorError, OSError) as error:  # a full disk is either, by where it strikes
        raise BundleError(f"{path}: could not be written ({error}); free some space, or see to the folder") from None


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that `write_weights` made, in fp32; raise `BundleError` naming a damaged file."""
    try:
        stored = load_file(path)
    except FileNotFoundError:
        raise BundleError(f"{path}: the weights are missing") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(f"{path}: damaged or cut short ({error})") from None
    tensors = {}
    for name, value in stored.items():
        if name.endswith(_SCALE):
            continue
        scale = stored.get(name + _SCALE)
        if (value.dtype == torch.int8) != (scale is not None):
            raise BundleError(f"{path}: {name} lacks its scale")
        tensors[name] = value.float() if scale is None else value.float() * scale[:, None]
    return tensors
