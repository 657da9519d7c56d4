"""API keys: a file of their hashes, who a key belongs to, and `python -m serving.keys` to add, list and remove them. Pure Python.

A key file is text with a key a line, `NAME SHA256 [REQUESTS_PER_MINUTE]`, and comments after `#`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from nmt.errors import ConfigError

_log = logging.getLogger("ray.serve")

PREFIX = "strata-"  # so that a key that has leaked can be recognised, by people and by scanners
_SCHEMES = ("bearer", "deepl-auth-key")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_RATE = re.compile(r"[1-9][0-9]{0,8}")
_NAME_WORDS = "a name is 1 to 64 of the characters A-Z a-z 0-9 . _ -"
_RATE_WORDS = "requests per minute must be a whole number from 1 to 999999999"
_LOOK_S = 1.0


@dataclass(frozen=True)
class Key:
    """One line of a key file; `digest` is the SHA-256 of the key in lower-case hexadecimal, the key itself is not kept."""

    name: str
    digest: str
    requests_per_minute: int | None = None


class KeyStore:
    """The keys of a file, read anew when it changes. For one event loop: it has no lock."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path, self._clock = path, clock
        self._version = _version(path)  # taken before the reading, so that a change in between is seen at the next look
        self._keys = _load(path)
        self._looked, self._warned = clock(), ""

    @classmethod
    def open(cls, path: Path, clock: Callable[[], float] = time.monotonic) -> KeyStore:
        """The keys in `path`; raise `ConfigError` that names file and line for what is wrong, also for a file without a key."""
        return cls(path, clock)

    def find(self, key: str) -> Key | None:
        """Whose `key` this is; None for any other string. Looks at most once a second whether the file has changed."""
        now = self._clock()
        if now - self._looked >= _LOOK_S:
            self._looked = now
            self._renew()
        digest, found = _digest(key), None
        for each in self._keys:  # all of them, whatever is found: the time must not tell how near a guess came
            if hmac.compare_digest(each.digest, digest):
                found = each
        return found

    def _renew(self) -> None:
        """Read a changed file. One that cannot be used changes nothing, is warned of once, and is tried again at each look."""
        version = _version(self._path)
        if version == self._version:
            self._warned = ""
            return
        try:
            self._keys = _load(self._path)
        except ConfigError as error:
            if str(error) != self._warned:
                _log.warning("%s; the keys known before stay valid", error)
            self._warned = str(error)
            return
        self._version, self._warned = version, ""
        _log.info("%s: read anew, %d keys", self._path, len(self._keys))


def presented(headers: Mapping[str, str], field: str | None) -> str | None:
    """The key that a client presents: `Authorization: Bearer KEY` or `DeepL-Auth-Key KEY`, or else the body's field `api_key`.

    `headers` must not regard the case of names, like Starlette's.
    """
    scheme, _, key = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() in _SCHEMES and key:
        return key.strip()
    return field or None


def _digest(key: str) -> str:
    # A fast hash is enough: keys are 32 random bytes, which nobody finds by trying, whatever one trial costs.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _version(path: Path) -> tuple[int, int, int] | None:
    """What is different after a change; the inode tells of a replaced file even within the resolution of the time."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _load(path: Path) -> list[Key]:
    keys = list(_read(path)[1].values())
    if not keys:
        raise ConfigError(f"{path}: there is no key in it; add one: python -m serving.keys add {path} NAME")
    return keys


def _read(path: Path) -> tuple[list[str], dict[int, Key]]:
    """The lines of a key file, and the keys by the index of their line."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: the key file cannot be read: {error.strerror}") from None
    try:
        lines = raw.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        number = raw[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {number}: not UTF-8; write it as UTF-8 text") from None
    keys: dict[int, Key] = {}
    names: dict[str, int] = {}
    digests: dict[str, int] = {}
    for index, line in enumerate(lines):
        words = line.partition("#")[0].split()
        if not words:
            continue
        where = f"{path}, line {index + 1}"
        key = keys[index] = _key(words, where)
        if key.name in names:
            raise ConfigError(
                f"{where}: the name {key.name!r} is on line {names[key.name]} already; rename one of them"
            )
        if key.digest in digests:
            raise ConfigError(f"{where}: the hash is on line {digests[key.digest]} already; remove one of them")
        names[key.name] = digests[key.digest] = index + 1
    return lines, keys


def _key(words: list[str], where: str) -> Key:
    """The key of a line; the errors do not quote what might be a key that was pasted in the place of its hash."""
    if len(words) not in (2, 3):
        raise ConfigError(f"{where}: expected NAME SHA256 [REQUESTS_PER_MINUTE], found {len(words)} words")
    name, digest, rate = words[0], words[1], words[2] if len(words) == 3 else None
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: {_NAME_WORDS}")
    if not _SHA256.fullmatch(digest):
        raise ConfigError(f"{where}: the second word must be the SHA-256 of a key, 64 hexadecimal digits")
    if rate is not None and not _RATE.fullmatch(rate):
        raise ConfigError(f"{where}: {_RATE_WORDS}")
    return Key(name, digest.lower(), None if rate is None else int(rate))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, or 2 after an error in one line."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "add":
            _add(options.file, options.name, options.requests_per_minute)
        elif options.command == "list":
            _list(options.file)
        else:
            _remove(options.file, options.name)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ConfigError as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"{options.file}: {error.strerror}")
    return 0


