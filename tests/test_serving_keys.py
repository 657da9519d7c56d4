"""API keys: what a file may hold, who a key belongs to, changes while the service runs, and the command."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers

import serving.keys
from nmt.errors import ConfigError
from serving.keys import Key, KeyStore, main, presented


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


A, B, C = (f"strata-{letter * 43}" for letter in "abc")
FILE = f"""\
# who may ask
shop {sha256(A)}

  app.v2\t{sha256(B).upper()}  120   # upper case is the same hash\r
"""


class Clock:
    """Stands still until it is told."""

    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys.txt"
    path.write_text(FILE, encoding="utf-8", newline="")
    return path


def test_a_key_is_found_and_no_other_string_is(path: Path) -> None:
    store = KeyStore.open(path)
    assert store.find(A) == Key("shop", sha256(A), None)
    assert store.find(B) == Key("app.v2", sha256(B), 120)
    for wrong in ("", C, A[:-1], A + " ", A.upper(), "shop", sha256(A), "ä🙂", "\ud800", "\x00", "x" * 1_000_000):
        assert store.find(wrong) is None


@pytest.mark.parametrize("marked", [False, True])
def test_a_file_may_begin_with_a_byte_order_mark_and_end_without_a_line_end(path: Path, marked: bool) -> None:
    path.write_text(f"shop {sha256(A)}", encoding="utf-8-sig" if marked else "utf-8")
    assert KeyStore.open(path).find(A) == Key("shop", sha256(A))


@settings(deadline=None, max_examples=100)
@given(st.text(st.characters(categories=None, exclude_categories=())))
def test_any_string_can_be_looked_up(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any-keys.txt"
    if not path.exists():
        path.write_text(FILE, encoding="utf-8")
    assert KeyStore.open(path).find(text) is None


@pytest.mark.parametrize("key", [A, B, C, "", "\udfff"])
def test_every_entry_is_compared_whatever_is_found(path: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(one: str, other: str) -> bool:
        compared.append(one)
        return hmac.compare_digest(one, other)

    store = KeyStore.open(path)
    monkeypatch.setattr(serving.keys, "hmac", type("Spy", (), {"compare_digest": staticmethod(compare)}))
    store.find(key)
    assert compared == [sha256(A), sha256(B)]


BROKEN = {
    "hash too short": (f"shop {sha256(A)[:-1]}", "line 1: the second word must be the SHA-256"),
    "hash too long": (f"\nshop {sha256(A)}0", "line 2: the second word must be the SHA-256"),
    "not hexadecimal": (f"# x\n\nshop {'g' * 64}", "line 3: the second word must be the SHA-256"),
    "digits of another script": (f"shop {'٣' * 64}", "line 1: the second word must be the SHA-256"),
    "a key for its hash": (f"shop {A}", "line 1: the second word must be the SHA-256"),
    "one word": ("shop", "line 1: expected NAME SHA256"),
    "four words": (f"shop {sha256(A)} 1 2", "line 1: expected NAME SHA256 .*found 4 words"),
    "bad name": (f"sh/op {sha256(A)}", "line 1: a name is"),
    "long name": (f"{'n' * 65} {sha256(A)}", "line 1: a name is"),
    "no requests": (f"shop {sha256(A)} 0", "line 1: requests per minute must"),
    "negative": (f"shop {sha256(A)} -1", "line 1: requests per minute must"),
    "fraction": (f"shop {sha256(A)} 1.5", "line 1: requests per minute must"),
    "double name": (f"shop {sha256(A)}\n\nshop {sha256(B)}", "line 3: the name 'shop' is on line 1 already"),
    "double hash": (f"shop {sha256(A)}\napp {sha256(A).upper()}", "line 2: the hash is on line 1 already"),
    "empty": ("", "keys.txt: there is no key in it; add one"),
    "only comments": ("# nobody yet\n \n", "keys.txt: there is no key in it; add one"),
}


@pytest.mark.parametrize(("text", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_named_with_its_line(path: Path, text: str, words: str) -> None:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words) as caught:
        KeyStore.open(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert A not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(path: Path) -> None:
    path.write_bytes(f"shop {sha256(A)}\n# \xe4\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=f"{path}, line 2: not UTF-8"):
        KeyStore.open(path)
    with pytest.raises(ConfigError, match=f"{path.parent}: the key file cannot be read: Is a directory"):
        KeyStore.open(path.parent)
    with pytest.raises(ConfigError, match="missing: the key file cannot be read: No such file"):
        KeyStore.open(path.with_name("missing"))


def test_keys_are_added_and_revoked_while_the_service_runs(path: Path) -> None:
    clock = Clock()
    store = KeyStore.open(path, clock)
    path.write_text(f"app.v2 {sha256(B)} 7\nnew {sha256(C)}\n", encoding="utf-8")
    clock.now += 0.9
    assert store.find(A), "the file is looked at once a second at most"
    clock.now += 0.1
    assert store.find(A) is None
    assert store.find(B) == Key("app.v2", sha256(B), 7)
    assert store.find(C) == Key("new", sha256(C))


def test_the_file_is_looked_at_once_a_second_and_read_only_after_a_change(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    done: list[str] = []
    store = KeyStore.open(path, clock)
    version, read = serving.keys._version, serving.keys._read

    def look(path: Path) -> object:
        done.append("look")
        return version(path)

    def load(path: Path) -> object:
        done.append("read")
        return read(path)

    monkeypatch.setattr(serving.keys, "_version", look)
    monkeypatch.setattr(serving.keys, "_read", load)
    for _ in range(10):
        store.find(A)
        clock.now += 0.25  # 2.25 s from the first to the last
    assert done == ["look", "look"]
    path.write_text(f"new {sha256(C)}\n", encoding="utf-8")
    for _ in range(8):
        store.find(A)
        clock.now += 0.25
    assert done == ["look", "look", "look", "read", "look"]


def test_a_file_of_the_same_size_and_time_that_took_the_place_of_the_old_one_is_read(path: Path) -> None:
    clock = Clock()
    store = KeyStore.open(path, clock)
    other = path.with_name("other")
    other.write_text(FILE.replace(sha256(A), sha256(C)), encoding="utf-8", newline="")
    status = path.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    clock.now += 1
    assert store.find(C) == Key("shop", sha256(C))


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[logging.LogRecord]:
    """What the service's logger says, whatever Ray has made of that logger."""
    said: list[logging.LogRecord] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record)

    logger = logging.getLogger("ray.serve")
    monkeypatch.setattr(logger, "handlers", [Listening(logging.WARNING)])
    monkeypatch.setattr(logger, "propagate", False)
    return said


