"""Settings of the service: the `args` of the application in `configs/serve.yaml`. Every limit is on by default."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

import nmt
from nmt.config import Section, parse, read_yaml
from nmt.errors import BundleError, ConfigError
from nmt.inference.bundle import Bundle
from nmt.inference.types import DecodeOptions

TRANSLATOR = "nmt.inference.translator:Translator"
APPLICATION = "strata"
IMPORT_PATH = "serving.app:build"


class Limits(Section):
    """What one request may ask for; more is refused with a 4xx that names the limit."""

    characters: int = Field(20_000, ge=1, description="characters of one text")
    texts: int = Field(128, ge=1, description="texts of one request")
    total_characters: int = Field(100_000, ge=1, description="characters of all texts of one request")
    body_bytes: int = Field(1_048_576, ge=1024, description="bytes of the request body")
    n_best: int = Field(10, ge=1, le=64, description="translations of each text")
    beam_size: int = Field(16, ge=1, le=64, description="hypotheses of the search")
    body_seconds: float = Field(20.0, gt=0, description="time in which the whole body must have arrived")
    requests_per_minute: int = Field(
        6000, ge=1, description="requests of one key, or of one address where no keys are asked for, at each gateway"
    )

    characters_per_month: int | None = Field(
        None,
        ge=1,
        description="characters of one key, or address, in a calendar month, at each gateway; null: any number",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Limits:
        if self.n_best > self.beam_size:
            raise ValueError(f"n_best {self.n_best} could never be reached with beam_size {self.beam_size}")
        return self


class Files(Section):
    """Documents that are translated: how large, how many, and for how long they are kept."""

    bytes: int = Field(20_000_000, ge=1024, description="bytes of one file")
    characters: int = Field(1_000_000, ge=1, description="characters of its text")
    kept: int = Field(100, ge=1, description="documents at the same time, waiting, running and finished")
    total_bytes: int = Field(200_000_000, ge=1024, description="bytes of all of them together")
    at_a_time: int = Field(2, ge=1, description="documents that are being translated at the same time")
    expire_s: float = Field(3600.0, gt=0, description="how long a document is kept once it is finished")
    wait_s: float = Field(600.0, gt=0, description="how long /translate_file waits for its document")


class Queue(Section):
    """How much may wait; what comes on top is answered 429 at once."""

    texts: int = Field(512, ge=1, description="texts that one translator replica has in hand, waiting or running")
    requests: int = Field(256, ge=1, description="requests that one gateway handles at the same time")


class Autoscale(Section):
    """How many replicas of a model there are, by what its engines have waiting."""

    min_replicas: int = Field(1, ge=1, le=256)
    max_replicas: int = Field(4, ge=1, le=256)
    waiting_tokens: int = Field(2000, ge=1, description="source subwords waiting for which there is one replica more")
    up_s: float = Field(5.0, ge=0, description="how long there must be more to do before a replica is added")
    down_s: float = Field(120.0, ge=0, description="how long there must be less to do before one is taken away")

    @model_validator(mode="after")
    def _consistent(self) -> Autoscale:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is less than min_replicas {self.min_replicas}")
        return self


class ServeConfig(Section):
    """The whole service."""

    models: list[str] = Field(min_length=1, description="bundle folders, absolute, or relative to here or to the clone")
    replicas: int = Field(1, ge=1, le=256, description="translator processes of each model")
    threads: int | None = Field(
        None,
        ge=1,
        description="running batches of each replica, a processor thread each; null shares out all cores among the replicas",
    )
    autoscale: Autoscale | None = Field(None, description="in the place of `replicas`: as many as are needed")
    device: Literal["cpu", "cuda"] = Field("cpu", description="cuda: each replica has a GPU of its own")
    gateways: int = Field(1, ge=1, le=64, description="gateway processes")
    fused: bool | None = Field(
        None,
        description="the gateway translates itself, a hop less; null: where there is one gateway and one replica of each model",
    )
    cache: int = Field(
        200_000, ge=0, description="subwords of sentences and translations that a replica remembers, 100 bytes each"
    )
    pivot: bool = Field(
        True, description="translate by two models through a shared language where no model does it directly"
    )
    keys: str | None = Field(None, description="file of API keys (python -m serving.keys); null: none is asked for")
    proxies: int = Field(0, ge=0, le=8, description="further proxies in front, whose X-Forwarded-For is to be believed")
    deadline_s: float = Field(60.0, gt=0, le=3600, description="longest time that a request may take")
    drain_s: float = Field(60.0, ge=0, le=3600, description="longest time that requests in flight get at shutdown")
    limits: Limits = Limits()
    files: Files = Files()
    queue: Queue = Queue()
    decode: DecodeOptions | None = Field(None, description="replaces the decode defaults of the bundles")
    loader: str = Field(TRANSLATOR, pattern=r"^[\w.]+:\w+$", description="`module:class` of the translator")

    @model_validator(mode="after")
    def _consistent(self) -> ServeConfig:
        if self.queue.texts < self.limits.texts:
            raise ValueError(
                f"queue.texts {self.queue.texts} is less than limits.texts {self.limits.texts}: "
                "the largest request would be refused forever"
            )
        if len(set(self.models)) < len(self.models):
            raise ValueError("models names the same bundle twice; use replicas for more processes")
        if self.fused and not self._single:
            raise ValueError(
                "fused: true is for one gateway and one replica: leave it out, or autoscale and the numbers"
            )
        return self

    @property
    def _single(self) -> bool:
        return self.replicas == 1 and self.gateways == 1 and self.autoscale is None

    @property
    def one_hop(self) -> bool:
        """Whether the gateway translates itself."""
        return self._single if self.fused is None else self.fused

    @property
    def most_replicas(self) -> int:
        """Replicas of each model, at most."""
        return self.autoscale.max_replicas if self.autoscale else self.replicas


class HTTPOptions(Section):
    """The part of `http_options` of a Ray Serve file that the launcher understands."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    request_timeout_s: float | None = Field(None, gt=0)
    keep_alive_timeout_s: int | None = Field(None, ge=1)


