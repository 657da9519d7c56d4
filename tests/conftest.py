"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings
from serving_fakes import FakeBackend, model

from serving.gateway import create_app

ROOT = Path(__file__).parent.parent

if "PYTEST_XDIST_WORKER" in os.environ:  # several at a time share the cores; before anything imports torch
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


# How long an example takes says nothing on a machine that does other work, too.
settings.register_profile("strata", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("strata")

# The files that take longest go first, so that at the end no process is left with one while the other has nothing to do.
LONG = (
    "test_quickstart",
    "test_world",
    "test_openapi",
    "test_resume",
    "test_study",
    "test_client",
    "test_gpu_benchmarks",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first."""
    items.sort(key=lambda item: item.path.stem not in LONG)


def unavailable(reason: str) -> None:
    """Skip the test for `reason`; where everything is required (STRATA_REQUIRE_ALL), fail instead."""
    if os.environ.get("STRATA_REQUIRE_ALL"):
        pytest.fail(f"required, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of local corpora: $NMT_CORPORA, or shared/data beside the clone; the test skips without it."""
    folder = Path(os.environ.get("NMT_CORPORA") or ROOT.parent / "shared" / "data")
    if not (folder / "tatoeba-en-de").is_dir():
        unavailable(f"there are no local corpora in {folder} (set NMT_CORPORA)")
    return folder


@pytest.fixture
def backend() -> FakeBackend:
    """It serves three pairs; from German to French there are two models to go through."""
    return FakeBackend(model("there", "en", "de"), model("back", "de", "en"), model("on", "en", "fr"))


@pytest.fixture
def client(backend: FakeBackend, request: pytest.FixtureRequest) -> Iterator[TestClient]:
    """A client of the service with that backend and the CONFIG of the test's module."""
    with TestClient(create_app(backend, request.module.CONFIG), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(autouse=True)
def _environment_stays() -> Iterator[None]:
    """What a test has code set in the environment, as a launcher does, is gone after it."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches a real hub: one that needs a hub sets HF_ENDPOINT to its own stub."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
