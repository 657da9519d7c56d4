"""The lexical shortlist: what is learned from a corpus, what is on a sentence's list, and searching within it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from nmt.cli import main
from nmt.corpus.store import PreparedCorpus
from nmt.errors import BundleError, InputError
from nmt.inference.engine import Engine
from nmt.inference.onnx_backend import OnnxBackend, int8_is_exact
from nmt.inference.onnx_graph import ModelGraphs
from nmt.inference.search import RunningBatch, Sentence, beam_search
from nmt.inference.shortlist import Shortlist
from nmt.inference.translator import Translator
from nmt.inference.types import DecodeOptions
from nmt.inference.weights import Stored, int8_rows
from nmt.text.tokenizer import BOS, EOS, PAD
from nmt.training.bundling import BundleOptions, add_shortlist, make_bundle
from nmt.training.lexicon import learn_lexicon, make_shortlist

V = 700
BUNDLE = ROOT / "data/pretrained/tatoeba-en-de"
WIRINGS: dict[str, tuple[str, ...]] = {
    "gnmt": (),
    "deep": ("wiring=deep", "encoder.layer_norm=true", "decoder.layer_norm=true"),
    "luong": ("wiring=luong", "attention=dot", "tie_embeddings=none", "decoder.residual=false"),
}


def lists(seed: int = 0) -> Shortlist:
    rng = np.random.default_rng(seed)
    candidates = rng.integers(EOS + 1, V, (V, 20)).astype(np.uint16)
    candidates[:, 15:] = PAD
    return Shortlist(rng.permutation(V).astype(np.uint16), candidates)


def backend(name: str, int8: bool, seed: int = 0, signed: bool = False) -> OnnxBackend:
    model = tiny.model(tiny.model_config(*WIRINGS[name]), vocabulary=V, seed=seed, sharpness=2.0)
    model.output_bias[EOS] += 2.0
    weights = {key: Stored(value.numpy()) for key, value in model.state_dict().items()}
    if int8:
        weights = {key: int8_rows(one.values) if one.values.ndim == 2 else one for key, one in weights.items()}
    return OnnxBackend(ModelGraphs(model.config, weights, signed=signed), shortlist=lists(seed))


def sources(count: int, seed: int, longest: int = 14) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [[*rng.integers(EOS + 1, V, rng.integers(1, longest)).tolist(), EOS] for _ in range(count)]


# --- the lists ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [16, 32, 64])
def test_a_list_follows_from_the_sentence_and_has_one_length(width: int) -> None:
    made = lists()
    assert made.head[0] == EOS
    assert len(made.head) == 128
    for source in sources(8, 1):
        tail = made.tail(source, width)
        assert len(tail) == made.tail_length(width)
        assert len(tail) % 64 == 0
        everything = [word for word in (*made.head, *tail) if word != PAD]
        assert len(set(everything)) == len(everything) >= min(V - EOS, 128 + 8 * width)
        assert min(everything) == EOS  # no mark but the end's
        assert np.array_equal(tail, made.tail(source, width))
        best = {int(made.candidates[word, 0]) for word in source}
        assert best - {PAD} <= set(everything)


def test_the_best_candidates_of_every_word_come_first() -> None:
    candidates = np.full((2000, 40), PAD, np.uint16)
    for word in range(10, 26):
        candidates[word] = np.arange(1000 + 40 * (word - 10), 1000 + 40 * (word - 9))
    made = Shortlist(np.arange(2000, dtype=np.uint16), candidates)
    tail = made.tail([*range(10, 26), 10, EOS], 16)  # room for 128, of which sixteen words have eight each
    assert sorted(tail) == sorted(1000 + 40 * word + rank for word in range(16) for rank in range(8))
    few = made.tail([10, EOS], 16)
    assert few[:40].tolist() == list(range(1000, 1040))
    assert few[40:].tolist() == list(range(259, 259 + 88))  # then the next most frequent ones


def test_a_lexicon_is_learned_from_pairs(tmp_path: Path) -> None:
    corpus = PreparedCorpus.open(tiny.prepared(tmp_path, joint=False))
    made = make_shortlist(learn_lexicon(corpus), len(corpus.source_tokenizer))
    source, target = corpus.source_tokenizer, corpus.target_tokenizer
    ((the,), (das,)) = source.encode(["the"])[0], target.encode(["das"])[0]
    assert made.candidates[the, 0] == das
    assert made.frequent[0] == das
    right = 0
    for word, meaning in (("cat", "Katze"), ("dog", "Hund"), ("house", "Haus"), ("red", "rot"), ("sees", "sieht")):
        ids, wanted = source.encode([f"the {word}"])[0][1:], set(target.encode([f"das {meaning}"])[0][1:])
        right += bool(wanted & set(made.candidates[ids, :2].reshape(-1).tolist()))
    assert right >= 4
    again = make_shortlist(learn_lexicon(corpus, links=4000), len(corpus.source_tokenizer))  # a part of the corpus
    assert again.candidates[the, 0] == das
    assert np.array_equal(
        again.candidates, make_shortlist(learn_lexicon(corpus, links=4000), len(corpus.source_tokenizer)).candidates
    )
    assert not np.array_equal(again.candidates, made.candidates)


# --- searching within them ------------------------------------------------------------------------------------------


def steps(
    found: OnnxBackend, batch: list[list[int]], listed: bool
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Ids and log probabilities (N, top or V) of the words after each of three, one row a sentence."""
    rows = found.running(1, 16, listed)
    rows.insert(found.encode(batch))
    said = []
    for word in (BOS, 44, 90):
        scores = rows.step(np.full(len(batch), word), 40 if listed else 5, whole=not listed)
        said.append((scores.ids.copy(), (scores.best if scores.log_p is None else scores.log_p).copy()))
    return said


