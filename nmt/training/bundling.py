"""From a training run to a model bundle: the best weights or an average, the tokenizer, a model card; whole or not at all."""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sacrebleu
import sentencepiece
import torch
from torch import Tensor

import nmt
import nmt.config
from nmt.corpus.store import PreparedCorpus
from nmt.errors import BundleError, CheckpointError, DataError
from nmt.evaluation.alignment import Copied, best_head
from nmt.inference.bundle import (
    CARD,
    CONFIG,
    FORMAT,
    METRICS,
    WEIGHTS,
    Bundle,
    BundleConfig,
    architecture,
    sha256,
    tokenizer_files,
)
from nmt.inference.shortlist import FILE as SHORTLIST
from nmt.inference.shortlist import Shortlist
from nmt.inference.torch_backend import load_model, with_ties, without_ties
from nmt.inference.types import DecodeOptions
from nmt.inference.weights import Storage, write_weights
from nmt.model.seq2seq import Seq2Seq
from nmt.training.checkpoint import Checkpoints, averaged_weights
from nmt.training.config import RunConfig
from nmt.training.lexicon import learn_lexicon, make_shortlist
from nmt.training.run_folder import RESOLVED

_BAR = r"\|"  # a vertical bar in a cell of a Markdown table


@dataclass(frozen=True)
class BundleOptions:
    """What `nmt bundle` may be told: how many checkpoints to average (the best alone by default), storage, name, command."""

    average: int = 1
    weights: Storage = "fp16"
    name: str | None = None
    command: str = ""