@pytest.mark.parametrize("breakage", ["text", "empty", "gone"])
def test_a_file_that_breaks_changes_nothing_and_is_warned_of_once(
    path: Path, breakage: str, warnings: list[logging.LogRecord]
) -> None:
    clock = Clock()
    store = KeyStore.open(path, clock)
    for round_ in (1, 2):  # mended in between: then the next breakage is news again
        warnings.clear()
        if breakage == "gone":
            path.unlink()
        else:
            path.write_text("" if breakage == "empty" else f"\nshop {'g' * 64}\n", encoding="utf-8")
        for _ in range(3):
            clock.now += 1
            assert store.find(A) == Key("shop", sha256(A))
        assert [record.name for record in warnings] == ["ray.serve"]
        assert warnings[0].getMessage().startswith(str(path))
        assert "the keys known before stay valid" in warnings[0].getMessage()
        path.write_text(f"{FILE}new{round_} {sha256(C)}\n", encoding="utf-8")
        clock.now += 1
        assert store.find(C) == Key(f"new{round_}", sha256(C))


def test_a_file_that_is_gone_again_after_it_came_back_is_warned_of_again(
    path: Path, warnings: list[logging.LogRecord]
) -> None:
    clock = Clock()
    store = KeyStore.open(path, clock)
    for _ in range(2):
        path.rename(path.with_name("away"))
        clock.now += 1
        store.find(A)
        path.with_name("away").rename(path)
        clock.now += 1
        assert store.find(A) == Key("shop", sha256(A))
    assert len(warnings) == 2


def test_a_reading_that_failed_for_a_moment_is_made_up_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    store = KeyStore.open(path, clock)
    path.write_text(f"new {sha256(C)}\n", encoding="utf-8")

    def full(path: Path) -> bytes:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", full)
        clock.now += 1
        assert store.find(A)
    clock.now += 1
    assert store.find(A) is None
    assert store.find(C)


@pytest.mark.parametrize(
    ("header", "field", "found"),
    [
        (f"Bearer {A}", None, A),
        (f"bearer {A}", None, A),
        (f"DeepL-Auth-Key {A}", None, A),
        (f"  DEEPL-AUTH-KEY   {A}  ", None, A),
        (f"Bearer {A}", B, A),
        (None, B, B),
        (f"Basic {A}", None, None),
        (f"Basic {A}", B, B),
        (A, None, None),
        ("Bearer", None, None),
        ("Bearer ", B, B),
        ("", "", None),
        (None, None, None),
    ],
)
def test_where_a_key_is_presented(header: str | None, field: str | None, found: str | None) -> None:
    headers = Headers({} if header is None else {"AuthoriZation": header})
    assert presented(headers, field) == found