@pytest.mark.parametrize("name", WIRINGS)
def test_signed_or_not_it_is_the_same_where_products_are_exact(name: str) -> None:
    if not int8_is_exact():
        pytest.skip("products of int8 saturate on this processor")
    batch = sources(5, 2)
    usual, signed = (steps(backend(name, True, signed=signed), batch, True) for signed in (False, True))
    for (ids, best), (other_ids, other_best) in zip(usual, signed, strict=True):
        np.testing.assert_array_equal(ids, other_ids)
        np.testing.assert_array_equal(best, other_best)


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("name", WIRINGS)
def test_probabilities_within_a_list_are_the_model_s_among_those_on_it(name: str, int8: bool) -> None:
    found, batch = backend(name, int8), sources(5, 2)
    for (ids, best), (_, whole) in zip(steps(found, batch, True), steps(found, batch, False), strict=True):
        for row, source in enumerate(batch):
            made = lists()
            on = np.concatenate((made.head, made.tail(source, 16)))
            on = on[on != PAD]
            log_p = whole[row][on] - np.logaddexp.reduce(whole[row][on])
            order = np.argsort(-log_p, kind="stable")[:40]
            np.testing.assert_allclose(best[row], log_p[order], atol=2e-5)
            np.testing.assert_allclose(dict(zip(on, log_p, strict=True))[ids[row][0]], best[row][0], atol=2e-5)
            assert set(ids[row]) <= set(on)


@pytest.mark.parametrize("int8", [False, True])
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), beam=st.integers(1, 4), data=st.data())
def test_company_and_arrival_change_nothing_within_a_list(
    int8: bool, seed: int, beam: int, data: st.DataObject
) -> None:
    found = backend("deep" if seed % 2 else "gnmt", int8, seed % 3)
    options = DecodeOptions(beam_size=beam, max_length_ratio=1.0, max_length_extra=4, shortlist=True)
    waiting = [Sentence(ids, options) for ids in sources(7, seed)]
    everyone, expected = list(waiting), [beam_search(found, [one.ids], options)[0] for one in waiting]
    batch = RunningBatch(found, beam, 16, listed=True)
    while waiting or batch.sentences:
        if count := data.draw(st.integers(0 if batch.sentences else 1, min(3, len(waiting)))):
            batch.join([waiting.pop(0) for _ in range(count)])
        batch.step()
    for one, candidates in zip(everyone, expected, strict=True):
        assert one.finished == candidates  # to the bit
        on = {*lists(seed % 3).head, *lists(seed % 3).tail(one.ids, 16)}
        assert all(set(candidate.ids) <= on for candidate in candidates)


