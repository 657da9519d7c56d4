"""`nmt train --ray`: the same training in the workers of Ray Train, which may be on many machines.

Ray places the workers, joins them in a process group and replaces those that die; training, log and checkpoints are our own. What the
workers have to say goes over one small actor, the `Desk`, beside the command: lines for the user, a user's error, the wish to stop.
Ray is imported only when it is asked for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import nmt.config
import nmt.errors
from nmt.cluster import beside, connect, import_ray, last_line
from nmt.errors import ConfigError, NMTError, TrainingError
from nmt.training.checkpoint import Checkpoints
from nmt.training.config import RunConfig
from nmt.training.ray_desk import Desk
from nmt.training.ray_worker import Order, work
from nmt.training.trainer import Interrupted, Progress, rehearse
from nmt.training.world import PATIENCE, LostProcesses

_ENVIRONMENT = {  # what the user has set stays
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon the end of a worker is noticed
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}
_OWN = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"} | (  # no cloud takes the machine of a cluster of our own away
    {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
)
_STANDS = "the checkpoints are intact, the same command goes on from the last"
_WAITING_S = 30  # before it is said that the workers have not begun


@dataclass(frozen=True)
class RayOptions:
    """Where to train: `address` of a cluster ("" for one of our own on this machine), so many workers, so many new beginnings."""

    address: str
    workers: int
    max_restarts: int = 0


def train_on_ray(config: RunConfig, options: RayOptions, before: Callable[[], None] = lambda: None) -> Progress:
    """Train in `options.workers` workers of Ray Train; return what `Trainer.run` returns. `before` is called when all is ready for them.

    To be called in the main thread, which has the signals. Raises `Interrupted` at Ctrl-C or SIGTERM, `ConfigError` where Ray, a cluster
    or its GPUs are missing, the `NMTError` of a worker as if it had been raised here, and `TrainingError` when workers die more than
    `options.max_restarts` times.
    """
    with _Asked() as asked:
        try:
            ray = _import_ray(options.address)
            config = _absolute(config)
            corpus_hash = rehearse(config)  # before Ray starts
            connect(ray, options.address, options.workers * _threads(config))
            asked.listen()
            try:
                config = _on(_device(ray, config, options.workers), config)
                before()
                with _marked(config.run) as mark:
                    order = Order(config.model_dump(mode="json"), sys.argv[1:], corpus_hash, mark, _desk(ray))
                    return _Job(ray, config, options, order, asked).run()
            finally:
                ray.shutdown()
        except (KeyboardInterrupt, SystemExit):  # the second is what Ray makes of SIGTERM while it starts
            if asked.error is not None:
                raise asked.error from None
            steps = Checkpoints(config.run, config.train.keep).steps()
            stands = f"the same command goes on from step {steps[-1]}" if steps else "nothing has been saved yet"
            raise Interrupted(f"stopped at once; {stands}") from None


class _Asked:
    """Ctrl-C and SIGTERM: the first is counted while workers can save, any other is a `KeyboardInterrupt`.

    Ray's calls let that one through, and no other exception.
    """

    def __init__(self) -> None:
        self.times = 0
        self.can_wait = False
        self.error: NMTError | None = None

    def __enter__(self) -> _Asked:
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.listen()
        return self

    def listen(self) -> None:
        """Take the signals, which Ray takes for itself when it starts."""
        for number in self._before:
            signal.signal(number, self._hear)

    def leave(self, error: NMTError) -> None:
        """Have the main thread leave what it does for this error of another thread."""
        self.error = error
        signal.raise_signal(signal.SIGTERM)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.times += self.error is None
        if self.error is not None or not self.can_wait or self.times > 1:
            raise KeyboardInterrupt

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class _Job:
    """One call of Ray Train in the main thread, and in another the conversation with its workers."""

    def __init__(self, ray: Any, config: RunConfig, options: RayOptions, order: Order, asked: _Asked) -> None:
        self._ray, self._config, self._options, self._order, self._asked = ray, config, options, order, asked
        self._ups = 0  # how often all workers have begun
        self._over = threading.Event()

    def run(self) -> Progress:
        """Start, pass on what the workers say, and return the progress of the first of them."""
        from ray.train import TrainingFailedError

        listener = threading.Thread(target=self._listen, daemon=True)
        with tempfile.TemporaryDirectory() as scratch:  # for Ray Train's own checkpoints, of which there are none
            trainer = self._trainer(scratch)
            listener.start()
            try:
                returned = trainer.fit().return_value
            except TrainingFailedError as error:
                raise self._explained(error) from None
            except self._ray.exceptions.RayError as error:
                raise TrainingError(f"lost Ray ({last_line(error)}); {_STANDS}") from None
            finally:
                self._over.set()
                listener.join()  # Ray can't be shut down under it
        if "interrupted" in returned:
            raise Interrupted(returned["interrupted"])
        return Progress(**returned)

    def _trainer(self, scratch: str) -> Any:
        from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        gpu = self._config.train.device == "cuda"
        resources = {"CPU": float(_threads(self._config))} | ({"GPU": 1.0} if gpu else {})
        trainer = TorchTrainer(
            work,
            train_loop_config=vars(self._order),  # what Ray's own processes can read without importing us
            torch_config=TorchConfig(timeout_s=int(PATIENCE.total_seconds())),
            scaling_config=ScalingConfig(
                num_workers=self._options.workers, use_gpu=gpu, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name="job",
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=self._options.max_restarts),
                logging_config=LoggingConfig(log_level="CRITICAL"),
            ),
        )
        # Ray's handler of Ctrl-C would end this process; ours lets the workers save.
        trainer._register_sigint_handler = lambda controller: None
        return trainer

    def _listen(self) -> None:
        """Until the job is over: print what comes, break it off at a user's error, pass on the wish to stop."""
        try:
            self._converse()
        except NMTError as error:
            self._asked.leave(error)
        except self._ray.exceptions.RayError:
            pass  # the main thread notices too

    def _converse(self) -> None:
        begun, waiting, told = time.monotonic(), None, False
        desk = self._order.desk
        while True:
            self._asked.can_wait = self._ups > 0
            if self._asked.times and not told:
                self._ray.get(desk.stop.remote())
                told = True
            if not self._ups and time.monotonic() - begun > _WAITING_S:
                begun = float("inf")
                free = self._ray.available_resources()
                _say(f"waiting for {self._options.workers} workers; free in the cluster: {_counted(free)}")
            over = self._over.is_set()
            waiting = waiting or desk.hear.remote()
            if self._ray.wait([waiting], timeout=0.2)[0]:
                self._read(self._ray.get(waiting))
                waiting = None
            elif over:
                return

    def _read(self, letters: list[tuple[str, str]]) -> None:
        for kind, text in letters:
            if kind == "out":
                print(text)
            elif kind == "err":
                _say(text)
            elif kind == "up":
                if self._ups:
                    _say(f"a worker was lost, all have begun again: restart {self._ups}")
                self._ups += 1
                _say(text)
            else:
                error: type[NMTError] = getattr(nmt.errors, kind, TrainingError)
                raise error(text)

    def _explained(self, failure: BaseException) -> NMTError:
        """A failure of Ray Train in words: which worker it was, and what it died of."""
        if self._asked.error is not None:
            return self._asked.error
        failures: dict[int, BaseException] = getattr(failure, "worker_failures", {})
        first = {rank: error for rank, error in failures.items() if not isinstance(error, LostProcesses)} or failures
        after = f", restarts: {self._ups - 1}" if self._ups > 1 else ""
        if not first:
            return TrainingError(f"Ray Train ended ({last_line(failure)}){after}; {_STANDS}")
        rank, error = min(first.items())
        who = f"worker {rank} of {self._options.workers}"
        if type(error).__name__ == "WorkerHealthCheckFailedError":
            return TrainingError(f"{who} died{after}; {_STANDS}")
        if not isinstance(error, LostProcesses):
            _say(str(failure))  # with its traceback: a defect, or a GPU that is full
        return TrainingError(f"{who} failed ({type(error).__name__}: {last_line(error)}){after}; {_STANDS}")


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _counted(resources: dict[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"


def _threads(config: RunConfig) -> int:
    return config.train.threads or 1


def _import_ray(address: str) -> Any:
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
    return import_ray("ray.train.torch", "Ray Train", address, _ENVIRONMENT | ({} if address else _OWN))


def _absolute(config: RunConfig) -> RunConfig:
    """The configuration with paths that mean the same in every process."""
    paths = {name: Path(os.path.abspath(getattr(config, name))) for name in ("corpus", "run")}
    return config.model_copy(update=paths)


def _on(device: str, config: RunConfig) -> RunConfig:
    return config.model_copy(update={"train": config.train.model_copy(update={"device": device})})


def _device(ray: Any, config: RunConfig, workers: int) -> str:
    """The device that all workers can have; raise `ConfigError` where it is to be a GPU and there are not as many."""
    gpus = ray.cluster_resources().get("GPU", 0)
    if config.train.device == "cuda" and gpus < workers:
        raise ConfigError(f"--workers {workers}: train.device is cuda and the cluster has {gpus:g} GPUs")
    return "cuda" if config.train.device != "cpu" and gpus >= workers else "cpu"


@contextlib.contextmanager
def _marked(run: Path) -> Iterator[str]:
    """The name of a file in the run folder that is there for as long as the job."""
    mark = run / f".ray-{uuid.uuid4().hex}"
    try:
        run.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        raise TrainingError(f"{run}: cannot be written to ({error.strerror or error}): see to the folder") from None
    try:
        yield mark.name
    finally:
        mark.unlink(missing_ok=True)


def _desk(ray: Any) -> Any:
    return beside(ray, Desk)
