"""What a worker of `nmt train --ray` does. See `on_ray.py`."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import nmt.config
from nmt.corpus.store import PreparedCorpus
from nmt.errors import DataError, NMTError
from nmt.training.config import RunConfig
from nmt.training.trainer import Interrupted, Trainer
from nmt.training.world import LostProcesses, World, world


@dataclass(frozen=True)
class Order:
    """What a worker is told."""

    config: dict[str, Any]
    command: list[str]
    corpus_hash: str
    mark: str  # the name of a file in the run folder, by which the workers know that it is the same everywhere
    desk: Any


class _Lines(io.TextIOBase):
    """A text file whose lines go to the desk."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say, self._line = say, ""
        self.last: object = None  # what `say` returned last

    def write(self, text: str) -> int:
        """Keep what is not a whole line yet."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self.last = self._say(line)
        return len(text)


def work(order: dict[str, Any]) -> dict[str, Any]:
    """What every worker runs, in the process group that Ray Train has made: the training of one process of a world.

    Returns the progress, or under `interrupted` how it was stopped. Raises `LostProcesses`, after which Ray may begin again; an error of
    the user goes to the desk first, and the command ends the job.
    """
    import ray

    told = Order(**order)
    sys.argv[1:] = told.command  # for the record of the run
    try:
        config = nmt.config.parse(RunConfig, told.config, "the configuration")
        with world(config.train.device == "cuda") as here, _printing(ray, told.desk, here):
            check_storage(config, told, here)
            places = here.joined([f"{_place(ray)}, process {os.getpid()}"])
            if here.leads:
                ray.get(told.desk.tell.remote("up", f"{here.size} workers: {'; '.join(places)}"))
            here.wait()  # that is heard before any error
            return _run(ray, config, told.desk, here)
    except LostProcesses:
        raise
    except NMTError as error:
        ray.get(told.desk.tell.remote(type(error).__name__, str(error)))
        raise


def _run(ray: Any, config: RunConfig, desk: Any, here: World) -> dict[str, Any]:
    trainer = Trainer(config, world=here)

    def wait() -> None:
        with contextlib.suppress(ray.exceptions.RayError):  # the command is gone, and the job with it
            ray.get(desk.stopped.remote())
            trainer.ask_to_stop()

    if here.leads:  # it is enough that one of them knows
        threading.Thread(target=wait, daemon=True).start()
    try:
        return vars(trainer.run())
    except Interrupted as stopped:
        return {"interrupted": str(stopped)}


def check_storage(config: RunConfig, order: Order, here: World) -> None:
    """Raise `DataError` in all workers where one does not see the run folder and the corpus of the command."""
    found = [problem for problem in here.joined([problem_here(config, order)]) if problem]
    if found:
        more = f" (and {len(found) - 1} more workers)" if len(found) > 1 else ""
        raise DataError(f"{found[0]}{more}: put it on storage that all nodes mount at this path")


def problem_here(config: RunConfig, order: Order) -> str:
    """What this machine does not see of the run folder and the corpus; "" where all is well."""
    node = socket.gethostname()
    if not (config.run / order.mark).exists():
        return f"{config.run}: node {node} does not see this run folder"
    try:
        corpus = PreparedCorpus.open(config.corpus)
    except DataError as error:
        return f"{config.corpus}: node {node} does not see this corpus ({error})"
    if str(corpus.manifest["content_hash"]) != order.corpus_hash:
        return f"{config.corpus}: node {node} sees another corpus there"
    return ""


def _place(ray: Any) -> str:
    return f"{socket.gethostname()} ({ray.util.get_node_ip_address()})"


@contextlib.contextmanager
def _printing(ray: Any, desk: Any, here: World) -> Iterator[None]:
    """What the first worker prints goes to the user; what the others print stays in Ray's logs."""
    if not here.leads:
        yield
        return
    out = _Lines(lambda line: desk.tell.remote("out", line))
    err = _Lines(lambda line: desk.tell.remote("err", line))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield
    finally:
        ray.get([lines.last for lines in (out, err) if lines.last is not None])  # before Ray ends this process
