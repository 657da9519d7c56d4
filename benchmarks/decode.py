"""The rate of decoding on the CPU: ours beside the peers, in one run; the latency of a sentence, and what each means of ours brings.

    benchmarks/peers.sh                              once: installs the peers in peers/
    python benchmarks/decode.py                      about ten minutes on two quiet cores
    python benchmarks/decode.py --peers none --rounds 1

All have 2+2 LSTM layers of 512 units over the corpus's subwords, untrained, and must say exactly 15 subwords for each of the first
1,000 test sentences, in batches of 64; so neither quality nor luck with lengths plays a part. They take turns:

- ours: `Translator` from text to text, int8 in ONNX Runtime, one worker of the engine a thread; the same within a lexical shortlist that
  is learned from the corpus; and in fp32.
- OpenNMT-py 3.5.1: bidirectional encoder, decoder with input feeding, fp32, as it has nothing else on a CPU; the wall time of
  `onmt_translate` less that of a run with two sentences.
- JoeyNMT 2.3.0: the same shape; the time that its log says generation took.
- CTranslate2: a Transformer of 2+2 layers of 512 with 1,024 inside, int8, for orientation: it has no recurrent models. Its time of
  `translate_batch` on subwords alone.

Then, ours alone: milliseconds for one sentence of 15 subwords on one thread; the share of the rate of int8 products that a step reaches;
time by length; workers against threads; the bundled model with its sentences coming and going against fixed batches of 64.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import opennmt
import torch
from training_speed import Turn, joeynmt_settings, rates_table, spread

from nmt.corpus.store import PreparedCorpus
from nmt.errors import NMTError
from nmt.inference.bundle import Bundle, ModelInfo
from nmt.inference.engine import Engine
from nmt.inference.onnx_backend import OnnxBackend, int8_is_exact
from nmt.inference.onnx_graph import ModelGraphs
from nmt.inference.output import Vocabularies
from nmt.inference.search import Sentence, beam_search
from nmt.inference.shortlist import Shortlist
from nmt.inference.translator import Translator
from nmt.inference.types import DecodeOptions
from nmt.inference.weights import Stored, int8_rows
from nmt.model.config import ModelConfig
from nmt.model.seq2seq import Seq2Seq
from nmt.text.tokenizer import EOS
from nmt.training.lexicon import learn_lexicon, make_shortlist
from nmt.training.machine import processor

LENGTH, BATCH, HIDDEN = 15, 64, 512
BEAMS = (1, 5)
_START = """
import time; start = time.perf_counter()
import json, sys
from pathlib import Path
from nmt.inference.translator import Translator
translator = Translator.load(Path(sys.argv[1]), threads=int(sys.argv[2]))
translator.translate(["Good morning!"])
first = time.perf_counter() - start
lines = [json.loads(line)["source"] for line in open(sys.argv[3], encoding="utf-8")]
for _ in range(4): translator.translate(lines)
# Not getrusage, which counts what the process that started this one held.
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([first, int(peak) * 1024 / 1e6]))
"""
BUNDLE = Path("data/pretrained/tatoeba-en-de")
_JOEYNMT = """
import sys
sys.stdin = open(sys.argv[1], encoding="utf-8")
sys.argv[:] = ["joeynmt", "translate", *sys.argv[2:]]  # with a file for the output it fails
from joeynmt import prediction
from joeynmt.__main__ import main
search, length = prediction.search, int(sys.argv.pop())

def forced(**options):
    output, *others = search(**options | {"min_output_length": length})  # which its own call forgets
    assert output.shape[1] == length, output.shape
    return output, *others