def make_bundle(run: Path, output: Path, options: BundleOptions) -> None:
    """Write the bundle `output` from the run folder; an existing bundle there is replaced at the end, nothing else is.

    Raises `CheckpointError` when the run has no checkpoint, `BundleError` when `output` is something else.
    """
    if not (run / RESOLVED).is_file():
        raise CheckpointError(f"{run}: not a training run: {RESOLVED} is missing (make one with `nmt train CONFIG`)")
    config = nmt.config.load(RunConfig, run / RESOLVED)
    corpus = PreparedCorpus.open(config.corpus)
    if output.exists() and not (output / CONFIG).is_file():
        raise BundleError(f"{output}: exists and is not a bundle; it is left as it is (choose another --output)")
    steps = _steps(run, options.average)
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _fill(partial, run, config, corpus, steps, options)
        shutil.rmtree(output, ignore_errors=True)
        partial.rename(output)
    except OSError as error:
        raise BundleError(
            f"{output}: could not be written ({error.strerror or error}); free some space, or see to the folder"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _steps(run: Path, average: int) -> list[int]:
    """The best checkpoint, or the `average` ones that end with the last."""
    checkpoints = Checkpoints(run, keep=1)
    steps = checkpoints.steps()
    if not steps:
        raise CheckpointError(f"{run}: no checkpoint yet (`nmt train` writes one every train.save_every steps)")
    if average == 1:
        best = checkpoints.best()
        return [best if best in steps else steps[-1]]
    if len(steps) < average:
        raise CheckpointError(
            f"{run}: {average} checkpoints are to be averaged but {len(steps)} are there (train.keep)"
        )
    return steps[-average:]


def _average(run: Path, steps: list[int], corpus: PreparedCorpus) -> dict[str, Tensor]:
    """The mean of the weights of `steps`; raise `CheckpointError` when they were trained on another state of the corpus."""
    checkpoints = Checkpoints(run, keep=1)
    total: dict[str, Tensor] = {}
    for step in steps:
        tensors, state = checkpoints.load(step)
        if state.get("corpus") != corpus.manifest["content_hash"]:
            raise CheckpointError(f"{corpus.path}: changed since {run} was trained on it: train again, or put it back")
        for name, value in averaged_weights(tensors).items():
            total[name] = total[name] + value if name in total else value.clone()
    return {name: value / len(steps) for name, value in total.items()}


def _fill(
    folder: Path, run: Path, config: RunConfig, corpus: PreparedCorpus, steps: list[int], options: BundleOptions
) -> None:
    with torch.device("meta"):
        model = Seq2Seq(config.model, len(corpus.source_tokenizer), len(corpus.target_tokenizer))
    tensors = without_ties(model, _average(run, steps, corpus))
    write_weights(folder / WEIGHTS, tensors, options.weights)
    names = tokenizer_files(corpus.joint)
    for name, tokenizer in zip(names, (corpus.source_tokenizer, corpus.target_tokenizer), strict=True):
        (folder / name).write_bytes(tokenizer.model)
    source, target = corpus.languages
    model.load_state_dict(with_ties(model, tensors), assign=True)
    head, copied = best_head(
        model, (corpus.source_tokenizer, corpus.target_tokenizer), list(corpus.pairs("validation"))
    )
    bundle = BundleConfig(
        format=FORMAT,
        name=options.name or corpus.manifest["recipe"]["name"],
        source_language=source,
        target_language=target,
        target_languages=corpus.target_languages,
        joint_vocabulary=corpus.joint,
        weights=options.weights,
        parameters=sum(value.numel() for value in tensors.values()),
        max_source_tokens=corpus.manifest["lengths"]["source"]["0.999"],  # beyond what training has shown, split
        model=config.model,
        decode=DecodeOptions(),
        alignment=head,
        sha256={name: sha256(folder / name) for name in (*dict.fromkeys(names), WEIGHTS)},
    )
    alignment = {"alignment": asdict(copied) if head else None}
    _write_about(folder, bundle, _metrics(run, config, corpus, steps, options) | alignment)


def _write_about(folder: Path, config: BundleConfig, metrics: dict[str, Any]) -> None:
    """Write what a bundle says of itself: configuration, metrics, model card."""
    (folder / CONFIG).write_text(nmt.config.dump(config), encoding="utf-8")
    (folder / METRICS).write_text(json.dumps(metrics, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / CARD).write_text(model_card(config, metrics), encoding="utf-8")


def _metrics(
    run: Path, config: RunConfig, corpus: PreparedCorpus, steps: list[int], options: BundleOptions
) -> dict[str, Any]:
    recipe = corpus.manifest["recipe"]
    state = Checkpoints(run, keep=1).load(steps[-1])[1]["progress"]
    return {
        "scores": [],
        "data": {
            "recipe": recipe["name"],
            "licence": recipe["licence"],
            "attribution": recipe["attribution"],
            "content_hash": corpus.manifest["content_hash"],
            "splits": corpus.manifest["splits"],
            "tokens": corpus.manifest["tokens"],
            "distilled": corpus.manifest.get("distilled"),
        },
        "training": {
            "steps": steps,
            "epochs": state["epoch"],
            "validation": state["history"],
            "config": config.model_dump(mode="json", exclude={"corpus", "run"}),
        },
        "command": options.command,
        "versions": {
            "strata-nmt": nmt.__version__,
            "torch": torch.__version__,
            "sentencepiece": sentencepiece.__version__,
            "sacrebleu": sacrebleu.__version__,
            "python": platform.python_version(),
        },
    }


def choose_alignment(path: Path, corpus: PreparedCorpus) -> Copied:
    """Choose the head of attention that a bundle shows by the corpus's validation split, and write it into the bundle.

    Raises `DataError` where the split has too few words that are copied to tell, `BundleError` for a bundle without metrics.
    """
    bundle = Bundle.open(path)
    if not bundle.metrics:
        raise BundleError(f"{path / METRICS}: missing: what is chosen is recorded there")
    pairs = list(corpus.pairs("validation"))
    head, copied = best_head(load_model(bundle, 1), (bundle.source_tokenizer, bundle.target_tokenizer), pairs)
    if head is None:
        raise DataError(f"{corpus.path}: its validation split has {copied.words} copied words, too few to choose by")
    config = bundle.config.model_copy(update={"format": FORMAT, "alignment": head})
    _write_about(path, config, bundle.metrics | {"alignment": asdict(copied)})
    return copied


def add_shortlist(path: Path, corpus: PreparedCorpus) -> Shortlist:
    """Learn a shortlist from the training pairs of a corpus and put it into a bundle; raise `BundleError` where their subwords differ."""
    bundle = Bundle.open(path)
    mine, its = ((one.source_tokenizer.model, one.target_tokenizer.model) for one in (bundle, corpus))
    if mine != its:
        raise BundleError(
            f"{corpus.path}: its subwords are not those of {path}: take the corpus that it was trained on"
        )
    shortlist = make_shortlist(learn_lexicon(corpus), len(corpus.source_tokenizer))
    shortlist.save(path / SHORTLIST)
    checksums = bundle.config.sha256 | {SHORTLIST: sha256(path / SHORTLIST)}
    config = bundle.config.model_copy(update={"format": FORMAT, "sha256": checksums})
    (path / CONFIG).write_text(nmt.config.dump(config), encoding="utf-8")
    return shortlist


def record_scores(path: Path, scores: list[dict[str, Any]]) -> None:
    """Add scores measured on the stored weights to a bundle's `metrics.json` and model card; a score of the same name on the
    same data is replaced."""
    bundle = nmt.config.load(BundleConfig, path / CONFIG)
    metrics = json.loads((path / METRICS).read_text(encoding="utf-8"))
    fresh = {(item["name"], item["data"]) for item in scores}
    metrics["scores"] = [item for item in metrics["scores"] if (item["name"], item["data"]) not in fresh] + scores
    (path / METRICS).write_text(json.dumps(metrics, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (path / CARD).write_text(model_card(bundle, metrics), encoding="utf-8")


def model_card(bundle: BundleConfig, metrics: dict[str, Any]) -> str:
    """The bundle's README: what it is, what it was trained on, how good it is, how to use it."""
    data, training = metrics["data"], metrics["training"]
    targets = bundle.target_languages or (bundle.target_language,)
    lines = [
        "---",
        f"language: [{', '.join((bundle.source_language, *targets))}]",
        "pipeline_tag: translation",
        "---",
        f"# {bundle.name}: {bundle.source_language} to {', '.join(targets)}",
        "",
        f"A deep recurrent encoder-decoder with attention: {architecture(bundle.model)}; "
        f"{bundle.parameters / 1e6:.1f} M parameters stored in {bundle.weights}.",
        "",
        "## Scores",
        "",
    ]
    if metrics["scores"]:
        lines += ["Measured on the stored weights.", "", "| data | score | search | signature |", "|---|---|---|---|"]
        lines += [
            f"| {item['data']}, {item['sentences']} sentences | {item['name']} {item['score']:.2f} | {item['search']} | "
            f"`{item['signature'].replace('|', _BAR)}` |"
            for item in metrics["scores"]
        ]
    else:
        lines += [
            "None yet: `nmt evaluate BUNDLE --corpus PREPARED --split test --record` measures and writes them here."
        ]
    if bundle.alignment is not None and (copied := metrics.get("alignment")):
        lines += [
            "",
            f"Word alignment: attention {bundle.alignment.layer}, head {bundle.alignment.head}, which links {copied['right']} of "
            f"{copied['words']} copied words of the validation split rightly.",
        ]
    lines += [
        "",
        "## Data",
        "",
        f"Trained on the training split of `{data['recipe']}` ({data['splits']['train']:,} pairs, {data['tokens']['source']:,} + "
        f"{data['tokens']['target']:,} subwords). Licence of the data: {data['licence']}.",
        *([data["attribution"]] if data["attribution"] else []),
        *(_teachers(data["distilled"]) if data.get("distilled") else []),
        "",
        "## Training",
        "",
        f"Updates {', '.join(map(str, training['steps']))}; configuration and validation history in `{METRICS}`; versions: "
        + ", ".join(f"{name} {version}" for name, version in metrics["versions"].items())
        + ".",
        *(["", f"Command: `{metrics['command']}`"] if metrics["command"] else []),
        "",
        "## Use",
        "",
        "```sh",
        'nmt translate PATH_OF_THIS_FOLDER --text "..."',
        "nmt serve PATH_OF_THIS_FOLDER",
        "```",
    ]
    return "\n".join(lines) + "\n"


def _teachers(distilled: dict[str, Any]) -> list[str]:
    """What a model card says of targets that other models wrote."""
    names = ", ".join(teacher["name"] for teacher in distilled["teachers"])
    return [f"Targets: translations by {names} (sequence-level distillation)."]
