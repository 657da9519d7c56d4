"""The client and the command line at a running server; and the same text by command line, Python and HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from serving_fakes import served

from nmt.cli import main
from nmt.errors import ServiceError
from nmt.inference.client import Client
from nmt.inference.translator import Translator
from serving.backend import Models
from serving.config import ServeConfig
from serving.gateway import create_app
from serving.keys import main as keys
from serving.replica import TranslatorReplica

BUNDLE = str(ROOT / "data/pretrained/tatoeba-en-de")
TEXTS = ["I saw Tom in Boston.", "", "Where is it?\n\n- I'm tired.", "a {name}"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    config = ServeConfig(models=[BUNDLE], deadline_s=60.0)
    with served(create_app(Models({"bundled": TranslatorReplica(BUNDLE, 1, config)}), config)) as address:
        yield address


@pytest.fixture(scope="module")
def translator() -> Translator:
    return Translator.load(Path(BUNDLE), threads=1)


def test_translations_are_those_of_the_library(url: str, translator: Translator) -> None:
    options = translator.defaults.model_copy(update={"n_best": 2, "alignment": True})
    asked = Client(url).translate(TEXTS, {"n_best": 2, "alignment": True, "attention": True, "tokens": True})
    for one, other in zip(asked, translator.translate(TEXTS, options), strict=True):
        assert [each.text for each in one.hypotheses] == [each.text for each in other.hypotheses][: len(one.hypotheses)]
        assert (one.source, one.source_tokens, one.target_tokens, one.segments) == (
            *(other.source, other.source_tokens, other.target_tokens, other.segments),
        )
        assert one.source_subwords == other.source_subwords
        assert one.hypotheses[0].alignment == other.hypotheses[0].alignment
        assert [token.piece for token in one.hypotheses[0].tokens] == [
            token.piece for token in other.hypotheses[0].tokens
        ]
        assert one.score == pytest.approx(other.score, abs=1e-6)


def test_what_else_a_server_says(url: str, translator: Translator) -> None:
    client = Client(url)
    (model,) = client.models()
    assert (model["name"], model["source"], model["target"]) == ("tatoeba-en-de", "en", "de")
    assert client.languages() == {"en": ["de"], "de": []}
    assert client.detect(["Where is the station?", "Wo ist der Bahnhof?"]) == ["en", "de"]
    pairs = [("I am tired.", "Ich bin müde."), ("Yes.", "Nein.")]
    scores = [each.score for each in translator.score(pairs)]
    assert [each.score for each in client.score(pairs)] == pytest.approx(scores, abs=1e-6)
    pieces = list(client.stream(TEXTS))
    joined = ["".join(text for index, text in pieces if index == number) for number in range(len(TEXTS))]
    assert joined == [each.text for each in client.translate(TEXTS)]


def test_what_goes_wrong_is_one_error(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ServiceError, match="422 beam_size is too large"):
        Client(url).translate(["a"], {"beam_size": 1000})
    with pytest.raises(ServiceError, match="404 no model for these languages"):
        list(Client(url).stream(["a"], {"target": "zz"}))
    with pytest.raises(ServiceError, match="cannot be reached"):
        Client("http://127.0.0.1:9").models()
    with pytest.raises(ServiceError, match="not the address of a server"):
        Client("127.0.0.1:9")
    file = tmp_path / "keys.yaml"
    keys(["add", str(file), "me"])
    key = capsys.readouterr().out.split()[-1]
    config = ServeConfig(models=[BUNDLE], keys=str(file))
    with served(create_app(Models({}), config)) as locked:
        with pytest.raises(ServiceError, match="401 a key is needed"):
            Client(locked).translate(["a"])
        with pytest.raises(ServiceError, match="404 no"):
            Client(locked, key).translate(["a"])


def test_the_command_line_at_a_server(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, glossary = tmp_path / "texts", tmp_path / "terms"
    file.write_text("I like the cat.\nI am tired.\n", encoding="utf-8")
    glossary.write_text("cat\tMieze\n", encoding="utf-8")
    outputs = []
    for begin in ([BUNDLE], ["--server", url]):
        for more in ([], ["--n-best", "2", "--beam-size", "3"], ["--alignment"], ["--glossary", str(glossary)]):
            assert main(["translate", *begin, str(file), *more]) == 0
            outputs.append(capsys.readouterr().out)
    assert outputs[:4] == outputs[4:]
    assert "Mieze" in outputs[3]
    assert main(["translate", "--server", url, "--text", "I am tired.", "--json", "--prefix", "Ich"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["translation"].startswith("Ich")
    assert shown["tokens"]
    for wrong, said in (
        (["--server", url, "--set", "seed=1", "--text", "a"], "--ensemble and --set are for a bundle"),
        (["--text", "a"], "give a bundle, or --server URL"),
        (["--server", "http://127.0.0.1:9", "--text", "a"], "cannot be reached"),
        (["--server", url, "--target", "zz", "--text", "a"], "no model for these languages"),
    ):
        assert main(["translate", *wrong]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.timeout(600)
def test_the_test_split_is_the_same_by_all_ways(
    corpora: Path, url: str, translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Command line in a process of its own, Python and HTTP: every line of the published test split."""
    from nmt.evaluation.evaluate import corpus_test_set

    monkeypatch.setenv("NMT_CORPORA", str(corpora))
    texts = [source for source, _ in corpus_test_set("tatoeba-en-de", "test").pairs]
    assert len(texts) == 2000
    file = tmp_path / "texts"
    file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    command = [sys.executable, "-m", "nmt", "translate", BUNDLE, str(file), "--threads", "2"]
    by_command = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout.splitlines()
    by_python = [each.text for each in translator.translate(texts)]
    by_http = [each.text for each in Client(url).translate(texts)]
    assert by_command == by_python == by_http
