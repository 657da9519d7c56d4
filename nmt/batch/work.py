"""The folder of a job in hand: what is asked for, and the answers so far. What is in it survives `kill -9`."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nmt.batch.memo import Memo
from nmt.errors import InputError

_JOB, _LOCK, _ANSWERS, _MEMO, _WRITTEN = "job.json", "lock", "answers.jsonl", "memo", "written"
_FIRST = (_LOCK, "job.partial")  # what is there before the rest


def key_of(text: str) -> bytes:
    """What a text is known by."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class Work:
    """A folder beside the output, there for as long as the job is unfinished.

    `answers.jsonl` has one line for each record, in order; it only grows, and what is torn at its end is dropped, so that what has been
    done is as many lines as it has. `memo` says at which byte of it the answer to a text is (`nmt.batch.memo`).
    """

    def __init__(self, folder: Path, job: dict[str, Any], force: bool = False) -> None:
        """Begin, or go on; with `force` the work of another job makes room. Raises `InputError` when the folder is that of another job, or
        no work folder at all, or when a process is at it."""
        self.folder = folder
        if (
            folder.exists()
            and not (folder / _JOB).exists()
            and any(each.name not in _FIRST for each in folder.iterdir())
        ):
            raise InputError(
                f"{folder}: is in the way, and not the folder of a job; move it, or choose another --output"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / _LOCK).open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{folder}: another process is at this job") from None
        said = json.dumps(job, indent=1, sort_keys=True)
        path = folder / _JOB
        if path.exists() and (before := path.read_text(encoding="utf-8")) != said:
            if not force:
                raise InputError(
                    f"{folder}: holds the work of another job ({_difference(before, job)}); give that command again to finish it, "
                    "or --force to throw it away"
                )
            path.unlink()
        if not path.exists():
            self._clear()
            path.with_suffix(".partial").write_text(said, encoding="utf-8")
            path.with_suffix(".partial").replace(path)
        self._answers = (folder / _ANSWERS).open("a+b")
        self.count = self._mend()
        self._reader = (folder / _ANSWERS).open("rb")
        self._memo: Memo | None = None

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.name not in (_LOCK, _JOB):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _mend(self) -> int:
        """Drop what is torn; the number of answers."""
        self._answers.seek(0)
        count = size = 0
        for line in self._answers:
            if not line.endswith(b"\n"):
                break
            count, size = count + 1, size + len(line)
        self._answers.truncate(size)
        self.size = size
        return count

    def remember(self, texts: int) -> None:
        """Be ready to know answers, of so many texts at most."""
        self._memo = Memo(self.folder / _MEMO, texts)

    def append(self, lines: Sequence[str], keys: Sequence[bytes | None]) -> None:
        """Write answers, with the keys of those that may be asked for again."""
        known, at = [], self.size
        for line, key in zip(lines, keys, strict=True):
            if key is not None:
                known.append((key, at))
            at += len(line) + 1
        self._answers.write("".join(f"{line}\n" for line in lines).encode("ascii"))
        self._answers.flush()
        os.fsync(self._answers.fileno())
        self.size, self.count = at, self.count + len(lines)
        assert self._memo is not None
        for key, place in known:  # after the answers: what it names is there
            self._memo.put(key, place)

    def known(self, key: bytes) -> str | None:
        """The answer to a text that has come before."""
        assert self._memo is not None
        place = self._memo.find(key)
        if place is None:
            return None
        self._reader.seek(place)
        return self._reader.readline().rstrip(b"\n").decode("ascii")

    def read(self, at: int = 0) -> Iterator[tuple[str, int]]:
        """The answers from byte `at` of the file on, and where each ends."""
        with (self.folder / _ANSWERS).open("rb") as stream:
            stream.seek(at)
            for line in stream:
                at += len(line)
                yield line.decode("ascii"), at

    def written(self) -> int:
        """How many outputs are finished."""
        path = self.folder / _WRITTEN
        return len(path.read_bytes()) if path.exists() else 0

    def finish_one(self) -> None:
        """One more is."""
        with (self.folder / _WRITTEN).open("ab") as stream:
            stream.write(b".")

    def leave(self) -> None:
        """The job ends for now; the folder stays where there is something in it that is worth it."""
        if (self.folder / _ANSWERS).stat().st_size:  # not `count`, which an interrupt may have kept from being raised
            self.close()
        else:
            self.remove()

    def close(self) -> None:
        """Leave the folder as it is."""
        if self._memo:
            self._memo.close()
        self._reader.close()
        self._answers.close()
        self._lock.close()

    def remove(self) -> None:
        """The job is done."""
        self.close()
        shutil.rmtree(self.folder)


def _difference(before: str, job: dict[str, Any]) -> str:
    try:
        earlier = json.loads(before)
    except ValueError:
        return "job.json is damaged"
    names = [name for name in sorted(earlier.keys() | job.keys()) if earlier.get(name) != job.get(name)]
    return f"it differs in: {', '.join(names)}"