def added(capsys: pytest.CaptureFixture[str], path: Path, name: str, *more: str) -> str:
    assert main(["add", str(path), name, *more]) == 0
    output = capsys.readouterr()
    assert "only its hash is stored" in output.err
    return output.out.removesuffix("\n")


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command fails with."""
    try:
        status: object = main(arguments)
    except SystemExit as error:
        status = error.code
    output = capsys.readouterr()
    assert status == 2
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.endswith("\n")
    assert output.err.count("\n") == 1
    return output.err.removeprefix("error: ").strip()


def test_add_makes_a_file_for_its_owner_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys.txt"
    mask = os.umask(0)
    try:
        key = added(capsys, path, "shop")
    finally:
        os.umask(mask)
    assert re.fullmatch(r"strata-[A-Za-z0-9_-]{43}", key)
    assert path.read_text(encoding="utf-8") == f"shop {sha256(key)}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeyStore.open(path).find(key) == Key("shop", sha256(key))
    assert os.listdir(tmp_path) == ["keys.txt"]


@pytest.mark.parametrize("ending", ["", "\n", "\n\n# end\n"])
def test_add_leaves_the_rest_of_the_file_as_it_is(path: Path, capsys: pytest.CaptureFixture[str], ending: str) -> None:
    before = f"# ä\nshop {sha256(A)}{ending}"
    path.write_text(before, encoding="utf-8")
    path.chmod(0o640)
    key = added(capsys, path, "app", "--requests-per-minute", "90")
    assert path.read_text(encoding="utf-8") == before.removesuffix("\n") + f"\napp {sha256(key)} 90\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640, "the service may run as another user"
    assert KeyStore.open(path).find(key) == Key("app", sha256(key), 90)
    assert added(capsys, path, "third") != key


def test_a_file_behind_a_link_is_changed_where_it_is(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path.parent / "folder").mkdir()
    link = path.parent / "folder" / "link"
    link.symlink_to(path)
    key = added(capsys, link, "new")
    assert link.is_symlink()
    assert sha256(key) in path.read_text(encoding="utf-8")


def test_list_prints_names_and_limits(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", str(path)]) == 0
    output = capsys.readouterr()
    assert output.out == "shop    the common limit\napp.v2  120 requests per minute\n"
    assert output.err == ""


def test_remove_takes_out_one_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["remove", str(path), "shop"]) == 0
    assert path.read_bytes().decode() == FILE.replace(f"shop {sha256(A)}\n", "")
    assert "no key with the name 'shop'" in failure(capsys, "remove", str(path), "shop")


def test_the_only_key_is_not_removed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A running service would take the file for a broken one, and the key would stay valid."""
    text = f"shop {sha256(A)}\n"
    path.write_text(text, encoding="utf-8")
    assert "add another first" in failure(capsys, "remove", str(path), "shop")
    assert path.read_text(encoding="utf-8") == text


def test_a_running_service_sees_the_command(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    store = KeyStore.open(path, clock)
    key = added(capsys, path, "new")
    assert main(["remove", str(path), "shop"]) == 0
    clock.now += 1
    assert store.find(key) == Key("new", sha256(key))
    assert store.find(A) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add", "keys.txt", "shop"], "there is a key with the name 'shop' already"),
        (["add", "keys.txt", "a b"], "a name is 1 to 64"),
        (["add", "keys.txt", "n" * 65], "a name is 1 to 64"),
        (["add", "keys.txt", ""], "a name is 1 to 64"),
        (["add", "keys.txt", "new", "--requests-per-minute", "0"], "whole number from 1"),
        (["add", "keys.txt", "new", "--requests-per-minute", "x"], "whole number from 1"),
        (["add", "keys.txt"], "required: NAME"),
        (["add", "keys.txt", "new", "more\nlines"], "unrecognized arguments: more lines"),
        (["add", "keys.txt/in", "new"], "keys.txt/in: Not a directory"),
        (["add", ".", "new"], "cannot be read: Is a directory"),
        (["add", "missing/in", "new"], "missing/in: No such file or directory"),
        (["list", "missing"], "cannot be read: No such file"),
        (["list", "broken"], "broken, line 1: expected NAME"),
        (["add", "broken", "new"], "broken, line 1: expected NAME"),
        (["remove", "broken", "shop"], "broken, line 1: expected NAME"),
        (["remove", "missing", "shop"], "cannot be read: No such file"),
        (["destroy", "keys.txt"], "invalid choice"),
        ([], "required: COMMAND"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(path.parent)
    Path("broken").write_text("shop\n", encoding="utf-8")
    assert words in failure(capsys, *arguments)
    assert path.read_bytes().decode() == FILE
    assert sorted(os.listdir()) == ["broken", "keys.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    assert failure(capsys, "add", str(path), "new") == f"{path}: No space left on device"
    assert path.read_bytes().decode() == FILE
    assert os.listdir(path.parent) == ["keys.txt"]


def test_the_content_is_on_the_disk_before_it_takes_the_place_of_the_old(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[object] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else os.fstat(descriptor).st_size)
        fsync(descriptor)

    def replaced(source: str, target: Path) -> None:
        steps.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    added(capsys, path, "new")
    assert steps == [path.stat().st_size, "replace", "folder"]


def test_no_key_is_lost_when_many_are_added_at_the_same_time(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = [threading.Thread(target=main, args=(["add", str(path), f"name{n}"],)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    capsys.readouterr()
    assert main(["list", str(path)]) == 0
    names = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert names == {"shop", "app.v2", *(f"name{n}" for n in range(12))}


def test_the_command_runs_as_a_module(path: Path) -> None:
    command = [sys.executable, "-m", "serving.keys", "list", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("shop ")


def test_it_is_pure_python() -> None:
    """The command answers at once, and a gateway's checks need neither Ray nor FastAPI."""
    code = "import sys, serving.keys, serving.rates; print({'ray', 'fastapi', 'starlette', 'torch'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=True
    )
    assert done.stdout == "set()\n"
