"""The model bundle: one folder that holds all that translating needs, checked when it is opened.

config.yaml          format, name, languages, model shape, decode defaults, sha256 of the other files
model.safetensors    weights, once: fp32, fp16 or int8 with scales
tokenizer.model      SentencePiece, joint; or source.model and target.model
shortlist.safetensors  the lexical shortlist, if there is one
metrics.json         scores with signatures, data manifest, versions, command
README.md            the model card
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import nmt.config
from nmt.config import Section
from nmt.errors import BundleError, ConfigError
from nmt.inference import shortlist
from nmt.inference.shortlist import Shortlist
from nmt.inference.types import AlignmentHead, DecodeOptions
from nmt.model.config import ModelConfig
from nmt.text.tokenizer import Tokenizer

FORMAT = 2  # 1 knew no alignment
CONFIG, WEIGHTS, METRICS, CARD = "config.yaml", "model.safetensors", "metrics.json", "README.md"


class BundleConfig(Section):
    """What `config.yaml` of a bundle holds."""

    format: Literal[1, 2]
    name: str
    source_language: str
    target_language: str
    target_languages: tuple[str, ...] = ()
    joint_vocabulary: bool
    weights: Literal["fp32", "fp16", "int8"]
    parameters: int
    max_source_tokens: int
    model: ModelConfig
    decode: DecodeOptions
    alignment: AlignmentHead | None = None
    sha256: dict[str, str]


@dataclass(frozen=True)
class ModelInfo:
    """What may be said of a model to its users."""

    name: str
    source_language: str
    target_language: str
    path: str
    parameters: int
    architecture: str
    scores: list[dict[str, Any]]
    digest: str
    target_languages: tuple[str, ...] = ()  # all of them, where there are several

    @property
    def targets(self) -> tuple[str, ...]:
        """The languages that it translates into; the first unless another one is asked for."""
        return self.target_languages or (self.target_language,)


def tokenizer_files(joint: bool) -> tuple[str, str]:
    """Names of the tokenizer files of the source and the target side."""
    return ("tokenizer.model", "tokenizer.model") if joint else ("source.model", "target.model")


def architecture(model: ModelConfig) -> str:
    """The model's shape in a few words."""
    encoder, decoder = model.encoder, model.decoder
    heads = f"{model.attention_heads}-head {model.attention.replace('_', ' ')} attention"
    return (
        f"{model.wiring} wiring, {encoder.layers}+{decoder.layers} layers {'/'.join(dict.fromkeys(encoder.cells + decoder.cells))}, "
        f"width {'/'.join(map(str, dict.fromkeys(encoder.widths + decoder.widths)))}, embedding {model.embedding}, "
        f"{heads}" + (f", feed-forward {model.feed_forward}" if model.feed_forward else "")
    )


@dataclass(frozen=True)
class Bundle:
    """An opened and verified bundle; the weights are read by the backend."""

    path: Path
    config: BundleConfig
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    metrics: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Check the folder and open it; raise `BundleError` naming the file that is missing, damaged or unknown."""
        config = read_config(path)
        for name in (*dict.fromkeys(tokenizer_files(config.joint_vocabulary)), WEIGHTS):
            if name not in config.sha256:
                raise BundleError(f"{path / CONFIG}: no checksum of {name}: not a complete bundle")
        for name, digest in config.sha256.items():
            if Path(name).name != name:
                raise BundleError(f"{path / CONFIG}: {name!r} is not the name of a file of the bundle")
            _verify(path / name, digest)
        source, target = (Tokenizer.load(path / name) for name in tokenizer_files(config.joint_vocabulary))
        try:
            metrics = json.loads((path / METRICS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            metrics = {}
        except ValueError:
            raise BundleError(f"{path / METRICS}: not valid JSON") from None
        if not isinstance(metrics, dict):
            raise BundleError(f"{path / METRICS}: expected a JSON object, found {type(metrics).__name__}")
        return cls(path, config, source, target, metrics)

    @property
    def shortlist(self) -> Shortlist | None:
        """The lexical shortlist, where the bundle has one."""
        if shortlist.FILE not in self.config.sha256:
            return None
        return Shortlist.load(self.path / shortlist.FILE, len(self.source_tokenizer), len(self.target_tokenizer))

    @property
    def info(self) -> ModelInfo:
        """What may be said of the model."""
        config = self.config
        return ModelInfo(
            name=config.name,
            source_language=config.source_language,
            target_language=config.target_language,
            path=str(self.path),
            parameters=config.parameters,
            architecture=architecture(config.model),
            scores=list(self.metrics.get("scores", [])),
            digest=config.sha256[WEIGHTS],
            target_languages=config.target_languages,
        )


def check_alike(bundles: Sequence[Bundle]) -> None:
    """Raise `BundleError` naming the first of `bundles` that does not share the languages and tokenizers of the first one."""
    first = bundles[0]
    for other in bundles[1:]:
        languages = [f"{b.config.source_language} to {b.config.target_language}" for b in (first, other)]
        if languages[0] != languages[1]:
            raise BundleError(
                f"{other.path / CONFIG}: translates {languages[1]}, but {first.path} {languages[0]}: the models of an ensemble "
                "share both languages"
            )
        ours, theirs = ((b.source_tokenizer.model, b.target_tokenizer.model) for b in (first, other))
        for name, mine, its in zip(tokenizer_files(other.config.joint_vocabulary), ours, theirs, strict=True):
            if mine != its:
                raise BundleError(
                    f"{other.path / name}: not the tokenizer of {first.path}: the models of an ensemble share theirs "
                    "(train them on one prepared corpus)"
                )


def describe(bundles: Sequence[Bundle]) -> ModelInfo:
    """What may be said of the ensemble of `bundles`; scores were measured on a member alone and are left out."""
    infos = [bundle.info for bundle in bundles]
    return replace(
        infos[0],
        name=" + ".join(info.name for info in infos),
        parameters=sum(info.parameters for info in infos),
        architecture=f"ensemble of {len(infos)}: " + " + ".join(info.architecture for info in infos),
        scores=[],
        digest="+".join(info.digest for info in infos),
    )


def read_config(path: Path) -> BundleConfig:
    """`config.yaml` of the bundle at `path`, validated; raise `BundleError` otherwise."""
    if not path.is_dir():
        raise BundleError(f"{path}: no such bundle (make one with `nmt train` and `nmt bundle`)")
    if not (path / CONFIG).is_file():
        raise BundleError(f"{path}: not a model bundle: {CONFIG} is missing")
    try:
        data = nmt.config.read_yaml(path / CONFIG)
        if data.get("format") not in range(1, FORMAT + 1):
            raise BundleError(
                f"{path / CONFIG}: bundle format {data.get('format')}, this version reads 1 to {FORMAT} (a newer one needs a newer version)"
            )
        return nmt.config.parse(BundleConfig, data, str(path / CONFIG))
    except ConfigError as error:
        raise BundleError(str(error)) from None


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _verify(path: Path, digest: str) -> None:
    if not path.is_file():
        raise BundleError(f"{path}: missing from the bundle")
    if sha256(path) != digest:
        raise BundleError(
            f"{path}: damaged or cut short (its checksum is not the one in {CONFIG}); get the bundle again"
        )
