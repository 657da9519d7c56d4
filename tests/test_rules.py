"""What options forbid, force or leave to chance: always met, and of no consequence to sentences without them."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.cli import main
from nmt.errors import InputError
from nmt.inference.engine import Engine
from nmt.inference.rules import allowed, drawn
from nmt.inference.search import Candidate, RunningBatch, SearchError, Sentence
from nmt.inference.torch_backend import TorchBackend
from nmt.inference.translator import Translator
from nmt.inference.types import DecodeOptions
from nmt.model.seq2seq import Seq2Seq
from nmt.text.tokenizer import BOS, EOS

V = 24
BUNDLE = ROOT / "data/pretrained/tatoeba-en-de"


def decided(seed: int = 0, end: float = 1.0) -> Seq2Seq:
    model = tiny.model(vocabulary=V, seed=seed, sharpness=2.0)
    model.output_bias[EOS] += end
    return model


def sentence(number: int, prefix: tuple[int, ...] = (), **options: float) -> Sentence:
    rng = random.Random(number)
    ids = [*(rng.randrange(EOS + 1, V) for _ in range(rng.randint(1, 9))), EOS]
    return Sentence(
        ids, DecodeOptions.model_validate({"max_length_ratio": 1, "max_length_extra": 6, **options}), prefix
    )


def searched(model: Seq2Seq, *sentences: Sentence) -> list[list[Candidate]]:
    """All in one batch."""
    batch = RunningBatch(TorchBackend(model), sentences[0].options.beam_size, 16)
    batch.join(sentences)
    while batch.sentences:
        batch.step()
    assert all(each.error is None for each in sentences)
    return [each.finished for each in sentences]


def rescored(model: Seq2Seq, source: list[int], ids: list[int]) -> float:
    memory = model.encode(torch.tensor([source]), torch.tensor([len(source)]))
    logits, _ = model.decode(torch.tensor([[BOS, *ids[:-1]]]), memory, memory.state)
    return float(torch.log_softmax(logits[0], dim=-1)[range(len(ids)), ids].sum())


def ngrams(ids: list[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 500), beam=st.integers(1, 4), least=st.integers(0, 9), ngram=st.integers(0, 3),
    prefix=st.lists(st.integers(EOS + 1, V - 1), max_size=5),
)  # fmt: skip
def test_rules_are_met_and_scores_stay_those_of_the_model(
    seed: int, beam: int, least: int, ngram: int, prefix: list[int]
) -> None:
    model = decided(seed % 10)
    ruled = sentence(seed, tuple(prefix), beam_size=beam, n_best=beam, min_length=least, no_repeat_ngram=ngram)
    free = sentence(seed + 1, beam_size=beam, n_best=beam)
    alone = searched(model, sentence(seed + 1, beam_size=beam, n_best=beam))[0]
    candidates, beside = searched(model, ruled, free)
    assert [c.ids for c in beside] == [c.ids for c in alone]
    assert candidates
    for candidate in candidates:
        assert candidate.ids[: len(prefix)] == prefix
        assert len(candidate.ids) >= min(least, ruled.limit - 1)
        later = ngrams(candidate.ids, ngram)[max(0, len(prefix) - ngram + 1) :] if ngram else []
        assert all(
            Counter(ngrams(candidate.ids, ngram))[each] == 1 for each in later if each not in ngrams(prefix, ngram)
        )
        whole = candidate.ids + [EOS] * candidate.ended
        assert candidate.log_probability == pytest.approx(rescored(model, list(ruled.ids), whole), abs=1e-3)


def test_what_may_follow() -> None:
    log_p = np.log(np.full(9, 1 / 9))
    free = {i for i in range(9) if np.isfinite(allowed(log_p, [4, 5], [], 0, 0)[i])}
    assert free == set(range(EOS, 9))
    assert np.flatnonzero(np.isfinite(allowed(log_p, [4, 5], [4, 5, 7], 9, 2))).tolist() == [7]
    assert not np.isfinite(allowed(log_p, [4, 5], [], 3, 0)[EOS])
    assert np.isfinite(allowed(log_p, [4, 5, 6], [], 3, 0)[EOS])
    once = np.flatnonzero(np.isfinite(allowed(log_p, [4, 5, 6, 4], [], 0, 2))).tolist()
    assert once == [EOS, 4, 6, 7, 8]
    assert np.flatnonzero(np.isfinite(allowed(log_p, [4, 5], [], 0, 1))).tolist() == [EOS, 6, 7, 8]


def test_forcing_a_whole_sentence_gives_its_own_probability() -> None:
    model = decided()
    for seed in range(5):
        forced = (*random.Random(seed).choices(range(EOS + 1, V), k=30), EOS)  # beyond the limit of a search
        subject = sentence(seed, forced, beam_size=1)
        ((candidate,),) = searched(model, subject)
        assert candidate.ended
        assert candidate.ids == list(forced[:-1])
        assert candidate.log_probability == pytest.approx(rescored(model, list(subject.ids), list(forced)), abs=1e-3)


# --- chance -----------------------------------------------------------------------------------------------------------


def test_draws_follow_the_probabilities() -> None:
    log_p = np.log(np.array([0.5, 0.3, 0.15, 0.05]))

    def shares(**options: float) -> list[float]:
        counts = Counter(
            drawn(log_p, DecodeOptions.model_validate({"temperature": 1, "seed": seed, **options}), [7], (0, 0))
            for seed in range(4000)
        )
        return [counts[i] / 4000 for i in range(4)]

    assert shares() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)
    assert shares(top_k=2) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)
    assert shares(top_p=0.85) == pytest.approx([0.526, 0.316, 0.158, 0], abs=0.03)
    assert shares(top_p=1e-9) == [1, 0, 0, 0]
    assert shares(temperature=0.25) == pytest.approx([0.878, 0.114, 0.007, 0.0], abs=0.03)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 500), count=st.integers(1, 4))
def test_what_is_drawn_depends_on_seed_and_text_alone(seed: int, count: int) -> None:
    model = decided(seed % 5)
    drawing = {"beam_size": count, "n_best": count, "temperature": 1.0, "seed": seed}
    others = [sentence(seed + i, beam_size=count) for i in range(1, 4)]
    alone, again = (searched(model, sentence(seed, **drawing))[0] for _ in range(2))
    beside = searched(model, *others, sentence(seed, **drawing))[-1]
    for found in (again, beside):
        assert [c.ids for c in found] == [c.ids for c in alone]
    assert len(alone) == count
    for candidate in alone:
        whole = candidate.ids + [EOS] * candidate.ended
        expected = rescored(model, list(sentence(seed).ids), whole)
        assert candidate.log_probability == pytest.approx(expected, abs=1e-3)


def test_other_seeds_draw_other_sentences() -> None:
    model = decided(end=-1.0)
    found = {
        tuple(searched(model, sentence(3, beam_size=1, temperature=1.0, seed=seed))[0][0].ids) for seed in range(12)
    }
    assert len(found) > 8


# --- as text ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def translator() -> Translator:
    return Translator.load(BUNDLE, threads=1)


def test_a_translation_begins_as_it_is_told(translator: Translator) -> None:
    texts, prefixes = ["I have never been to Boston.", "She is reading a book.", ""], ["In Boston", "", ""]
    told, free, empty = translator.translate(texts, prefixes=prefixes)
    assert told.text.startswith("In Boston")
    assert len(told.text) > len("In Boston.")
    assert free == translator.translate(texts[1:2])[0]
    assert empty.text == ""


@pytest.mark.parametrize(
    ("texts", "prefixes", "words"),
    [
        (["a", "b"], ["x"], "1 prefixes for 2 texts"),
        (["Good morning!"], ["Ja " * 60], "the prefix of text 1 has 60 subwords, its translation may have"),
        (["Hi.", "We sang. " * 40], ["", "Wir"], r"text 2 is divided into \d+ parts"),
        (["Hi."], ["\ud800"], "lone surrogate"),
    ],
)  # fmt: skip
def test_prefixes_that_cannot_be(translator: Translator, texts: list[str], prefixes: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        translator.translate(texts, prefixes=prefixes)
    assert translator.translate(["Good morning!"])[0].text == "Guten Morgen!"


def test_scores_of_given_translations(translator: Translator) -> None:
    source = "She has three children."
    found = translator.translate([source])[0]
    good, bad = translator.score([(source, found.text), (source, "Der Zug ist grün.")])
    assert good.score == pytest.approx(found.score, abs=1e-4)
    assert bad.score < good.score - 1
    assert translator.score([]) == []
    with pytest.raises(InputError, match="pair 2: there is no text on one of its sides"):
        translator.score([(source, found.text), (source, " ")])


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("She has three children.\nGood morning!\n", encoding="utf-8")
    target.write_text("Sie hat drei Kinder.\nAuf Wiedersehen!\n", encoding="utf-8")
    assert main(["score", str(BUNDLE), "--source", str(source), "--target", str(target)]) == 0
    one, two = map(float, capsys.readouterr().out.split())
    assert 0 > one > two
    text = ["translate", str(BUNDLE), "--text", "I saw her yesterday."]
    assert main([*text, "--prefix", "Gestern"]) == 0
    assert capsys.readouterr().out.startswith("Gestern ")
    assert main([*text, "--set", "temperature=1", "--set", "seed=5", "--n-best", "3"]) == 0
    drawn_once = capsys.readouterr().out
    assert drawn_once.count("\n") == 3
    assert main([*text, "--set", "temperature=1", "--set", "seed=5", "--n-best", "3"]) == 0
    assert capsys.readouterr().out == drawn_once
    assert main([*text, "--set", "temprature=1"]) == 2
    assert "did you mean 'temperature'" in capsys.readouterr().err
    target.write_text("Sie hat drei Kinder.\n", encoding="utf-8")
    assert main(["score", str(BUNDLE), "--source", str(source), "--target", str(target)]) == 2
    assert "has 2 lines" in capsys.readouterr().err


def test_an_engine_takes_prefixes() -> None:
    engine = Engine(TorchBackend(decided()))
    options = DecodeOptions(beam_size=2)
    first, second = engine.submit_all([Sentence([7, EOS], options, [5, 6]), Sentence([8, 9, EOS], options)])
    assert first.result(20)[0].ids[:2] == [5, 6]
    assert second.result(20)[0].ids[:2] != [5, 6]
    engine.close()


def test_options_that_forbid_everything_are_an_error_for_that_sentence() -> None:
    engine = Engine(TorchBackend(tiny.model(vocabulary=6)))  # two words, each of which may be said once
    never = DecodeOptions(beam_size=2, min_length=9, no_repeat_ngram=1)
    one, other = engine.submit([4, EOS], never), engine.submit([4, EOS], DecodeOptions(beam_size=2))
    with pytest.raises(SearchError, match="nothing that the options of this search allow"):
        one.result(20)
    assert other.result(20)
    engine.close()


def test_repetition_is_gone_where_it_is_not_allowed() -> None:
    model = decided(end=-50.0)  # which says the same again and again, to the limit
    loop, none = (searched(model, sentence(1, beam_size=2, no_repeat_ngram=n))[0][0].ids for n in (0, 2))
    assert max(Counter(pairwise(loop)).values()) > 1
    assert max(Counter(pairwise(none)).values()) == 1
