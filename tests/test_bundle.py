"""The bundle: everything that translating needs in one folder, checked when it is opened, in three kinds of storage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.errors import BundleError, CheckpointError
from nmt.inference.bundle import Bundle, sha256
from nmt.inference.torch_backend import load_model, read_weights
from nmt.inference.translator import Translator
from nmt.inference.types import DecodeOptions
from nmt.inference.weights import Storage, write_weights
from nmt.training.bundling import BundleOptions, make_bundle, record_scores
from nmt.training.checkpoint import Checkpoints, averaged_weights

TEXTS = ["the cat sees the dog.", "the old tree has the small bird.", "", "the red fish " * 30]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few updates, and the corpus `corpus` beside it."""
    folder = tmp_path_factory.mktemp("bundle")
    return tiny.trained(tiny.prepared(folder), folder / "run", "validation.metric=loss")


@pytest.fixture(scope="module")
def bundle(run: Path) -> Path:
    make_bundle(run, run.parent / "bundle", BundleOptions(weights="fp32", name="tiny-en-de", command="nmt bundle run"))
    return run.parent / "bundle"


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A bundle that may be damaged."""
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def edit(path: Path, **changes: object) -> None:
    """Change keys of a bundle's config.yaml."""
    config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    (path / "config.yaml").write_text(yaml.safe_dump(config | changes), encoding="utf-8")


# --- from a run to a translator -------------------------------------------------------------------------------------


def test_a_bundle_holds_the_averaged_weights_of_the_best_checkpoint(run: Path, bundle: Path) -> None:
    checkpoints = Checkpoints(run, keep=1)
    step = checkpoints.best()
    assert step is not None
    expected = averaged_weights(checkpoints.load(step)[0])
    model = load_model(Bundle.open(bundle))
    found = dict(model.named_parameters())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert not model.training
    assert model.output is model.target_embedding.weight is model.source_embedding.weight


def test_nothing_outside_the_bundle_is_needed(run: Path, bundle: Path, tmp_path: Path) -> None:
    here = Translator.load(bundle).translate(TEXTS)
    moved = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(bundle, moved)
    (moved / "README.md").unlink()
    (moved / "metrics.json").unlink()
    assert Translator.load(moved).translate(TEXTS) == here
    assert here[0].text
    assert here[2].text == ""
    assert here[3].segments > 1


@pytest.mark.parametrize(
    "overrides", [["model.tie_embeddings=none"], ["model.tie_embeddings=output", "optimizer.ema_decay=0"]]
)
def test_separate_vocabularies_and_untied_weights_come_through(tmp_path: Path, overrides: list[str]) -> None:
    run = tiny.trained(tiny.prepared(tmp_path, joint=False), tmp_path / "run", "train.max_steps=2", *overrides)
    make_bundle(run, tmp_path / "bundle", BundleOptions(weights="fp32"))
    assert {"source.model", "target.model"} < {path.name for path in (tmp_path / "bundle").iterdir()}
    loaded = dict(load_model(Bundle.open(tmp_path / "bundle")).named_parameters())
    for name, value in averaged_weights(tiny.last_checkpoint(run)[0]).items():
        assert torch.equal(loaded[name], value), name
    assert Translator.load(tmp_path / "bundle").translate(TEXTS)[0].source == TEXTS[0]


@pytest.mark.parametrize(("storage", "share"), [("fp16", 0.55), ("int8", 0.45)])
def test_smaller_storage_is_smaller_and_nearly_the_same_model(
    run: Path, bundle: Path, tmp_path: Path, storage: Storage, share: float
) -> None:
    make_bundle(run, tmp_path / "small", BundleOptions(weights=storage))
    size, full = ((path / "model.safetensors").stat().st_size for path in (tmp_path / "small", bundle))
    assert size < share * full + 4000  # the header weighs much in a model this tiny
    whole, small = load_model(Bundle.open(bundle)), load_model(Bundle.open(tmp_path / "small"))
    source, lengths, target = torch.tensor([[5, 6, 7, 3]]), torch.tensor([4]), torch.tensor([[2, 8, 9]])
    exact = torch.log_softmax(whole.logits(whole(source, lengths, target)), dim=-1)
    near = torch.log_softmax(small.logits(small(source, lengths, target)), dim=-1)
    assert (exact - near).abs().max() < 0.05
    assert small.output.dtype == torch.float32
    assert Bundle.open(tmp_path / "small").config.parameters == sum(p.numel() for p in small.parameters())