prediction.search = forced
main()
"""
_CTRANSLATE2 = """
import ctranslate2, json, sys, time
model, source, beam, threads, batch, length = sys.argv[1:]
lines = [line.split() for line in open(source, encoding="utf-8")]
translator = ctranslate2.Translator(model, device="cpu", compute_type="int8", inter_threads=1, intra_threads=int(threads))
options = dict(beam_size=int(beam), max_batch_size=int(batch), min_decoding_length=int(length), max_decoding_length=int(length))
translator.translate_batch(lines[:8], **options)
start = time.perf_counter()
found = translator.translate_batch(lines, **options)
print(json.dumps({"seconds": time.perf_counter() - start, "tokens": sum(len(one.hypotheses[0]) for one in found)}))
"""


def backend_of(corpus: PreparedCorpus, int8: bool, threads: int = 1, shortlist: Shortlist | None = None) -> OnnxBackend:
    """An untrained model that never ends by itself."""
    stack = {"layers": 2, "hidden": HIDDEN}
    config = ModelConfig.model_validate({"embedding": HIDDEN, "wiring": "gnmt", "encoder": stack, "decoder": stack})
    torch.manual_seed(1)
    vocabulary = corpus.manifest["vocabulary"]
    model = Seq2Seq(config, vocabulary["source"], vocabulary["target"])
    with torch.no_grad():
        model.output_bias[EOS] = -1e4
    weights = {name: Stored(value.numpy()) for name, value in model.state_dict().items()}
    if int8:
        weights = {name: int8_rows(one.values) if one.values.ndim == 2 else one for name, one in weights.items()}
    return OnnxBackend(ModelGraphs(config, weights, signed=int8_is_exact()), threads, shortlist)


def translator_of(corpus: PreparedCorpus, backend: OnnxBackend, workers: int) -> Translator:
    """From text to text."""
    info = ModelInfo("untrained", *corpus.languages, "", 0, "", [], "")
    return Translator(
        backend, Vocabularies(corpus.source_tokenizer, corpus.target_tokenizer), info, DecodeOptions(), 1000, workers
    )


def forced(beam: int, length: int = LENGTH, shortlist: bool = False) -> DecodeOptions:
    """Exactly so many target subwords, from a model that never ends by itself."""
    return DecodeOptions(beam_size=beam, max_length_ratio=1e-6, max_length_extra=length, shortlist=shortlist)


def seconds_of(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def finish(engine: Engine, sentences: Sequence[Sentence]) -> None:
    """Search for sentences and wait for the last."""
    for each in engine.submit_all(sentences):
        each.result()


# --- systems in turn -----------------------------------------------------------------------------------------------------


def ours(
    corpus: PreparedCorpus, texts: list[str], threads: int, int8: bool, shortlist: Shortlist | None = None
) -> Callable[[int], float]:
    """Sentences a second by beam."""
    translator = translator_of(corpus, backend_of(corpus, int8, shortlist=shortlist), threads)

    def rate(beam: int) -> float:
        options = forced(beam, shortlist=shortlist is not None)
        translator.translate(texts[:BATCH], options)
        return len(texts) / seconds_of(lambda: translator.translate(texts, options))

    return rate


def trained(turn: Turn, transformer: bool) -> Path:
    """A checkpoint of OpenNMT-py that has been trained for two updates."""
    options = argparse.Namespace(layers=2, hidden=HIDDEN, dropout=0.2, lr=1e-3, seed=1, batch_tokens=4096)
    settings = opennmt.settings(options, turn.data, 2, turn.corpus.joint) | {
        "save_data": str(turn.folder / "samples"),
        "save_model": str(turn.folder / "model"),
        "valid_steps": 1000,
        "save_checkpoint_steps": 2,
        "report_every": 1,
    }
    if transformer:
        kind = {"encoder_type": "transformer", "decoder_type": "transformer", "heads": 8, "transformer_ff": 1024}
        del settings["rnn_type"]
        settings |= kind | {"position_encoding": True, "self_attn_type": "scaled-dot", "global_attention": "general"}
    turn.call(turn.options.peers / "opennmt/bin/onmt_train", "--config", turn.write(settings))
    return opennmt.checkpoints(turn.folder)[-1]


def opennmt_rate(
    turn: Turn, checkpoint: Path, source: Path, threads: int, batch: int = BATCH
) -> Callable[[int], float]:
    """Sentences a second of `onmt_translate` by beam."""
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    (turn.folder / "two").write_text("".join(lines[:2]), encoding="utf-8")

    def seconds(file: Path, beam: int) -> float:
        length = ("-min_length", str(LENGTH), "-max_length", str(LENGTH), "-batch_size", str(batch))
        arguments = ("-model", str(checkpoint), "-src", str(file), "-output", str(turn.folder / "output"), "-gpu", "-1")
        return seconds_of(
            lambda: turn.call(
                turn.options.peers / "opennmt/bin/onmt_translate", *arguments, *length, "-beam_size", str(beam)
            )
        )

    return lambda beam: (len(lines) - 2) / (seconds(source, beam) - seconds(turn.folder / "two", beam))


def joeynmt_rate(turn: Turn, source: Path) -> Callable[[int], float]:
    """Sentences a second of `joeynmt translate` by beam."""
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    for side, tokenizer in (("source", turn.corpus.source_tokenizer), ("target", turn.corpus.target_tokenizer)):
        opennmt.write_pieces(turn.data / f"{side}.pieces", ([name] for name in opennmt.vocabulary(tokenizer)))
        (turn.folder / f"two.{side}").write_text("".join(lines[:2]), encoding="utf-8")  # what it is validated on
    shape = argparse.Namespace(**vars(turn.options), layers=2, hidden=HIDDEN, batch_tokens=4096, peer_updates=2)
    settings = joeynmt_settings(replace(turn, options=shape))
    settings["data"]["dev"] = str(turn.folder / "two")
    settings["training"]["validation_freq"] = 2  # after which it is stored
    tool = turn.options.peers / "joeynmt/bin/python"
    turn.call(tool, "-m", "joeynmt", "train", "--skip-test", turn.write(settings))
    settings["testing"] = {"batch_size": BATCH, "batch_type": "sentence", "min_output_length": LENGTH}
    settings["testing"] |= {"max_output_length": LENGTH, "beam_alpha": 1.0}

    def rate(beam: int) -> float:
        settings["testing"]["beam_size"] = beam
        log = turn.call(tool, "-c", _JOEYNMT, str(source), turn.write(settings), str(LENGTH))
        return len(lines) / float(re.findall(r"Generation took ([\d.]+)\[sec\]", log)[-1])

    return rate


def ctranslate2_rate(turn: Turn, source: Path) -> Callable[[int], float]:
    """Sentences a second of CTranslate2 by beam."""
    peer, model = turn.options.peers / "opennmt/bin", turn.folder / "converted"
    checkpoint = trained(turn, transformer=True)
    convert = ("--model_path", str(checkpoint), "--output_dir", str(model), "--quantization", "int8")
    turn.call(peer / "ct2-opennmt-py-converter", *convert, "--unsafe_deserialization")
    count = len(source.read_text(encoding="utf-8").splitlines())

    def rate(beam: int) -> float:
        shape = map(str, (beam, turn.options.threads, BATCH, LENGTH))
        output = turn.call(peer / "python", "-c", _CTRANSLATE2, str(model), str(source), *shape)
        result = json.loads(output.splitlines()[-1])
        assert result["tokens"] == count * LENGTH, result
        return float(count / result["seconds"])

    return rate


def compared(options: argparse.Namespace, corpus: PreparedCorpus, folder: Path) -> dict[str, list[float]]:
    """Sentences a second of every system and beam, round by round."""
    texts = [source for source, _ in corpus.pairs("test")][: options.sentences]
    shortlist = make_shortlist(learn_lexicon(corpus), len(corpus.source_tokenizer))
    systems = {
        "ours int8": ours(corpus, texts, options.threads, int8=True),
        "ours int8 within a shortlist": ours(corpus, texts, options.threads, int8=True, shortlist=shortlist),
        "ours fp32": ours(corpus, texts, options.threads, int8=False),
    }
    if (options.peers / "opennmt/bin").is_dir():
        data = folder / "data"
        data.mkdir()
        opennmt.write_data(corpus, data)
        source = folder / "test.source"
        lines = (data / "test.source").read_text(encoding="utf-8").splitlines(keepends=True)
        source.write_text("".join(lines[: options.sentences]), encoding="utf-8")
        turns = [Turn(options, corpus, data, folder / name) for name in ("opennmt", "ctranslate2", "joeynmt")]
        for turn in turns:
            turn.folder.mkdir()
        systems["OpenNMT-py 3.5.1"] = opennmt_rate(turns[0], trained(turns[0], False), source, options.threads)
        systems["JoeyNMT 2.3.0"] = joeynmt_rate(turns[2], source)
        systems["CTranslate2 Transformer int8"] = ctranslate2_rate(turns[1], source)
    elif options.peers != Path("none"):
        print(f"the peers are left out: {options.peers}/opennmt is missing: install it with benchmarks/peers.sh")
    rates: dict[str, list[float]] = {f"{name}, beam {beam}": [] for name in systems for beam in BEAMS}
    for number in range(options.rounds):
        for name in list(systems)[:: -1 if number % 2 else 1]:
            for beam in BEAMS:
                rates[f"{name}, beam {beam}"].append(systems[name](beam))
                print(
                    f"round {number + 1}: {name}, beam {beam}: {rates[f'{name}, beam {beam}'][-1]:,.0f} sentences/s",
                    flush=True,
                )
    return rates


# --- ours alone ----------------------------------------------------------------------------------------------------------


def sentence_ms(corpus: PreparedCorpus) -> dict[str, float]:
    """Milliseconds for a sentence of 15 subwords that gives 15, on one thread, by beam: median of 50."""
    engine = Engine(
        backend_of(corpus, int8=True, shortlist=make_shortlist(learn_lexicon(corpus), len(corpus.source_tokenizer)))
    )
    ids, found = [*range(10, 10 + LENGTH - 1), EOS], {}
    for beam in BEAMS:
        for shortlist in (False, True):
            options = forced(beam, shortlist=shortlist)
            times = [seconds_of(lambda options=options: engine.submit(ids, options).result()) for _ in range(55)]  # type: ignore[misc]
            found[f"beam {beam}{' within a shortlist' if shortlist else ''}"] = 1e3 * statistics.median(times[5:])
    engine.close()
    return found


def step_share(corpus: PreparedCorpus) -> dict[str, float]:
    """Of the rate that int8 products reach in `torch._int_mm` on one thread (2048 x 2048 x 2048), what a step reaches, by rows."""
    torch.set_num_threads(1)
    a, b = (torch.randint(-127, 127, (2048, 2048), dtype=torch.int8) for _ in range(2))
    peak = 2 * 2048**3 / min(seconds_of(lambda: torch._int_mm(a, b)) for _ in range(5))
    backend, vocabulary = backend_of(corpus, int8=True), corpus.manifest["vocabulary"]["target"]
    # The lowest layer's product with the word comes out of a table.
    products = HIDDEN * (4 * HIDDEN + 4 * (2 * HIDDEN + HIDDEN) + HIDDEN + 2 * HIDDEN + vocabulary)
    shares = {"peak, GOP/s": peak / 1e9}
    for sentences, beam in ((1, 1), (64, 1), (64, 5)):
        rows = backend.running(beam, 16)
        rows.insert(backend.encode([[*range(10, 20), EOS]] * sentences))
        step = partial(rows.step, np.full(sentences * beam, 7), 2 * beam + 3)
        seconds = statistics.median(seconds_of(step) for _ in range(30))
        shares[f"{sentences * beam} rows, ms"] = 1e3 * seconds
        shares[f"{sentences * beam} rows, share"] = 2 * products * sentences * beam / seconds / peak
    return shares


def by_length(corpus: PreparedCorpus) -> dict[str, float]:
    """Milliseconds a target subword of 16 sentences as long as their translations, beam 5."""
    backend, found = backend_of(corpus, int8=True), {}
    engine = Engine(backend)
    for length in (10, 30, 100, 250, 500):
        ids = [*(EOS + 1 + i % (backend.vocabulary - EOS - 1) for i in range(length - 1)), EOS]
        sentences = [Sentence(ids, forced(5, length)) for _ in range(16)]
        seconds = seconds_of(partial(finish, engine, sentences))
        found[f"{length} subwords"] = 1e3 * seconds / (16 * length)
    engine.close()
    return found


def memory_kb(corpus: PreparedCorpus) -> dict[str, float]:
    """What a running batch holds, in KB: the state of a row, which is of one size at every length, and keys and values of a sentence, for
    each source subword that there is room for."""
    encoded = backend_of(corpus, int8=True).encode([[*range(10, 10 + LENGTH - 1), EOS]])
    state, memory = (sum(part.nbytes for part in parts) for parts in (encoded.state, encoded.memory))
    return {
        "a row's state": 2 * state / 1024,
        "a source subword": memory / LENGTH / 1024,
    }  # states before and after a step


def divided(corpus: PreparedCorpus, options: argparse.Namespace) -> dict[str, float]:
    """Sentences a second, beam 5, when all threads are workers, and when one worker's operations are divided."""
    texts = [source for source, _ in corpus.pairs("test")][: options.sentences]
    found = {}
    for name, workers, threads in (("workers", options.threads, 1), ("threads", 1, options.threads)):
        translator = translator_of(corpus, backend_of(corpus, int8=True, threads=threads), workers)
        translator.translate(texts[:BATCH], forced(5))
        rates = [len(texts) / seconds_of(lambda: translator.translate(texts, forced(5))) for _ in range(options.rounds)]  # noqa: B023
        found[f"{max(workers, threads)} {name}"] = statistics.median(rates)
    return found