def test_sentences_with_rules_are_searched_for_among_all_words() -> None:
    found = backend("gnmt", False)
    engine = Engine(found)
    free = DecodeOptions(beam_size=3, max_length_ratio=1.0, max_length_extra=4)
    within = free.model_copy(update={"shortlist": True})
    source = sources(1, 5)[0]
    off = next(word for word in range(EOS + 1, V) if word not in {*lists().head, *lists().tail(source, 16)})
    futures = engine.submit_all(
        [Sentence(source, within, [off]), Sentence(source, within), Sentence(source, free, [off])]
    )
    prefixed, listed, reference = (future.result()[0] for future in futures)
    assert prefixed.ids[0] == off
    assert prefixed == reference
    assert listed == beam_search(found, [source], within)[0][0]


# --- bundles and commands -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shortlist")
    run = tiny.trained(tiny.prepared(folder), folder / "run", "validation.metric=loss", "train.max_steps=6")
    make_bundle(run, folder / "bundle", BundleOptions(weights="fp32"))
    return folder / "bundle"


def test_a_shortlist_is_put_into_a_bundle(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    with pytest.raises(InputError, match="has no shortlist"):
        Translator.load(copy, 1).translate(["the cat."], DecodeOptions(shortlist=True))
    assert main(["shortlist", str(copy), "--corpus", str(bundle.parent / "corpus")]) == 0
    assert "use it with --set shortlist=true" in capsys.readouterr().out
    assert main(["translate", str(copy), "--set", "shortlist=true", "--text", "the cat sees the dog."]) == 0
    assert capsys.readouterr().out.strip()
    other = tiny.prepared(tmp_path / "other", joint=False)
    assert main(["shortlist", str(copy), "--corpus", str(other)]) == 2
    assert "its subwords are not those of" in capsys.readouterr().err
    with (copy / "shortlist.safetensors").open("r+b") as stream:
        stream.truncate(100)
    assert main(["translate", str(copy), "--text", "the cat sees the dog."]) == 2
    assert "shortlist.safetensors: damaged or cut short" in capsys.readouterr().err


def test_a_file_of_another_vocabulary_is_refused(bundle: Path, tmp_path: Path) -> None:
    corpus = PreparedCorpus.open(bundle.parent / "corpus")
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    made, size = add_shortlist(copy, corpus), len(corpus.target_tokenizer)
    path = tmp_path / "list.safetensors"
    made.save(path)
    assert np.array_equal(Shortlist.load(path, size, size).head, made.head)
    with pytest.raises(BundleError, match="not a shortlist of this model's vocabularies"):
        Shortlist.load(path, size, size + 1)
    twice = np.zeros(size, np.uint16)
    save_file({"frequent": twice, "candidates": made.candidates}, path)
    with pytest.raises(BundleError, match="not a shortlist"):
        Shortlist.load(path, size, size)
    save_file({"frequent": twice}, path)
    with pytest.raises(BundleError, match="damaged"):
        Shortlist.load(path, size, size)


def test_the_bundled_model_translates_within_its_shortlist() -> None:
    translator = Translator.load(BUNDLE, threads=1)
    texts = ["Good morning!", "Tom is reading a book.", "I have no time today.", "Where do you live?"]
    within = translator.translate(texts, translator.defaults.model_copy(update={"shortlist": True}))
    assert [result.text for result in within] == [result.text for result in translator.translate(texts)]
    assert all(one.score > other.score for one, other in zip(within, translator.translate(texts), strict=True))
