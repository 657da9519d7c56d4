"""The backend that a bundle is run by: ONNX Runtime on CPUs, PyTorch on GPUs and for ensembles."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import get_args

from nmt.errors import ConfigError
from nmt.inference.backend import Backend
from nmt.inference.bundle import Bundle
from nmt.inference.types import Precision

_ROWS = 2560  # of all workers together, as far as each has 64: their memory grows with them


def load_backend(
    bundles: Sequence[Bundle], threads: int | None, device: str, precision: Precision
) -> tuple[Backend, int]:
    """The backend of a bundle, or of several as an ensemble, and how many workers of the engine it is good for.

    `auto` computes in int8 where a bundle stores int8 and ONNX Runtime runs it, else in fp32; bf16 and fp16 are PyTorch's.

    `threads` are those to use, all by default: ONNX Runtime has as many workers as that with one thread each, which is faster than one
    worker whose operations are divided. PyTorch is imported only where it is used. Raises `ConfigError` for a precision that the
    backend has not.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"precision {precision!r}: one of {', '.join(get_args(Precision))} was expected")
    threads = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()) or 1
    if device == "cpu" and len(bundles) == 1 and precision in ("auto", "fp32", "int8"):
        from nmt.inference.onnx_backend import OnnxBackend

        backend = OnnxBackend.load(bundles[0], precision=precision)
        backend.rows = max(64, min(backend.rows, _ROWS // threads))
        return backend, threads
    if precision == "int8":
        raise ConfigError("precision int8 is for one model on a CPU; ensembles and GPUs compute in fp32, bf16 or fp16")
    from nmt.inference.ensemble import Ensemble
    from nmt.inference.torch_backend import TorchBackend, load_model

    models = [load_model(bundle, threads, device, "fp32" if precision == "auto" else precision) for bundle in bundles]
    alignments = [bundle.config.alignment for bundle in bundles]
    return TorchBackend(Ensemble(models) if len(models) > 1 else models[0], alignments), 1