def test_averaging_takes_the_mean_of_the_last_checkpoints(run: Path, tmp_path: Path) -> None:
    make_bundle(run, tmp_path / "mean", BundleOptions(average=2, weights="fp32"))
    checkpoints = Checkpoints(run, keep=1)
    one, two = (averaged_weights(checkpoints.load(step)[0]) for step in checkpoints.steps()[-2:])
    for name, value in load_model(Bundle.open(tmp_path / "mean")).named_parameters():
        torch.testing.assert_close(value.detach(), (one[name] + two[name]) / 2)


def test_what_a_bundle_says_of_itself(run: Path, bundle: Path) -> None:
    opened = Bundle.open(bundle)
    info = opened.info
    assert (info.name, info.source_language, info.target_language) == ("tiny-en-de", "en", "de")
    assert info.parameters == sum(p.numel() for p in load_model(opened).parameters())
    assert info.architecture == "gnmt wiring, 2+2 layers lstm, width 8, embedding 6, 2-head scaled dot attention"
    assert info.digest == sha256(bundle / "model.safetensors")
    assert opened.metrics["command"] == "nmt bundle run"
    assert opened.metrics["training"]["validation"][-1]["step"] == 12
    assert str(run.parent) not in (bundle / "metrics.json").read_text() + (bundle / "README.md").read_text()


def test_scores_are_recorded_once_with_their_signature(copy: Path) -> None:
    record = {
        "name": "BLEU",
        "score": 12.5,
        "signature": "sig|v:1",
        "data": "tiny test",
        "sentences": 12,
        "search": "beam 5",
    }
    record_scores(copy, [record])
    record_scores(copy, [record | {"score": 13.5}, record | {"data": "other"}])
    assert [(item["data"], item["score"]) for item in Bundle.open(copy).info.scores] == [
        ("tiny test", 13.5),
        ("other", 12.5),
    ]
    card = (copy / "README.md").read_text()
    assert "13.50" in card
    assert "`sig|v:1`" in card or "`sig\\|v:1`" in card


# --- writing --------------------------------------------------------------------------------------------------------


def test_an_existing_bundle_is_replaced_and_nothing_else_is(run: Path, copy: Path, tmp_path: Path) -> None:
    (copy / "left over").write_text("of the former bundle")
    make_bundle(run, copy, BundleOptions(weights="fp16"))
    assert Bundle.open(copy).config.weights == "fp16"
    assert not (copy / "left over").exists()
    mine = tmp_path / "documents"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    with pytest.raises(BundleError, match="exists and is not a bundle; it is left as it is"):
        make_bundle(run, mine, BundleOptions())
    assert (mine / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize("size", [500, 15_000])  # the weights find no room from the start, or near their end
def test_a_full_disk_leaves_the_former_bundle(run: Path, copy: Path, size: int) -> None:
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    with tiny.full_disk(size), pytest.raises(BundleError, match=r"could not be written .*free some space"):
        make_bundle(run, copy, BundleOptions(weights="fp32"))
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert sorted(path.name for path in copy.parent.iterdir()) == ["copy"]


def test_a_run_without_enough_checkpoints_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a training run"):
        make_bundle(tmp_path / "absent", tmp_path / "b", BundleOptions())
    with pytest.raises(CheckpointError, match="99 checkpoints are to be averaged but"):
        make_bundle(run, tmp_path / "b", BundleOptions(average=99))
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(run / "config.yaml", empty)
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        make_bundle(empty, tmp_path / "b", BundleOptions())


def test_a_corpus_prepared_anew_since_training_is_noticed(tmp_path: Path) -> None:
    corpus = tiny.prepared(tmp_path)
    run = tiny.trained(corpus, tmp_path / "run", "train.max_steps=1")
    manifest = json.loads((corpus / "manifest.json").read_text())
    (corpus / "manifest.json").write_text(json.dumps(manifest | {"content_hash": "another"}))
    with pytest.raises(CheckpointError, match="changed since"):  # its subwords are others by now
        make_bundle(run, tmp_path / "bundle", BundleOptions())


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.model", "config.yaml"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "missing"])
def test_damage_is_found_at_load_and_the_file_named(copy: Path, name: str, damage: str) -> None:
    path = copy / name
    content = path.read_bytes()
    middle = len(content) // 2
    changed = {"cut": content[:-20], "flipped": content[:middle] + b"\x00" + content[middle + 1 :], "empty": b""}
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(changed[damage])
    with pytest.raises(BundleError, match=name):
        Translator.load(copy)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 3}, "bundle format 3, this version reads 1 to 2"),
        ({"format": None}, "bundle format None"),
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"sha256": {}}, "no checksum of tokenizer.model: not a complete bundle"),
        ({"joint_vocabulary": False}, "no checksum of source.model"),
        ({"max_source_tokens": "many"}, "max_source_tokens"),
    ],
)
def test_a_config_that_is_none_of_ours_is_named(copy: Path, changes: dict[str, object], words: str) -> None:
    edit(copy, **changes)
    with pytest.raises(BundleError) as caught:
        Bundle.open(copy)
    assert "config.yaml" in str(caught.value)
    assert words in str(caught.value)


