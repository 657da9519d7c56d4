"""The service beside the REST server that comes with OpenNMT-py: many clients with one sentence a request, in one run.

    benchmarks/peers.sh                       once: installs the peer in peers/
    python benchmarks/serve_opennmt.py        about three minutes on two quiet cores

Both serve models of benchmarks/decode.py: 2+2 LSTM layers of 512 units over the corpus's subwords, which have learned nothing and must say
exactly 15 subwords for each sentence, beam 5; so neither quality nor luck with lengths plays a part. They take turns, each started for its
turn and stopped after it, and are loaded from a process of their own by clients that each send the next test sentence when they have
their answer:

- ours: `python -m serving`, fused, int8 in ONNX Runtime, a worker of the engine a thread; from text to text.
- OpenNMT-py 3.5.1: `onmt_server`, bidirectional encoder, decoder with input feeding, fp32, trained for two updates. It is sent subwords
  and answers with subwords, so that they can be counted; what it saves by that is in its favour.

Rates leave out the first of the seconds, p50 the requests that were sent in it. A few answers of each are checked for their 15 subwords
before the load, all of them for a translation. Both listen to this machine alone.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import shlex
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import opennmt
import yaml
from decode import BATCH, LENGTH, backend_of, forced, trained, translator_of
from loadgen import DIALECTS, GOOD, Plan, Report, measure, percentile
from serve_sides import ROOT, Program, StartFailed, free_port, say
from training_speed import Turn

from nmt.corpus.store import PreparedCorpus
from nmt.errors import NMTError
from nmt.inference.translator import Translator
from nmt.training.machine import processor

BEAM, TARGET = 5, 10.0
OURS, PEER = "ours", "OpenNMT-py 3.5.1"
_CHECKED = 8  # answers, before a load


class Untrained:
    """The `loader` of our service: its bundle is a prepared corpus, whose vocabulary the model gets."""

    @classmethod
    def load(cls, path: Path, threads: int | None = None, device: str = "cpu") -> Translator:
        """Make the model of benchmarks/decode.py, which says 15 subwords whatever it is asked."""
        corpus = PreparedCorpus.open(path)
        translator = translator_of(corpus, backend_of(corpus, int8=True), threads or 1)
        translator.defaults = forced(BEAM)
        return translator


@dataclass(frozen=True)
class System:
    """A server, and how it is asked."""

    command: Callable[[int], list[str]]  # by its port
    variables: Mapping[str, str]  # of its environment
    dialect: str
    path: str
    requests: Sequence[Sequence[str]]
    lengths: Callable[[Any], list[int]]  # target subwords, in an answer

    def ask(self, port: int, texts: Sequence[str]) -> list[int] | None:
        """How many subwords it said for each text; None where it does not answer, or not with translations."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body = json.dumps(DIALECTS[self.dialect][0](texts))
        try:
            connection.request("POST", self.path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return self.lengths(json.loads(response.read())) if response.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError, LookupError):
            return None
        finally:
            connection.close()


@dataclass(frozen=True)
class Found:
    """What came of a turn."""

    rate: float  # sentences a second
    p50: float  # ms


# --- the two -------------------------------------------------------------------------------------------------------------


def service(corpus: Path, texts: Sequence[str], threads: int, folder: Path) -> System:
    """Ours."""

    def command(port: int) -> list[str]:
        args = {"models": [str(corpus.resolve())], "loader": "serve_opennmt:Untrained", "threads": threads}
        args |= {"fused": True, "cache": 0, "limits": {"requests_per_minute": 10_000_000}}
        file = {"http_options": {"host": "127.0.0.1", "port": port}, "applications": [{"args": args}]}
        (folder / "serve.yaml").write_text(yaml.safe_dump(file), encoding="utf-8")
        return [
            sys.executable,
            "-m",
            "serving",
            "--config",
            str(folder / "serve.yaml"),
            "--metrics-port",
            str(free_port()),
        ]

    variables = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "benchmarks")))}
    requests = [[text] for text in texts]
    return System(command, variables, "strata", "/v1/translate", requests, our_lengths)