def _failed(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _add(path: Path, name: str, rate: int | None) -> None:
    key = PREFIX + secrets.token_urlsafe(32)
    with _locked(path) as descriptor:
        lines, keys = _read(path) if path.exists() else ([""], {})
        if name in (each.name for each in keys.values()):
            raise ConfigError(f"{path}: there is a key with the name {name!r} already; remove it first")
        if lines[-1].strip():
            lines.append("")  # the last line had no end
        lines.insert(len(lines) - 1, f"{name} {_digest(key)}" + (f" {rate}" if rate is not None else ""))
        _write(path, "\n".join(lines), descriptor)
    print(key)
    print("This is the only time the key is shown: only its hash is stored.", file=sys.stderr)


def _list(path: Path) -> None:
    keys = _load(path)
    width = max(len(key.name) for key in keys)
    for key in keys:
        rate = key.requests_per_minute
        print(f"{key.name:<{width}}  {'the common limit' if rate is None else f'{rate} requests per minute'}")


def _remove(path: Path, name: str) -> None:
    with _locked(path) as descriptor:
        lines, keys = _read(path)
        found = [index for index, key in keys.items() if key.name == name]
        if not found:
            raise ConfigError(
                f"{path}: there is no key with the name {name!r}; see `python -m serving.keys list {path}`"
            )
        if len(keys) == 1:  # a service takes a file without keys for a broken one, and would go on letting this one in
            raise ConfigError(f"{path}: {name!r} is the only key, and a service with keys needs one; add another first")
        del lines[found[0]]
        _write(path, "\n".join(lines), descriptor)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The descriptor of the file's folder, locked, so that of two changes at the same time none is lost."""
    folder = os.open(Path(os.path.realpath(path)).parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot lock a folder
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(folder)


def _write(path: Path, text: str, folder: int) -> None:
    """Replace the file in one step, behind a link too. A new one is for its owner alone, an old one keeps its owner and mode."""
    target = Path(os.path.realpath(path))
    descriptor, partial = tempfile.mkstemp(prefix=".keys.", dir=target.parent)  # with mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            with contextlib.suppress(FileNotFoundError):
                status = target.stat()
                with contextlib.suppress(PermissionError):  # only root can give a file away
                    os.fchown(descriptor, status.st_uid, status.st_gid)
                os.fchmod(descriptor, status.st_mode & 0o777)
            file.flush()
            os.fsync(descriptor)
        os.replace(partial, target)
    except BaseException:
        os.unlink(partial)
        raise
    with contextlib.suppress(OSError):  # the key is in the file; some file systems cannot do this for a folder
        os.fsync(folder)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(_failed(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m serving.keys",
        description="API keys of the translation service. Changes are seen within a second.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add = commands.add_parser("add", help="make a key, print it once, and store its hash")
    shown = commands.add_parser("list", help="print the names of the keys and their limits")
    remove = commands.add_parser("remove", help="make a key invalid")
    for command in (add, shown, remove):
        command.add_argument("file", type=Path, metavar="FILE", help="key file; `add` makes it where there is none")
    for command in (add, remove):
        command.add_argument("name", type=_name, metavar="NAME", help="whose key it is")
    add.add_argument("--requests-per-minute", type=_rate, metavar="N", help="in the place of the common limit")
    return parser


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(_NAME_WORDS)
    return text


def _rate(text: str) -> int:
    if not _RATE.fullmatch(text):
        raise argparse.ArgumentTypeError(_RATE_WORDS)
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
