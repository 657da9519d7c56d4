"""A dataset hub on the loopback interface: as much of its HTTP interface as `datasets` and `huggingface_hub` ask for.

A repository is a mapping from revision to {path: bytes}. The stub serves repository information, file listings and
file contents (with ranges), keeps a log of what was asked, and can drop the connection in the middle of a file.

The libraries read their settings when they are imported, so sources are read in a process of their own:
`read_in_process`. That process can reach the loopback interface alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow
import pyarrow.parquet

Files = Mapping[str, bytes]
Row = Mapping[str, Any]
_API = re.compile(r"/api/datasets/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
_RESOLVE = re.compile(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


def commit_of(revision: str, files: Files) -> str:
    """The commit that a revision points to: 40 hexadecimal digits that depend on its files."""
    return hashlib.sha1(repr((revision, sorted(files.items()))).encode()).hexdigest()


@dataclass
class Hub:
    """The state of one stub. `drops`: for OWNER/NAME/PATH, how many bytes of it to send and how many times to drop it."""

    repositories: dict[str, dict[str, Files]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    drops: dict[str, tuple[int, int]] = field(default_factory=dict)
    endpoint: str = ""

    def publish(self, repository: str, files: Files, revision: str = "main") -> None:
        """Make `files` the content of a revision of `repository`."""
        self.repositories.setdefault(repository, {})[revision] = files

    def drop(self, file: str, after: int, times: int) -> None:
        """Of the requests for a file, OWNER/NAME/PATH, cut the next `times` ones after `after` bytes of content."""
        self.drops[file] = (after, times)

    def to_drop(self, file: str) -> int | None:
        """How many bytes of this request's answer may be sent; None for all. Counts the request."""
        after, times = self.drops.get(file, (0, 0))
        if not times:
            return None
        self.drops[file] = (after, times - 1)
        return after

    def find(self, repository: str, revision: str) -> tuple[str, Files] | str:
        """(commit, files) of a branch or commit; the hub's error code when there is none."""
        revisions = self.repositories.get(repository)
        if revisions is None:
            return "RepoNotFound"
        for name, files in revisions.items():
            if revision in (name, commit_of(name, files)):
                return commit_of(name, files), files
        return "RevisionNotFound"


def parquet(rows: Sequence[Row]) -> bytes:
    """The content of a Parquet file that holds `rows`."""
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), stream)
    return stream.getvalue()


def jsonl(rows: Sequence[Row]) -> bytes:
    """The content of a file that holds `rows` as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def card(configurations: Mapping[str, Mapping[str, str]]) -> bytes:
    """A data set's README whose head says which files belong to which configuration and split, as the hub's do."""
    lines = ["---", "configs:"]
    for name, splits in configurations.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        for split, path in splits.items():
            lines += [f"  - split: {split}", f"    path: {path}"]
    return "\n".join([*lines, "---", "A data set.", ""]).encode()


_READER = """
import json, socket, sys

outside = []

def only_loopback(event, arguments):
    host = "127.0.0.1"
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    if event == "socket.getaddrinfo":
        host = arguments[0]
    if host not in ("127.0.0.1", "localhost", None):
        if not host.endswith(".127.0.0.1"):  # made of HF_ENDPOINT by `datasets`; no name that anyone could have
            outside.append(host)
        raise socket.gaierror(f"no way to {host}: tests stay on this machine")

sys.addaudithook(only_loopback)
from nmt.corpus import sources
from nmt.corpus.recipe import Source
from nmt.errors import NMTError

sources._PAUSES = tuple(pause / 50 for pause in sources._PAUSES)
for line in sys.stdin:
    keys, languages = json.loads(line)
    try:
        result = list(sources.read_pairs(Source.model_validate(keys), tuple(languages)))
    except NMTError as error:
        result = f"{type(error).__name__}: {error}"
    print("result " + json.dumps(result))