def peer(model: Path, subwords: Sequence[str], threads: int, environment: Path, folder: Path) -> System:
    """OpenNMT-py's, for a model of its."""
    (folder / "conf.json").write_text(json.dumps(configuration(model)), encoding="utf-8")

    def command(port: int) -> list[str]:
        server = [str(environment.resolve() / "bin/onmt_server"), "--ip", "127.0.0.1", "--port", str(port)]
        return [*server, "--url_root", "/translator", "--model_config", str(folder / "conf.json")]

    number = str(threads)
    variables = {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""}
    variables |= {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    requests = [[line] for line in subwords]
    return System(command, variables, "opennmt", "/translator/translate", requests, its_lengths)


def configuration(model: Path) -> dict[str, Any]:
    """The file of `onmt_server`."""
    search = {"gpu": -1, "beam_size": BEAM, "min_length": LENGTH, "max_length": LENGTH, "batch_size": BATCH}
    return {
        "models_root": str(model.parent),
        "models": [{"id": 100, "model": model.name, "load": True, "timeout": -1, "opt": search}],
    }


def our_lengths(answer: Any) -> list[int]:
    """Of an answer of ours."""
    return [each["target_tokens"] for each in answer["details"]]


def its_lengths(answer: Any) -> list[int]:
    """Of an answer of OpenNMT-py's, in subwords; one with an error raises `LookupError`."""
    return [len(each["tgt"].split(" ")) for each in answer[0]]


def both(options: argparse.Namespace, corpus: PreparedCorpus, folder: Path) -> dict[str, System]:
    """The two by name; the peer's model is trained here. Raises `NMTError`."""
    data, run = folder / "data", folder / "opennmt"
    data.mkdir()
    run.mkdir()
    opennmt.write_data(corpus, data)
    subwords = (data / "test.source").read_text(encoding="utf-8").split("\n")[:-1]
    texts = [source for source, _ in corpus.pairs("test")]
    kept = [at for at, line in enumerate(subwords) if line][: options.sentences]
    model = trained(Turn(options, corpus, data, run), transformer=False)
    its = peer(model, [subwords[at] for at in kept], options.threads, options.peers / "opennmt", folder)
    return {OURS: service(options.corpus, [texts[at] for at in kept], options.threads, folder), PEER: its}


# --- measuring -----------------------------------------------------------------------------------------------------------


def turn(system: System, options: argparse.Namespace, folder: Path) -> Found:
    """Start it, check it, load it, stop it. Raises `StartFailed`."""
    port = free_port()
    program = Program(system.command(port), folder, port, system.variables)
    try:
        program.wait(lambda port: system.ask(port, system.requests[0]) is not None)
        for texts in system.requests[:_CHECKED]:
            if (said := system.ask(port, texts)) != [LENGTH] * len(texts):
                raise StartFailed(f"{said} subwords were said for {texts}, not {LENGTH} each")
        plan = Plan(port, system.requests, options.seconds, clients=options.clients)
        return found(measure(replace(plan, path=system.path, dialect=system.dialect)))
    finally:
        program.stop()


def found(report: Report) -> Found:
    """Its figures. Raises `StartFailed` where a request came to nothing, or all came too late."""
    warm = min(1.0, report.seconds / 5)
    if set(report.outcomes()) - {GOOD}:
        raise StartFailed(f"not every request was answered: {dict(report.outcomes())}")
    later = [1e3 * (each.done - each.sent) for each in report.answers if each.sent > warm]
    if not later or not report.rate(warm):
        raise StartFailed(f"nothing was answered within {report.seconds:g} s: more --seconds?")
    return Found(report.rate(warm), percentile(later, 0.5))


def measured(systems: Mapping[str, System], options: argparse.Namespace, folder: Path) -> dict[str, list[Found]]:
    """Every system in every round, each round in the reverse order of the one before."""
    results: dict[str, list[Found]] = {name: [] for name in systems}
    for number in range(options.rounds):
        for name in list(systems)[:: -1 if number % 2 else 1]:
            try:
                results[name].append(turn(systems[name], options, folder))
            except StartFailed as error:
                raise StartFailed(f"{name}: {error}") from None
            last = results[name][-1]
            say(f"round {number + 1}: {name}: {last.rate:,.1f} sentences/s, p50 {last.p50:,.0f} ms")
    return results


# --- the report ----------------------------------------------------------------------------------------------------------


def spread(values: Sequence[float]) -> str:
    """Median and range, as cells of a table."""
    shown = [f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in (min(values), max(values))]
    middle = statistics.median(values)
    return f"{middle:,.0f} | {' to '.join(shown)}" if middle >= 100 else f"{middle:.1f} | {' to '.join(shown)}"


def table(results: Mapping[str, Sequence[Found]]) -> str:
    """The figures, and ours over the peer's, round by round."""
    lines = ["| system | sentences/s, median | range | p50, ms | range |", "|---|---|---|---|---|"]
    for name, rounds in results.items():
        lines.append(f"| {name} | {spread([one.rate for one in rounds])} | {spread([one.p50 for one in rounds])} |")
    ratios = [mine.rate / its.rate for mine, its in zip(results[OURS], results[PEER], strict=True)]
    met = "met" if statistics.median(ratios) >= TARGET else "missed"
    lines += ["", "| ratio | median | range | target |", "|---|---|---|---|"]
    return "\n".join([*lines, f"| {OURS} / {PEER} | {spread(ratios)} | {TARGET:g}, {met} |"])


def circumstances(options: argparse.Namespace) -> str:
    """What is measured, and on what."""
    ours = [f"{name} {metadata.version(name)}" for name in ("ray", "fastapi", "onnxruntime")]
    packages = [str(path) for path in (options.peers / "opennmt/lib").glob("python3*/site-packages")]
    its = [
        f"{name} {one.version}"
        for name in ("OpenNMT-py", "torch", "flask", "waitress")
        for one in metadata.distributions(name=name, path=packages)
    ]
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    return "\n".join(
        (
            f"- command: `{shlex.join(['python', *sys.argv])}`",
            f"- machine: {processor()}, {cores} cores, load {load:.1f} before",
            f"- versions: Python {platform.python_version()}, {', '.join(ours)}; the peer's {', '.join(its)}",
            f"- {options.clients} clients with one sentence a request, {LENGTH} subwords each, beam {BEAM}, {options.threads} threads, "
            f"{options.seconds:g} s a load, {options.rounds} rounds",
        )
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print; 2 where one of the two could not be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("corpus", nargs="?", type=Path, default=ROOT / "data/prepared/multi30k-en-de")
    parser.add_argument("--peers", type=Path, default=ROOT / "peers", help="folder of their environments")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--sentences", type=int, default=1000, help="of the test split, at most")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped too
    print(circumstances(options), flush=True)
    with tempfile.TemporaryDirectory(prefix="serve-opennmt-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            systems = both(options, PreparedCorpus.open(options.corpus), folder)
            print(f"\n{table(measured(systems, options, folder))}", flush=True)
        except (NMTError, StartFailed) as error:
            print(f"serve_opennmt.py: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
