"""COMET (Rei et al. 2020), a learned metric, by the package unbabel-comet, where that is installed."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nmt.errors import ConfigError
from nmt.evaluation.scores import Score


class Comet:
    """A COMET model. The package loads the checkpoint: give it only those that you trust."""

    def __init__(self, model: str) -> None:
        """`model` is a checkpoint file, or a name that the package knows; raise `ConfigError` where either is missing."""
        try:
            package: Any = importlib.import_module("comet")
        except ImportError:
            raise ConfigError("--comet needs unbabel-comet: pip install unbabel-comet") from None
        try:
            checkpoint = model if Path(model).is_file() else package.download_model(model)
            self._model = package.load_from_checkpoint(checkpoint)
        except Exception as error:  # of whatever kind the package or what it stands on has
            raise ConfigError(f"--comet {model}: neither a checkpoint file nor a model to be had ({error})") from None
        with Path(checkpoint).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        name = Path(model).name if Path(model).is_file() else model
        self._signature = f"nrefs:1|model:{name}|sha256:{digest[:12]}|version:{_version()}"

    def score(self, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]) -> Score:
        """Its mean over the sentences, on the scale of the model (about 0 to 1)."""
        together = zip(sources, hypotheses, references, strict=True)
        data = [{"src": source, "mt": text, "ref": reference} for source, text, reference in together]
        found = self._model.predict(data, batch_size=16, gpus=0)
        return Score("COMET", round(float(found.system_score), 6), self._signature)


def _version() -> str:
    try:
        return version("unbabel-comet")
    except PackageNotFoundError:
        return "unknown"