print("outside " + json.dumps(outside))
"""


def read_in_process(
    endpoint: str, home: Path, wanted: Sequence[tuple[Row, tuple[str, str]]], **environment: str
) -> list[list[tuple[str, str]] | str]:
    """Read sources (keys of a recipe's source, languages) from a hub: the pairs of each, or its error's class and text.

    `home` is the cache of the hub's libraries: a second call with the same one finds what the first has loaded.
    """
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", _READER],
        input="".join(json.dumps(item) + "\n" for item in wanted),
        env=inherited | settings | environment,
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "outside []" in done.stdout.splitlines(), done.stdout[-300:]
    results = [json.loads(line.removeprefix("result ")) for line in done.stdout.splitlines() if line[:7] == "result "]
    assert len(results) == len(wanted), done.stderr[-3000:]
    return [result if isinstance(result, str) else [(left, right) for left, right in result] for result in results]


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that serves on a free port of 127.0.0.1 while the context is open."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Hub

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep quiet: requests are kept in the hub's log."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.state.log.append(f"{self.command} {self.path} {self.headers.get('Range') or ''}".rstrip())
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        path = urlsplit(self.path).path
        if match := _API.fullmatch(path):
            self._api(match, parse_qs(body))
        elif match := _RESOLVE.fullmatch(path):
            self._file(*(unquote(part) for part in match.groups()))
        else:
            self._error("EntryNotFound")

    def _api(self, match: re.Match[str], form: dict[str, list[str]]) -> None:
        repository, verb, revision, below = match.groups()
        found = self.state.find(repository, unquote(revision or "main"))
        if isinstance(found, str):
            return self._error(found)
        commit, files = found
        if verb in (None, "revision"):
            siblings = [{"rfilename": path} for path in files]
            info = {"_id": commit[:24], "id": repository, "sha": commit, "private": False, "siblings": siblings}
            return self._json(info | {"tags": [], "downloads": 0, "likes": 0, "disabled": False, "gated": False})
        entries = _entries(files)
        if verb == "paths-info":
            return self._json([entries[path] for path in form.get("paths", []) if path in entries])
        folder = unquote(below or "")
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
        inside = [entry for path, entry in entries.items() if _is_below(path, folder, recursive)]
        if folder and not inside:
            return self._error("EntryNotFound")
        return self._json(inside)

    def _file(self, repository: str, revision: str, path: str) -> None:
        found = self.state.find(repository, revision)
        if isinstance(found, str):
            return self._error(found)
        commit, files = found
        if path not in files:
            return self._error("EntryNotFound", {"X-Repo-Commit": commit})
        return self._content(f"{repository}/{path}", files[path], commit)

    def _content(self, file: str, content: bytes, commit: str) -> None:
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{_oid(content)}"',
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        status, part = 200, content
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted:
            start = int(wanted[1])
            stop = min(int(wanted[2] or len(content)) + 1, len(content))
            status, part = 206, content[start:stop]
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        self._send(status, headers, part, None if self.command == "HEAD" else self.state.to_drop(file))

    def _json(self, value: Any) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _error(self, code: str, headers: Mapping[str, str] | None = None) -> None:
        self._send(404, {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})}, b"")

    def _send(self, status: int, headers: Mapping[str, str], body: bytes, only: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:only])
        if only is not None and only < len(body):
            self.wfile.flush()
            # Lingering for no time makes closing send a reset, as a broken line does, and not an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True


def _oid(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _entries(files: Files) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for path, content in files.items():
        parents = path.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            folder = "/".join(parents[:depth])
            entries[folder] = {"type": "directory", "path": folder, "size": 0, "oid": _oid(folder.encode())}
        entries[path] = {"type": "file", "path": path, "size": len(content), "oid": _oid(content)}
    return entries


def _is_below(path: str, folder: str, recursive: bool) -> bool:
    rest = path[len(folder) + 1 :] if folder and path.startswith(folder + "/") else ("" if folder else path)
    return bool(rest) and (recursive or "/" not in rest)
