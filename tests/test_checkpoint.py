"""Checkpoints: whole or not at all, the best and the latest kept, damage named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from nmt.errors import CheckpointError, TrainingError
from nmt.training.checkpoint import Checkpoints, averaged_weights, pack_optimizer, unpack_optimizer
from nmt.training.config import OptimizerConfig
from nmt.training.journal import Journal
from nmt.training.optim import make_optimizer

STATE: dict[str, Any] = {"progress": {"step": 3, "best": None, "history": [{"bleu": 1.5}]}, "corpus": "é"}


def tensors(value: float = 1.0) -> dict[str, Tensor]:
    return {
        "model.a": torch.full((50, 40), value),
        "model.b": torch.arange(6.0).view(2, 3).T,  # not contiguous
        "optimizer.a.step": torch.tensor(value),
        "other": torch.arange(200, dtype=torch.uint8),
    }


def saved(run: Path, *steps: int, keep: int = 3) -> Checkpoints:
    checkpoints = Checkpoints(run, keep)
    for step in steps:
        checkpoints.save(step, tensors(float(step)), STATE)
    return checkpoints


def test_what_is_saved_is_loaded_to_the_bit(tmp_path: Path) -> None:
    found, state = saved(tmp_path, 3).load(3)
    assert state == STATE
    assert found.keys() == tensors().keys()
    for name, value in tensors(3.0).items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "absent", keep=1).steps() == []
    assert Checkpoints(tmp_path / "absent", keep=1).best() is None


def test_steps_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    assert saved(tmp_path, 90, 1000, 123_456_789).steps() == [90, 1000, 123_456_789]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 3)
    checkpoints.save(3, tensors(9.0), STATE)
    assert checkpoints.load(3)[0]["model.a"][0, 0] == 9.0
    assert checkpoints.steps() == [3]


def test_the_latest_and_the_best_stay(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2, 3, 4, 5, keep=2)
    checkpoints.mark_best(2)
    checkpoints.prune()
    assert checkpoints.steps() == [2, 4, 5]
    checkpoints.mark_best(5)
    checkpoints.prune()
    assert checkpoints.steps() == [4, 5]
    assert checkpoints.best() == 5


def test_what_an_interrupted_save_left_is_no_checkpoint_and_in_nobodys_way(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    left = tmp_path / "checkpoints" / ".partial"
    left.mkdir()
    (left / "state.json").write_text("{")
    assert checkpoints.steps() == [1]
    checkpoints.save(2, tensors(2.0), STATE)
    assert checkpoints.steps() == [1, 2]
    assert checkpoints.load(2)[1] == STATE
    assert not left.exists()


@pytest.mark.parametrize("size", [0, 100, 8500])  # in the first file, and in the second after all of the first
def test_a_full_disk_is_a_training_error_and_earlier_checkpoints_stay(tmp_path: Path, size: int) -> None:
    checkpoints = saved(tmp_path, 1)
    state = STATE | {"long": "x" * 9000}
    with tiny.full_disk(size), pytest.raises(TrainingError, match="free some space and run the same command again"):
        checkpoints.save(2, tensors(), state)
    assert checkpoints.steps() == [1]
    assert not (tmp_path / "checkpoints" / ".partial").exists()
    assert torch.equal(checkpoints.load(1)[0]["model.a"], tensors(1.0)["model.a"])
    checkpoints.save(2, tensors(), state)
    assert checkpoints.load(2)[1] == state


def test_a_full_disk_while_the_best_is_named_leaves_the_former_name(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    checkpoints.mark_best(1)
    with tiny.full_disk(0), pytest.raises(TrainingError, match="best: could not be written"):
        checkpoints.mark_best(2)
    assert checkpoints.best() == 1


def test_a_folder_that_cannot_be_made_is_a_training_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file is in the way")
    with pytest.raises(TrainingError, match="see to the folder"):
        saved(tmp_path, 1)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tensors.safetensors", b""),
        ("tensors.safetensors", None),
        ("tensors.safetensors", b"\x80\x04\x95 a pickle"),
        ("state.json", b""),
        ("state.json", b'{"progress": {"st'),
        ("state.json", b"[1, 2]"),
        ("state.json", b"\xff\xfe"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_what_to_do(tmp_path: Path, file: str, content: bytes | None) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    path = checkpoints.path(2) / file
    path.write_bytes(path.read_bytes()[:-10] if content is None else content)
    with pytest.raises(CheckpointError, match=r"00000002: damaged .* remove this folder and run again"):
        checkpoints.load(2)
    assert checkpoints.load(1)[1] == STATE


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json"])
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    checkpoints = saved(tmp_path, 1)
    (checkpoints.path(1) / file).unlink()
    with pytest.raises(CheckpointError, match=r"00000001.*: missing"):
        checkpoints.load(1)


def test_a_best_that_cannot_be_read_is_no_best(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    (tmp_path / "checkpoints" / "best").write_text("")
    assert checkpoints.best() is None


def test_the_optimisers_state_goes_on_where_it_was(tmp_path: Path) -> None:
    def model() -> Any:
        return tiny.model().requires_grad_(True)

    def step(which: Any, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        for p in which.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()

    one, other = model(), model()
    first, second = (make_optimizer(m, OptimizerConfig(weight_decay=0.01)) for m in (one, other))
    for seed in range(3):
        step(one, first, seed)
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(3, {n: p.detach() for n, p in one.named_parameters()} | pack_optimizer(one, first), {})
    loaded, _ = checkpoints.load(3)
    other.load_state_dict(loaded, strict=False)
    unpack_optimizer(other, second, loaded)
    step(one, first, 7)
    step(other, second, 7)
    for (name, mine), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs), name


def test_the_averaged_weights_are_taken_where_there_are_any() -> None:
    both = {
        "model.a": torch.zeros(1),
        "ema.a": torch.ones(1),
        "optimizer.a.step": torch.ones(1),
        "other": torch.ones(1),
    }
    assert averaged_weights(both) == {"a": torch.ones(1)}
    del both["ema.a"]
    assert averaged_weights(both) == {"a": torch.zeros(1)}


# --- the log of a run, which goes back with its checkpoints ---------------------------------------------------------


def write_log(run: Path, steps: range, kind: str = "train") -> None:
    journal = Journal(run, steps.start - 1, 100)
    for step in steps:
        journal.write(step, kind, {"text": "one line\u2028for JSON\x85as it is", "value": step})
    journal.close()


def test_resuming_cuts_the_log_back_to_the_checkpoint(tmp_path: Path) -> None:
    write_log(tmp_path, range(1, 8))
    write_log(tmp_path, range(5, 7))  # from the checkpoint of step 4
    lines = (tmp_path / "log.jsonl").read_bytes().split(b"\n")
    assert [line[:10] for line in lines] == [b'{"step": %d' % step for step in (1, 2, 3, 4, 5, 6)] + [b""]


def test_a_line_that_a_crash_cut_short_goes(tmp_path: Path) -> None:
    write_log(tmp_path, range(1, 3))
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 2, "ki')
    write_log(tmp_path, range(3, 4))
    assert [line[:10] for line in (tmp_path / "log.jsonl").read_text().split("\n")] == [
        '{"step": 1', '{"step": 2', '{"step": 3', "",
    ]  # fmt: skip


def test_a_full_disk_while_logging_is_a_training_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0, 100)
    with tiny.full_disk(2000):
        with pytest.raises(TrainingError, match=r"log\.jsonl: could not be written .*free some space"):
            journal.write(1, "train", {"text": "x" * 3000})
        journal.close()
