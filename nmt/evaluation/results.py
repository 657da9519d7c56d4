"""The file of an evaluation: scores with intervals and signatures, all that is needed to repeat it, and every sentence."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from nmt.config import Section, parse
from nmt.errors import ConfigError, DataError

FORMAT, VERSION = "strata-evaluation", 1


class System(Section):
    """What translated: a bundle, a server, or nobody knows, where there were only the lines of a file."""

    name: str
    kind: Literal["bundle", "server", "file"]
    where: str = Field(description="path or address, as given")
    source_language: str = ""
    target_language: str = ""
    architecture: str = ""
    digest: str = Field("", description="sha256 of the weights, or of the file of lines")
    ensemble: tuple[dict[str, str], ...] = Field((), description="name and digest of the bundles decoded with it")


class TestData(Section):
    """What was translated, and what it was compared with."""

    name: str
    sentences: int
    references: int
    source_sha256: str = Field(description="of the source lines, each ended by a line feed, as UTF-8")
    reference_sha256: tuple[str, ...] = Field(description="the same of each set of references")


class Measured(Section):
    """A corpus score; `low` and `high` hold 95 % of bootstrap resamples (Koehn 2004)."""

    name: str
    score: float
    signature: str
    low: float | None = None
    high: float | None = None


class Segment(Section):
    """One sentence: what was said, and how sure the model was. `links` are pairs (source word, target word), words being what white space
    divides, from 0; `tokens` are subwords with their log probability."""

    source: str
    references: tuple[str, ...]
    hypothesis: str
    chrf: float = Field(description="sentence chrF2++ against all references, 0 to 100")
    score: float | None = Field(None, description="log P / length ** length penalty")
    truncated: bool = False
    tokens: tuple[tuple[str, float], ...] = ()
    links: tuple[tuple[int, int], ...] = ()


class Shown(Section):
    """A sentence in full: `attention` has a matrix for each part of the text, target subwords (with an end mark, unless the length limit
    ended it) x source subwords (with an end mark); `source_subwords` are those of all parts, one end mark after each."""

    index: int = Field(description="of the segment")
    n_best: tuple[tuple[str, float], ...] = Field(description="candidates and scores, best first")
    source_subwords: tuple[str, ...] = ()
    target_subwords: tuple[str, ...] = ()
    attention: tuple[tuple[tuple[float, ...], ...], ...] = ()


class EvaluationFile(Section):
    """Everything about one evaluation."""

    format: Literal["strata-evaluation"] = "strata-evaluation"
    version: int = VERSION
    date: str = Field(description="UTC, ISO 8601")
    command: tuple[str, ...]
    versions: dict[str, str]
    machine: dict[str, Any]
    system: System
    data: TestData
    search: str = Field(description="in words")
    options: dict[str, Any] = Field(description="of the search, all of them")
    scores: tuple[Measured, ...]
    exact_match: float = Field(description="share of hypotheses that equal a reference")
    length_ratio: float = Field(
        description="words of the hypotheses over words of the (first) references, by sacreBLEU's tokens"
    )
    seconds: float
    sentences_per_second: float
    segments: tuple[Segment, ...]
    shown: tuple[Shown, ...] = ()


def write_results(path: Path, results: EvaluationFile) -> None:
    """Write the file (.gz: packed), whole or not at all; raise `DataError` where it can't be."""
    content = json.dumps(results.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":")).encode()
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
        partial.replace(path)
    except OSError as error:
        raise DataError(f"{path}: the results could not be written ({error.strerror or error})") from None


def read_results(path: Path) -> EvaluationFile:
    """Read such a file; raise `DataError` naming it where it is none, is damaged, or is of a newer Strata."""
    try:
        content = path.read_bytes()
        data = json.loads(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    except OSError as error:
        raise DataError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, RecursionError, EOFError, zlib.error):
        raise DataError(f"{path}: not an evaluation file (`nmt evaluate ... --results FILE` writes one)") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise DataError(f"{path}: not an evaluation file (`nmt evaluate ... --results FILE` writes one)")
    if data.get("version") != VERSION:
        raise DataError(f"{path}: evaluation file of version {data.get('version')!r}, this Strata reads {VERSION}")
    try:
        return parse(EvaluationFile, data, str(path))
    except ConfigError as error:
        raise DataError(str(error)) from None