def in_flight(options: argparse.Namespace) -> dict[str, float]:
    """The bundled model on its test sentences, beam 5, one worker: sentences a second in flight, within its shortlist too, and in fixed
    batches of 64, sorted by length and as they come."""
    bundle = Bundle.open(BUNDLE)
    backend = OnnxBackend.load(bundle)
    corpus = PreparedCorpus.open(Path("data/prepared/tatoeba-en-de"))
    ids = [[*each, EOS] for each in bundle.source_tokenizer.encode([source for source, _ in corpus.pairs("test")])]
    search, ordered = bundle.config.decode, sorted(ids, key=len, reverse=True)
    engine = Engine(backend)

    def fixed(sentences: Sequence[list[int]]) -> None:
        for begin in range(0, len(sentences), BATCH):
            beam_search(backend, sentences[begin : begin + BATCH], search)

    def flying(sentences: Sequence[list[int]], options: DecodeOptions) -> None:
        finish(engine, [Sentence(one, options) for one in sentences])

    jobs: Mapping[str, Callable[[], object]] = {
        "in flight": lambda: flying(ordered, search),
        "in flight, within the shortlist": lambda: flying(ordered, search.model_copy(update={"shortlist": True})),
        "fixed batches, sorted": lambda: fixed(ordered),
        "in flight, as they come": lambda: flying(ids, search),
        "fixed batches, as they come": lambda: fixed(ids),
    }
    rates: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(options.rounds):
        for name, job in jobs.items():
            rates[name].append(len(ids) / seconds_of(job))
    engine.close()
    return {name: statistics.median(values) for name, values in rates.items()}


