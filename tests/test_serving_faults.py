"""What a caller notices when parts of the service die: processes are really killed, under 20 requests a second."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

pytest.importorskip("ray.serve")

from serving_process import Service, configuration, free_port, processes_below, running, under_load, until

pytestmark = pytest.mark.alone

KILLS = int(os.environ.get("STRATA_KILLS", "2"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    """Two gateways before two replicas of each model, behind HAProxy."""
    port = free_port()
    path = configuration(folder, port, replicas=2, gateways=2, threads=1, deadline_s=40, drain_s=20, tracing=True)
    with running(path, port, "--ingress", "haproxy") as service:
        yield service


def killed(service: Service, *words: str, all_of_them: bool = False) -> None:
    """Kill such processes, and wait until there are as many again."""
    before = service.pids(*words)
    assert before, f"no process with {words} among {processes_below(service.process.pid)}"
    gone = before if all_of_them else before[:1]
    for pid in gone:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len([p for p in service.pids(*words) if p not in gone]) >= len(before), 60, f"{words} again")


@pytest.mark.parametrize(
    ("words", "all_of_them"),
    [
        (("ServeReplica", "translator-stub"), False),
        (("ServeReplica", "translator-stub"), True),
        (("ServeController",), False),
    ],
    ids=["a translator", "all translators of a model", "the controller"],
)
def test_killing_a_part_fails_no_request(service: Service, words: tuple[str, ...], all_of_them: bool) -> None:
    with under_load(service) as load:
        time.sleep(1.0)
        killed(service, *words, all_of_them=all_of_them)
        time.sleep(2.0)
    assert len(load.answers) > 50
    assert load.failed == []


def test_each_gateway_knows_of_every_document(service: Service) -> None:
    form = {"files": {"file": ("a.txt", b"one\n\ntwo\n")}, "data": {"target": "de"}}
    numbers = [httpx.post(f"{service.url}/v1/documents", **form, timeout=30).json()["id"] for _ in range(4)]
    for number in numbers:
        url = f"{service.url}/v1/documents/{number}"
        until(lambda url=url: httpx.get(url, timeout=10).json()["state"] == "done", 30, "a document")  # type: ignore[misc]
        for _ in range(8):  # by connections of their own, so by one gateway or the other
            assert httpx.get(f"{url}/result", timeout=10).content == b"ONE\n\nTWO\n"
    refused = httpx.post(
        f"{service.url}/v1/documents", files={"file": ("a.xyz", b"x")}, data={"target": "de"}, timeout=30
    )
    assert (refused.status_code, "can't be translated" in refused.json()["error"]["message"]) == (422, True)
    unknown = httpx.post(f"{service.url}/v1/documents", **form | {"data": {"target": "zz"}}, timeout=30)
    assert unknown.status_code == 404


def test_what_a_gateway_had_in_hand_is_asked_again(service: Service) -> None:
    with under_load(service, text="sleep:0.06") as load:  # of which one is always on its way
        for _ in range(KILLS):
            time.sleep(1.0)
            killed(service, "ServeReplica", "gateway")
        time.sleep(2.0)
    print(f"{load.sent} requests over {KILLS} killed gateways: {len(load.failed)} failed")
    assert len(load.answers) == load.sent > 50
    assert load.failed == []


def test_what_manages_haproxy_is_back_within_ten_seconds(service: Service) -> None:
    [pid] = service.pids("HAProxyManager")
    with under_load(service) as load:
        time.sleep(1.0)
        os.kill(pid, signal.SIGKILL)
        died = time.monotonic()
        until(lambda: service.pids("HAProxyManager") not in ([], [pid]), 60, "another")
        time.sleep(8.0)
    assert all(at - died < 10 for at, _, _ in load.failed)
    assert load.answers[-1][1] == 200


def test_an_engine_that_stalls_is_noticed_and_replaced(service: Service) -> None:
    before = set(service.replicas("translator-back"))
    with pytest.raises(httpx.ReadTimeout):
        service.translate("stall", source="de", timeout=1.0)
    until(lambda: len(set(service.replicas("translator-back")) - before) >= 1, 40, "a replacement")


def test_what_is_served_changes_without_failing_a_request(service: Service, folder: Path) -> None:
    """A model is added, then one is changed, then one is removed and one comes from a folder of the same name; the others go on."""
    stay = set(service.replicas("translator-stub"))
    assert len(stay) == 2
    file = folder / "serve.yaml"
    first = file.read_text()
    for parent in (folder, folder / "other"):
        (parent / "more_en_fr").mkdir(parents=True)
    changes = [
        (
            first.replace(f"- {folder}/back_de_en", f"- {folder}/back_de_en\n    - {folder}/more_en_fr"),
            {"stub", "back", "more"},
        ),
        (None, {"stub", "back", "more"}),  # the same names, but a file of one has changed
        (first.replace(f"- {folder}/back_de_en", f"- {folder}/other/more_en_fr"), {"stub", "more"}),
    ]
    with under_load(service, target="de") as load:
        for text, names in changes:
            if text is None:
                (folder / "more_en_fr" / "new").touch()
            else:
                assert text != first
                file.write_text(text)
            old = set(service.replicas("gateway"))
            service.process.send_signal(signal.SIGHUP)
            until(functools.partial(gone, service, old), 90, "new gateways")
            found = httpx.get(f"{service.url}/v1/models", timeout=20).json()["models"]
            assert {entry["name"] for entry in found} == names
    assert len(load.answers) > 100
    assert load.failed == []
    assert set(service.replicas("translator-stub")) == stay, "a model that stays is not loaded anew"
    file.write_text("applicatons: []")
    service.process.send_signal(signal.SIGHUP)
    time.sleep(2.0)
    assert service.translate("after", target="de").status_code == 200, "what is wrong with the file changes nothing"
    file.write_text(first)


def gone(service: Service, pids: set[int]) -> bool:
    return not pids & set(service.replicas("gateway"))


def test_clients_that_hang_up_leave_nothing_behind(service: Service) -> None:
    """A storm of which four fifths hang up, then normal requests at once."""

    def request(number: int) -> int:
        try:
            seconds, timeout = (1, 0.3) if number % 5 else (0, 30)
            return service.translate(f"sleep:{seconds}", timeout, target="de").status_code
        except httpx.TransportError:
            return 0

    with ThreadPoolExecutor(40) as pool:
        found = list(pool.map(request, range(200)))
    assert found.count(0) >= 100
    started = time.monotonic()
    assert service.translate("at once", target="de").status_code == 200
    assert time.monotonic() - started < 2.0


def test_metrics_and_logs_tell_of_it_without_texts(service: Service) -> None:
    service.translate("Geheimnis", timeout=20, target="de")
    found = ""

    def exported() -> bool:
        nonlocal found
        found = httpx.get(f"http://127.0.0.1:{service.port + 1}/metrics", timeout=10).text
        return "ray_translate_requests_total{" in found and "ray_translate_sentences_total{" in found

    until(exported, 40, "metrics")
    line = next(line for line in found.splitlines() if line.startswith("ray_translate_requests_total{"))
    assert 'api="v1"' in line
    assert 'pair="en-de"' in found
    for name in ("ray_translate_request_seconds_bucket", "ray_translate_queue_depth", "ray_translate_queue_tokens"):
        assert name in found
    assert "Geheimnis" not in found
    ours = "".join(line for line in found.splitlines() if line.startswith("ray_translate"))
    assert "127.0.0.1" not in re.sub(r'NodeAddress="[^"]*"', "", ours), "no label has the address of a client"
    [log_folder] = {
        Path(each) for each in re.findall(r"--log_dir=(\S+)", " ".join(processes_below(service.process.pid).values()))
    }
    for _ in range(200):  # the log is written in blocks
        service.translate("Geheimnis", timeout=20, target="de")
    written = [path.read_text() for path in (log_folder / "serve").glob("replica_strata_gateway*")]
    lines = [json.loads(line) for text in written for line in text.splitlines()]
    asked = [line for line in lines if "POST /v1/translate 200" in line["message"]]
    assert asked
    assert all(line["request_id"] for line in asked)
    assert not any("Geheimnis" in text for text in written)
    spans = list((log_folder / "serve" / "spans").iterdir())
    assert any("translate" in path.read_text() for path in spans), "Serve's tracing is switched on by the file"