class Application(Section):
    """One entry of `applications` of a Ray Serve file."""

    name: str = APPLICATION
    route_prefix: str = "/"
    import_path: str = IMPORT_PATH
    args: ServeConfig


class ServeFile(Section):
    """A Ray Serve configuration file with our application in it; `serve run` reads the same file."""

    proxy_location: str = "EveryNode"
    http_options: HTTPOptions = HTTPOptions()
    logging_config: dict[str, Any] = Field({"encoding": "JSON"}, description="as Ray Serve has it")
    tracing_config: dict[str, Any] | None = Field(None, description="as Ray Serve has it")
    applications: list[Application] = Field(min_length=1, max_length=1)

    @property
    def application(self) -> Application:
        """The one application."""
        return self.applications[0]


def load(path: Path, models: Sequence[str] = (), host: str | None = None, port: int | None = None) -> ServeFile:
    """Read a Ray Serve file; arguments that are given replace its values. Raises `ConfigError`."""
    data = read_yaml(path)
    if models:
        applications = data.get("applications")
        if isinstance(applications, list) and applications and isinstance(applications[0], dict):
            args = applications[0].setdefault("args", {})
            if isinstance(args, dict):
                args["models"] = list(models)
    options = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    if options and isinstance(data.setdefault("http_options", {}), dict):
        data["http_options"].update(options)
    return parse(ServeFile, data, str(path))


def parse_args(args: dict[str, Any]) -> ServeConfig:
    """Validate the `args` that Ray Serve gives to `serving.app:build`. Raises `ConfigError`."""
    return parse(ServeConfig, args, "args of the application")


def find_model(model: str) -> Path:
    """The folder of a bundle: as given, or relative to the folder that holds the `nmt` package (the clone).

    Raises `BundleError` that says how to get a model.
    """
    path = Path(model).expanduser()
    root = Path(nmt.__file__).resolve().parent.parent
    for candidate in (path, root / path):
        if candidate.is_dir():
            return candidate.resolve()
    raise BundleError(
        f"{model}: no such model. Make one with `nmt train` and then `nmt bundle`, or give the folder of one: "
        "nmt serve FOLDER (a clone of the repository holds one in data/pretrained)"
    )


def check_models(config: ServeConfig) -> list[Path]:
    """Open every bundle without its weights; return the folders. Raises `BundleError`, or `ConfigError` for equal names."""
    paths = [find_model(model) for model in config.models]
    if config.loader != TRANSLATOR:
        return paths
    names: dict[str, Path] = {}
    for path in paths:
        name = Bundle.open(path).info.name
        if name in names:
            raise ConfigError(f"{path} and {names[name]} are both named {name!r}: rename one in its config.yaml")
        names[name] = path
    return paths
