"""Where translations look: attention of hypotheses, word alignment, coverage, and copies of what has no subwords."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_backends
import tiny
import torch
from conftest import ROOT

from nmt.cli import main
from nmt.evaluation.alignment import best_head, copied_words, evaluate_alignment
from nmt.inference.alignment import Word, aligned, by_words, word_numbers
from nmt.inference.copying import Copy, copies, with_copies
from nmt.inference.ensemble import Ensemble
from nmt.inference.onnx_backend import OnnxBackend
from nmt.inference.onnx_graph import ModelGraphs
from nmt.inference.search import beam_search, uncovered
from nmt.inference.torch_backend import TorchBackend
from nmt.inference.translator import Translator
from nmt.inference.types import AlignmentHead, DecodeOptions
from nmt.inference.weights import Stored
from nmt.model.capture import capture
from nmt.model.seq2seq import Seq2Seq
from nmt.text.tokenizer import EOS, UNK

BUNDLE = ROOT / "data/pretrained/tatoeba-en-de"
SOURCES = test_backends.SOURCES
SEARCH = DecodeOptions(
    beam_size=3, n_best=3, max_length_ratio=1.0, max_length_extra=4, alignment=True, length_penalty=0.6
)
# Ours, not of any corpus. Each number and name stands on both sides.
SENTENCES = [
    "Tom bought 3 tickets to Boston.",
    "Does Mary live in Berlin?",
    "My brother Peter was born in 1984.",
    "We met John and Anna in Paris.",
    "The train leaves at 17:45.",
    "I paid 250 dollars for it.",
    "Maria speaks French with Paul.",
    "There are 12 boys in this room.",
    "Ken wants to see Tokyo.",
    "In 2013 Tom went to Hamburg.",
]


def searcher(model: Seq2Seq, kind: str, head: AlignmentHead | None) -> OnnxBackend | TorchBackend:
    if kind == "torch":
        return TorchBackend(model, [head])
    weights = {name: Stored(value.numpy()) for name, value in model.state_dict().items()}
    return OnnxBackend(ModelGraphs(model.config, weights, head))


# --- what a hypothesis looked at ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["torch", "onnx"])
@pytest.mark.parametrize("name", ["gnmt", "gnmt, additive", "deep", "luong", "bahdanau"])
def test_attention_of_every_hypothesis_is_that_of_saying_it_by_itself(kind: str, name: str) -> None:
    model = test_backends.model_of(name)
    model.output_bias[EOS] += 2.0
    lengths = set()
    for candidates, source in zip(beam_search(searcher(model, kind, None), SOURCES, SEARCH), SOURCES, strict=True):
        for candidate in candidates:
            expected = capture(model, source[:-1], candidate.ids).attention[-1]
            said = len(candidate.ids) + candidate.ended
            assert candidate.attention is not None
            assert candidate.attention.shape == (said, len(source))
            np.testing.assert_allclose(candidate.attention, expected[:said], atol=1e-5)
            lengths.add(said)
    assert len(lengths) > 2


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_one_head_of_one_layer_may_be_shown(kind: str) -> None:
    model = test_backends.model_of("deep")
    one, mean = (
        beam_search(searcher(model, kind, head), SOURCES[:1], SEARCH)[0][0].attention
        for head in (AlignmentHead(layer=0, head=1), AlignmentHead(layer=0))
    )
    other = beam_search(searcher(model, kind, AlignmentHead(layer=0, head=0)), SOURCES[:1], SEARCH)[0][0].attention
    assert one is not None
    assert mean is not None
    assert other is not None
    np.testing.assert_allclose((one + other) / 2, mean, atol=1e-6)
    assert np.abs(one - mean).max() > 1e-3


def test_an_ensemble_shows_the_mean_of_its_members() -> None:
    members = [test_backends.model_of("gnmt", seed) for seed in (0, 1)]
    found = beam_search(TorchBackend(Ensemble(members)), SOURCES[:1], SEARCH)[0][0]
    each = [capture(member, SOURCES[0][:-1], found.ids).attention[-1] for member in members]
    assert found.attention is not None
    np.testing.assert_allclose(found.attention, torch.stack(each).mean(0)[: len(found.attention)], atol=1e-5)


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_who_does_not_ask_gets_no_attention_beside_one_who_does(kind: str) -> None:
    model = test_backends.model_of("gnmt")
    backend = searcher(model, kind, None)
    plain = SEARCH.model_copy(update={"alignment": False})
    assert all(c.attention is None for c in beam_search(backend, SOURCES[:1], plain)[0])
    asked = beam_search(backend, SOURCES[:1], SEARCH)[0]
    assert [c.ids for c in asked] == [c.ids for c in beam_search(backend, SOURCES[:1], plain)[0]]


def test_the_coverage_penalty_is_as_published_and_chooses_among_hypotheses() -> None:
    assert uncovered(np.array([[0.5, 0.0, 0.5], [0.25, 1.0, 0.0]], np.float32)) == pytest.approx(-np.log(0.75))
    model = test_backends.model_of("gnmt")
    model.output_bias[EOS] += 2.0
    without, firsts = SEARCH.model_copy(update={"coverage_penalty": 0.0}), 0
    for source in SOURCES:
        options = SEARCH.model_copy(update={"coverage_penalty": 0.7})
        found = beam_search(searcher(model, "onnx", None), [source], options)[0]
        for candidate in found:
            assert candidate.attention is not None
            length = len(candidate.ids) + candidate.ended
            expected = candidate.log_probability / length**0.6 - 0.7 * uncovered(candidate.attention)
            assert candidate.score == pytest.approx(expected, abs=1e-6)
        assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
        firsts += found[0].ids != beam_search(searcher(model, "onnx", None), [source], without)[0][0].ids
    assert firsts  # of some sentence another translation is the best


# --- words ----------------------------------------------------------------------------------------------------------


def test_subwords_belong_to_words() -> None:
    assert word_numbers(["▁The", "▁", "x", "y", "▁cat", "s", "."]) == [0, 1, 1, 1, 2, 2, 2]
    assert word_numbers(["a", "▁", "▁b", "▁"]) == [0, 1, 1, 2]
    assert word_numbers([]) == []


def test_words_look_where_their_subwords_look_together() -> None:
    attention = np.array([[0.4, 0.3, 0.3, 0.0], [0.1, 0.2, 0.7, 0.0], [0.0, 0.0, 0.1, 0.9]], np.float32)
    looks = by_words(attention, [0, 1, 1], ["▁ein", "▁Haus", "."])
    np.testing.assert_allclose(looks, [[0.4, 0.6, 0.0], [0.1, 0.9, 0.0]], atol=1e-6)  # the full stop does not count
    ein, haus = aligned(attention, [0, 1, 1], ["▁ein", "▁Haus", "."])[0]
    assert (ein.text, ein.source, haus.text, haus.source) == ("ein", 1, "Haus.", 1)
    assert (ein.share, haus.share) == pytest.approx((0.6, 0.9))
    dot = aligned(attention, [0, 1, 1], ["▁ein", "▁Haus", "▁."])[0][2]
    assert (dot.text, dot.source) == (".", None)  # which looks at the end mark
    assert aligned(np.zeros((0, 1), np.float32), [], [])[0] == []


@pytest.mark.parametrize(
    ("subwords", "kept", "copied"),
    [
        (["▁I", "▁", "*😀", "."], [0, 3], {1: Copy("😀", False)}),
        (["▁", "*Ł", "u", "▁is"], [0, 1, 2, 3], {0: Copy("Łu", True)}),
        (["▁a", "▁", "*你好", "▁b", "*😀"], [0, 3, 4], {1: Copy("你好", False), 2: Copy("b😀", True)}),
        (["▁", "*😀"], [], {0: Copy("😀", False)}),
    ],
)
def test_what_is_copied_and_what_the_model_sees(subwords: list[str], kept: list[int], copied: dict[int, Copy]) -> None:
    ids = [UNK if one.startswith("*") else 9 for one in subwords]
    found, what = copies(ids, [one.removeprefix("*") for one in subwords])
    assert what == copied
    assert found == kept


@pytest.mark.parametrize(
    ("words", "copied", "last", "expected"),
    [
        ([("Er", 0), ("kommt.", 1)], {2: Copy("😀", False)}, 1, "Er kommt. 😀"),
        ([("Er", 0), ("kommt.", 2)], {1: Copy("😀", False)}, 2, "Er 😀 kommt."),
        ([("Er", 1), ("kommt.", 2)], {0: Copy("😀", False)}, 2, "😀 Er kommt."),
        ([("ukasz", 0), ("as", 0), ("kommt.", 1)], {0: Copy("Łukasz", True)}, 1, "Łukasz kommt."),
        ([("Da", 0), ("ukas.", 1)], {1: Copy("Łukasz", True)}, 1, "Da Łukasz."),
        ([("Da", 0), ("ukas.", 1)], {1: Copy("Łukasz!", True)}, 1, "Da Łukasz!"),
        ([("Kennst", 0), ("du", 1, 0.5), ("ukas?", 1, 0.9)], {1: Copy("Łukasz?", True)}, 1, "Kennst du Łukasz?"),
        (
            [("Ich", 0), ("gab", 1, 0.95), ("es", 2), ("ukas.", 1, 0.97)],
            {1: Copy("Łukasz", True)},
            2,
            "Ich gab es Łukasz.",
        ),
        ([("Da", None)], {0: Copy("Łukasz", True)}, 0, "Da Łukasz"),
        ([], {0: Copy("😀", False), 1: Copy("你好", False)}, -1, "😀 你好"),
    ],
)
def test_copies_come_where_they_belong(
    words: list[tuple[Any, ...]], copied: dict[int, Copy], last: int, expected: str
) -> None:
    found = with_copies([Word(*word) for word in words], copied, last)
    assert " ".join(word.text for word in found) == expected
    assert {word.source for word in found} >= set(copied)


# --- with the bundled model -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def translator() -> Translator:
    return Translator.load(BUNDLE, threads=1)


def test_numbers_and_names_are_linked_to_what_they_are_copied_from(translator: Translator) -> None:
    options = translator.defaults.model_copy(update={"alignment": True})
    right = words = 0
    for result in translator.translate(SENTENCES, options):
        copied = copied_words(result.source, result.text)
        right += sum((source, target) in result.hypotheses[0].alignment for target, source in copied.items())
        words += len(copied)
    assert words >= 12
    assert right / words >= 0.95


def test_a_head_is_chosen_by_copied_words(translator: Translator) -> None:
    from nmt.inference.bundle import Bundle
    from nmt.inference.torch_backend import load_model

    pairs = [(result.source, result.text) for result in translator.translate(SENTENCES * 6)]
    bundle = Bundle.open(BUNDLE)
    head, copied = best_head(load_model(bundle, 1), (bundle.source_tokenizer, bundle.target_tokenizer), pairs)
    assert head is not None
    assert copied.share >= 0.95
    assert evaluate_alignment(translator, pairs).share >= 0.95
    few = best_head(load_model(bundle, 1), (bundle.source_tokenizer, bundle.target_tokenizer), pairs[:3])
    assert few[0] is None


def test_copied_words() -> None:
    assert copied_words("Tom has 42 cats.", "„Tom“ hat 42 Katzen.") == {0: 0, 2: 2}
    assert copied_words("Tom saw Tom in Rome.", "Tom sah Tom in Rome!") == {4: 4}  # which Tom is which can't be told


def test_links_go_on_through_the_parts_of_a_divided_text(translator: Translator) -> None:
    text = " ".join(f"Tom gave {number} books to Mary." for number in range(21, 33))
    options = translator.defaults.model_copy(update={"alignment": True})
    result = translator.translate([text], options)[0]
    assert result.segments > 1
    best, source, target = result.hypotheses[0], text.split(), result.text.split()
    assert len(best.attention) == result.segments
    assert result.source_subwords.count("</s>") == result.segments
    assert sum(part.shape[1] for part in best.attention) == len(result.source_subwords)
    assert sum(part.shape[0] for part in best.attention) == len(best.tokens)
    numbers = [(source[i], target[j]) for i, j in best.alignment if source[i].isdigit() and target[j].isdigit()]
    assert len(numbers) >= 10
    assert all(one == other for one, other in numbers)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Good morning! 😀", "Guten Morgen! 😀"),
        ("😀", "😀"),
        ("🎉 你好", "🎉 你好"),
        ("Do you know Łukasz, my friend?", "Kennst du Łukasz, mein Freund?"),
    ],
)
def test_characters_without_a_subword_are_copied(translator: Translator, text: str, expected: str) -> None:
    result = translator.translate([text])[0]
    assert result.text == expected
    assert result.hypotheses[0].alignment == ()  # nobody asked
    beside = translator.translate(["How are you?", text, "I am here."])
    assert beside[1] == result
    for index in (0, 2):
        assert beside[index] == translator.translate([beside[index].source])[0]


def test_links_count_the_words_of_the_whole_text(translator: Translator) -> None:
    text = "1. Tom sleeps.\n2. I know Mary. Tom sleeps."
    (result,) = translator.translate([text], translator.defaults.model_copy(update={"alignment": True}))
    source, target = text.split(), result.text.split()
    assert result.text.split("\n")[0] == "1. Tom schläft."
    linked = [(source[one], target[other]) for one, other in result.hypotheses[0].alignment]
    assert [pair for pair in linked if pair[0] in ("Tom", "Mary.")] == [
        ("Tom", "Tom"),
        ("Mary.", "Maria."),
        ("Tom", "Tom"),
    ]


# --- commands -------------------------------------------------------------------------------------------------------


def test_alignment_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", str(BUNDLE), "--alignment", "--text", "Tom sleeps."]) == 0
    text, links = capsys.readouterr().out.rstrip("\n").split(" ||| ")
    assert text == "Tom schläft."
    assert links == "0-0 1-1"
    assert main(["translate", str(BUNDLE), "--alignment", "--json", "--text", "Tom sleeps."]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["alignment"] == [[0, 0], [1, 1]]
    assert np.shape(answer["attention"]) == (1, len(answer["tokens"]), len(answer["source_subwords"]))
    for name, line in (("source", "Tom sleeps.\nI know Mary.\n"), ("target", "Tom schläft.\nIch kenne Mary.\n")):
        (tmp_path / name).write_text(line, encoding="utf-8")
    files = ["--source", str(tmp_path / "source"), "--target", str(tmp_path / "target")]
    assert main(["align", str(BUNDLE), *files]) == 0
    assert capsys.readouterr().out == "0-0 1-1\n1-1 2-2\n"
    assert main(["align", str(BUNDLE), *files, "--choose"]) == 2
    assert "--choose needs a prepared corpus" in capsys.readouterr().err
    assert main(["align", str(BUNDLE), *files[:2]]) == 2
    assert "give --corpus NAME, or --source FILE with --target FILE" in capsys.readouterr().err


def test_too_few_copied_words_leave_a_bundle_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from nmt.training.bundling import BundleOptions, make_bundle

    corpus = tiny.prepared(tmp_path)
    run = tiny.trained(corpus, tmp_path / "run", "validation.metric=loss", "train.max_steps=6")
    make_bundle(run, tmp_path / "bundle", BundleOptions(weights="fp32"))
    before = (tmp_path / "bundle/config.yaml").read_bytes()
    assert main(["align", str(tmp_path / "bundle"), "--corpus", str(corpus), "--choose"]) == 2
    assert "0 copied words, too few to choose by" in capsys.readouterr().err
    assert (tmp_path / "bundle/config.yaml").read_bytes() == before