def start() -> dict[str, float]:
    """Of processes that load the bundled model and translate its test sentences four times: seconds to the first translation, imports
    included, and memory."""
    found = {}
    test = Path("data/prepared/tatoeba-en-de/test.jsonl")
    for workers in (1, 2):
        command = [sys.executable, "-c", _START, str(BUNDLE), str(workers), str(test)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[f"workers {workers}: first s"], found[f"workers {workers}: MB at most"] = json.loads(output)
    return found


def table(result: Mapping[str, Any]) -> str:
    """The report for people."""
    lines = rates_table(result, "sentences a second")
    lines += ["", "| ratio | median | range |", "|---|---|---|"]
    for name, values in result["ratios"].items():
        lines.append(f"| {name} | {values['median']:.1f} | {values['min']:.1f} to {values['max']:.1f} |")
    for title, values in result["alone"].items():
        lines += ["", f"{title}: " + "; ".join(f"{name} {value:,.3g}" for name, value in values.items())]
    return "\n".join(lines)


def ratios(rates: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Ours over each peer, round by round."""
    found = {}
    for name, values in rates.items():
        system, _, beam = name.rpartition(", ")
        for mine in ("ours int8", "ours int8 within a shortlist"):
            if not system.startswith("ours") and (its := rates.get(f"{mine}, {beam}")):
                found[f"{mine} / {name}"] = spread([a / b for a, b in zip(its, values, strict=True)])
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description="Rates of decoding on the CPU, ours beside the peers'.")
    parser.add_argument("corpus", nargs="?", type=Path, default=Path("data/prepared/multi30k-en-de"))
    parser.add_argument("--peers", type=Path, default=Path("peers"), help="folder of their environments, or none")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="decode-"))
    try:
        corpus = PreparedCorpus.open(options.corpus)
        rates = compared(options, corpus, folder)
        alone: dict[str, dict[str, float]] = {
            "one sentence of 15 subwords on one thread, ms": sentence_ms(corpus),
            "a step on one thread": step_share(corpus),
            "ms a subword by length, beam 5": by_length(corpus),
            "memory, KB": memory_kb(corpus),
            "sentences a second, beam 5": divided(corpus, options),
        }
        if BUNDLE.is_dir() and Path("data/prepared/tatoeba-en-de").is_dir():
            alone["bundled model, beam 5, one worker, sentences a second"] = in_flight(options)
            alone["bundled model, from the start of a process"] = start()
    except NMTError as error:  # the folder stays: the line says which log to see
        print(f"decode.py: {error}", file=sys.stderr)
        return 2
    shutil.rmtree(folder)
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "versions": f"Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}, torch {torch.__version__}",
        "threads": options.threads,
        "rounds": options.rounds,
        "systems": {name: spread(values) | {"rounds": values} for name, values in rates.items()},
        "ratios": ratios(rates),
        "alone": alone,
    }
    print(f"\n{table(result)}")
    if options.json:
        options.json.write_text(f"{json.dumps(result, indent=1)}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