def test_a_checksum_of_a_file_outside_the_bundle_is_refused(copy: Path) -> None:
    (copy.parent / "outside").write_text("x")
    config = yaml.safe_load((copy / "config.yaml").read_text())
    edit(copy, sha256=config["sha256"] | {"../outside": sha256(copy.parent / "outside")})
    with pytest.raises(BundleError, match=r"'../outside' is not the name of a file of the bundle"):
        Bundle.open(copy)


def test_weights_of_another_shape_are_refused_even_with_their_checksum(copy: Path) -> None:
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["model"]["decoder"]["hidden"] = 16
    edit(copy, model=config["model"])
    with pytest.raises(BundleError, match=r"its tensors are not those of the model that config.yaml describes"):
        Translator.load(copy)


@pytest.mark.parametrize(
    ("content", "words"), [("{", "not valid JSON"), ("[]", "expected a JSON object"), ("\ud800", "JSON")]
)
def test_metrics_that_are_none_are_named(copy: Path, content: str, words: str) -> None:
    (copy / "metrics.json").write_text(content, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(BundleError, match=rf"metrics.json: .*{words}"):
        Bundle.open(copy)


def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="absent: no such bundle"):
        Bundle.open(tmp_path / "absent")
    with pytest.raises(BundleError, match=r"not a model bundle: config\.yaml is missing"):
        Bundle.open(tmp_path)


def test_opening_a_bundle_writes_nothing_into_it(bundle: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in bundle.iterdir()}
    Translator.load(bundle).translate(["the cat."], DecodeOptions(beam_size=2))
    assert {path.name: path.stat().st_mtime_ns for path in bundle.iterdir()} == before


# --- storage of weights ---------------------------------------------------------------------------------------------


def stored(path: Path, tensors: dict[str, torch.Tensor], storage: Storage) -> dict[str, torch.Tensor]:
    write_weights(path, tensors, storage)
    return read_weights(path)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 6), st.integers(1, 40), st.floats(-6, 6), st.integers(0, 999))
def test_int8_is_within_half_a_step_of_each_row(
    tmp_path_factory: pytest.TempPathFactory, rows: int, columns: int, exponent: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=generator) * 10**exponent
    matrix *= 10 ** torch.arange(rows)[:, None]  # rows of unlike size: each has its own scale
    bias = torch.randn(columns, generator=generator)
    found = stored(tmp_path_factory.getbasetemp() / "int8.safetensors", {"w": matrix, "b": bias}, "int8")
    step = matrix.abs().amax(dim=1, keepdim=True) / 127
    assert ((found["w"] - matrix).abs() <= step * 0.5001).all()
    assert torch.equal(found["b"], bias)  # vectors are kept whole
    assert found.keys() == {"w", "b"}


def test_fp16_rounds_and_fp32_is_exact(tmp_path: Path) -> None:
    tensors = {"w": torch.randn(5, 7), "b": torch.randn(7), "t": torch.randn(3, 4).T}
    exact = stored(tmp_path / "w", tensors, "fp32")
    rounded = stored(tmp_path / "w", tensors, "fp16")
    for name, value in tensors.items():
        assert torch.equal(exact[name], value)
        assert torch.equal(rounded[name], value.half().float())
        assert rounded[name].dtype == torch.float32


def test_a_row_of_zeros_stays_one(tmp_path: Path) -> None:
    found = stored(tmp_path / "w", {"w": torch.tensor([[0.0, 0.0], [1.0, -2.0]])}, "int8")
    assert found["w"][0].tolist() == [0.0, 0.0]
    assert found["w"][1].tolist() == pytest.approx([1.0, -2.0], abs=0.008)


def test_a_number_too_large_for_fp16_is_not_stored_as_infinity(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="b holds a number too large for fp16"):
        write_weights(tmp_path / "w", {"b": torch.tensor([1e5])}, "fp16")


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95", b"\xff" * 100, None])
def test_damaged_weights_are_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.safetensors"
    write_weights(path, {"w": torch.randn(5, 7)}, "int8")
    path.write_bytes(path.read_bytes()[:-5] if content is None else content)
    with pytest.raises(BundleError, match=r"model\.safetensors: damaged or cut short"):
        read_weights(path)


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="absent: the weights are missing"):
        read_weights(tmp_path / "absent")
