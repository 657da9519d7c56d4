"""Back-translation (Sennrich et al. 2016): a reverse model makes sources for monolingual text, a recipe mixes them in by weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

import nmt.config
from nmt.cli import main
from nmt.corpus.prepare import prepare
from nmt.corpus.recipe import Recipe
from nmt.corpus.store import PreparedCorpus
from nmt.training.batches import TrainingBatches
from nmt.training.bundling import BundleOptions, make_bundle

PAIRS = tiny.sentence_pairs(260, seed=13)
REAL, MONOLINGUAL, VALIDATION = PAIRS[:120], [target for _, target in PAIRS[120:240]], PAIRS[240:]


def recipe(languages: tuple[str, str], train: list[dict[str, Any]], validation: dict[str, Any]) -> Recipe:
    data = {
        "name": "mixed",
        "source_language": languages[0],
        "target_language": languages[1],
        "train": train,
        "validation": [validation],
        "tokenizer": {"vocab_size": 90},
    }
    return nmt.config.parse(Recipe, data, "recipe")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real pairs, target text without a source, and a bundle `reverse` from the target to the source language."""
    folder = tmp_path_factory.mktemp("back")
    real = tiny.write_files(folder, "real", REAL)
    validation = tiny.write_files(folder, "validation", VALIDATION)
    (folder / "mono.de").write_text("".join(f"{line}\n" for line in MONOLINGUAL), encoding="utf-8")
    backwards = [{"files": item["files"][::-1]} for item in (real, validation)]
    prepare(recipe(("de", "en"), backwards[:1], backwards[1]), folder / "de-en")
    tiny.trained(folder / "de-en", folder / "run", "train.max_steps=40", "validation.every=40", "train.log_every=40")
    make_bundle(folder / "run", folder / "reverse", BundleOptions())
    return folder


@pytest.mark.parametrize("kind", ["files", "jsonl"])
def test_synthetic_pairs_are_mixed_with_real_ones_by_weight(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    as_json = ["--json"] if kind == "jsonl" else []
    assert main(["translate", str(folder / "reverse"), str(folder / "mono.de"), "--beam-size", "1", *as_json]) == 0
    synthetic = tmp_path / f"synthetic.{kind}"
    synthetic.write_text(capsys.readouterr().out, encoding="utf-8")
    source: dict[str, Any] = {"files": [str(synthetic), str(folder / "mono.de")]}
    if kind == "jsonl":
        source = {"jsonl": str(synthetic), "columns": {"source": "translation", "target": "source"}}
    real, validation = ({"files": [str(folder / f"{n}.en"), str(folder / f"{n}.de")]} for n in ("real", "validation"))
    mixed = recipe(("en", "de"), [real | {"weight": 2.0}, source | {"weight": 0.5}], validation)
    prepare(mixed, tmp_path / "en-de")

    corpus = PreparedCorpus.open(tmp_path / "en-de")
    (real_pairs, _), (synthetic_pairs, _) = corpus.weights()
    assert real_pairs == 120
    assert 60 < synthetic_pairs <= 120, "a weak reverse model repeats itself, and some of its pairs are dropped"
    target = corpus.train()[1]
    texts = {corpus.target_tokenizer.decode(target[i].tolist()) for i in range(real_pairs, len(target))}
    assert texts <= set(MONOLINGUAL), "the target side is what people wrote"

    batches = TrainingBatches(corpus, 512, seed=1)
    for epoch in range(2):
        seen = np.bincount(np.concatenate(batches.plan(epoch)), minlength=len(target))
        assert set(seen[:real_pairs]) == {2}
        assert set(seen[real_pairs:]) == {0, 1}
        assert seen[real_pairs:].sum() == round(synthetic_pairs / 2)

    run = tiny.trained(tmp_path / "en-de", tmp_path / "run", "train.max_steps=8", "validation.every=8")
    losses = [item["nll"] for item in tiny.records(run)]
    assert losses[-1] < losses[0]


def test_what_a_reverse_model_says_of_evaluation_text_does_not_reach_training(folder: Path, tmp_path: Path) -> None:
    pairs = [("the dog sees the cat.", target) for _, target in VALIDATION] + [
        ("the old cat sees the red house.", MONOLINGUAL[0])
    ]
    (tmp_path / "synthetic.jsonl").write_text(
        "".join(json.dumps({"source": de, "translation": en}) + "\n" for en, de in pairs), encoding="utf-8"
    )
    real, validation = ({"files": [str(folder / f"{n}.en"), str(folder / f"{n}.de")]} for n in ("real", "validation"))
    source = {"jsonl": str(tmp_path / "synthetic.jsonl"), "columns": {"source": "translation", "target": "source"}}
    prepare(recipe(("en", "de"), [real, source], validation), tmp_path / "corpus")
    assert PreparedCorpus.open(tmp_path / "corpus").weights() == [(120, 1.0), (1, 1.0)]
