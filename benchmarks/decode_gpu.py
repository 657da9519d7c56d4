"""The rate of decoding on a GPU, in the shape of the published figures: GNMT 4+4 layers of 1,024, 32,000 subwords, beam and batch as said.

    python benchmarks/decode_gpu.py                                   one GPU; about a minute
    python benchmarks/decode_gpu.py --device cpu --hidden 32 --vocabulary 200 --cases 2x3     tries the script

Untrained models that never end, so every sentence gets exactly as many target subwords as asked for. Anchors on an A100, fp16, by
NVIDIA's GNMT v2: batch 1, beam 5: 67 ms a sentence; batch 128, beam 5: 28,200 target tokens a second; batch 512, greedy: 119,700. Prints
JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from nmt.inference.search import beam_search
from nmt.inference.torch_backend import TorchBackend
from nmt.inference.types import DecodeOptions
from nmt.model.config import ModelConfig
from nmt.model.seq2seq import Seq2Seq
from nmt.text.tokenizer import EOS

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def backend_of(options: argparse.Namespace, dtype: torch.dtype) -> TorchBackend:
    """An untrained model that never ends by itself."""
    stack = {"layers": options.layers, "hidden": options.hidden}
    config = ModelConfig.model_validate(
        {"embedding": options.hidden, "wiring": "gnmt", "encoder": stack, "decoder": stack}
    )
    torch.manual_seed(1)
    model = Seq2Seq(config, options.vocabulary, options.vocabulary).requires_grad_(False)
    model.output_bias[EOS] = -1e4
    return TorchBackend(model.to(options.device, dtype))


def measured(options: argparse.Namespace, backend: TorchBackend, batch: int, beam: int) -> dict[str, float]:
    """Milliseconds of a batch, and target tokens a second: median of the rounds."""
    source = [
        [*(EOS + 1 + (i + j) % (options.vocabulary - EOS - 1) for j in range(options.length - 1)), EOS]
        for i in range(batch)
    ]
    search = DecodeOptions(beam_size=beam, max_length_ratio=1e-6, max_length_extra=options.length)
    times = []
    for _ in range(options.rounds + 1):
        start = time.perf_counter()
        found = beam_search(backend, source, search)  # whose results are on the host: all is done
        times.append(time.perf_counter() - start)
        assert all(len(candidates[0].ids) == options.length for candidates in found)
    seconds = statistics.median(times[1:])
    return {"ms": 1e3 * seconds, "target tokens a second": batch * options.length / seconds}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description="Rates of decoding on a GPU.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--length", type=int, default=25, help="source and target subwords")
    parser.add_argument("--cases", nargs="+", default=["1x5", "128x5", "512x1"], metavar="BATCHxBEAM")
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"], choices=sorted(DTYPES))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("decode_gpu.py: PyTorch sees no GPU here (--device cpu tries the script)", file=sys.stderr)
        return 2
    result: dict[str, Any] = {"torch": torch.__version__, "device": options.device, "dtypes": {}}
    if options.device == "cuda":
        result["device"] = torch.cuda.get_device_name()
    for name in options.dtypes:
        backend = backend_of(options, DTYPES[name])
        cases = {case: measured(options, backend, *map(int, case.split("x"))) for case in options.cases}
        result["dtypes"][name] = cases
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
