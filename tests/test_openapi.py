"""The OpenAPI document is true: schemathesis makes requests out of it, good and bad, and looks whether the answers are as it says.

Not asked is whether all that fits the schema is accepted: which languages there are, and how much, is not in a schema. STRATA_FUZZ_S is how
long it goes on (`make soak`: 5 minutes).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from serving_fakes import FakeBackend, model, served

from serving.config import Limits, ServeConfig
from serving.gateway import create_app

SECONDS = int(os.environ.get("STRATA_FUZZ_S", "60" if "STRATA_REQUIRE_ALL" in os.environ else "20"))


@pytest.mark.timeout(SECONDS + 240)
def test_answers_are_as_the_document_says(tmp_path: Path) -> None:
    config = ServeConfig(models=["unused"], deadline_s=5.0, limits=Limits(requests_per_minute=1_000_000))
    app = create_app(FakeBackend(model("there", "en", "de"), model("back", "de", "en")), config)
    report = tmp_path / "report.json"
    with served(app) as url:
        command = [
            *(str(Path(sys.executable).parent / "schemathesis"), "run", f"{url}/openapi.json", "--continue-on-failure"),
            *("--max-time", str(SECONDS), "--max-examples", "100000", "--exclude-checks", "positive_data_acceptance"),
            *("--warnings", "off", "--no-color", "--report-json-path", str(report)),
        ]
        ended = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, timeout=SECONDS + 200, check=False
        )
    assert ended.returncode == 0, ended.stdout[-20_000:]
    print(ended.stdout[-1000:])
    assert json.loads(report.read_text())
