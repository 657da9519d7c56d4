"""What the tests of the HTTP surface share: a backend without a model, small limits, and a real server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import uvicorn
from fastapi import FastAPI
from serving_process import free_port

from nmt.errors import InputError
from nmt.inference.bundle import ModelInfo
from nmt.inference.types import DecodeOptions, Hypothesis, Translation
from serving.config import Files, Limits
from serving.protocol import Grid, NotAvailable, Overloaded, Overrides, ServedModel

SECRET = "s3cret-Geheimnis"
LIMITS = Limits(characters=100, texts=4, total_characters=250, body_bytes=4096, n_best=4, beam_size=8)
FILES = Files(bytes=20_000, characters=2_000, kept=3, expire_s=30.0, wait_s=5.0)


def model(name: str, source: str, target: str) -> ServedModel:
    info = ModelInfo(name, source, target, "/secret/folder", 12, "2+2 layers lstm", [], "ab" * 32)
    return ServedModel(info, DecodeOptions(beam_size=4))


class FakeBackend:
    """Upper case for a translation; some texts raise, some never end."""

    def __init__(self, *served: ServedModel) -> None:
        self.served = list(served) or [model("base", "en", "de")]
        self.missing: list[str] = []
        self.calls: list[tuple[str, list[str], Overrides]] = []

    async def models(self) -> list[ServedModel]:
        return self.served

    async def ready(self) -> list[str]:
        return self.missing

    async def translate(
        self, model: str, texts: list[str], overrides: Overrides, timeout_s: float
    ) -> list[Translation]:
        self.calls.append((model, texts, overrides))
        if "hang" in texts:
            await asyncio.sleep(100)
        if "full" in texts:
            raise Overloaded("900 texts are waiting already", 2.3)
        if "refuse" in texts:
            raise InputError("the text cannot be translated")
        if "crash" in texts:
            raise ZeroDivisionError(SECRET)
        best = overrides.n_best or 1
        return [
            Translation(
                text, tuple(Hypothesis(text.upper().replace("{{X", "{{x"), -float(rank)) for rank in range(best)), 3, 4
            )
            for text in texts
        ]

    async def score(
        self, model: str, pairs: list[tuple[str, str]], overrides: Overrides, timeout_s: float
    ) -> list[Hypothesis]:
        return [Hypothesis(target, -float(len(source))) for source, target in pairs]

    async def activations(self, model: str, text: str, translation: str | None, timeout_s: float) -> Grid:
        if text == "no torch":
            raise NotAvailable("activations need PyTorch")
        layers = (np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32))
        return Grid(translation or text.upper(), (text, "</s>"), (text.upper(), "</s>"), layers, layers)


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The address of a real server of `app`, as clients need one."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
