"""`nmt report FILE`: what is read from an evaluation is right, and the page shows it, stands alone, and stays small."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from test_run_report import HOSTILE, Reader, report

from nmt.cli import main
from nmt.evaluation.calibration import calibrate, rank_correlation, units_of
from nmt.evaluation.faults import Fault, coverage, find_faults, repeats
from nmt.evaluation.lengths import scores_by_length
from nmt.evaluation.results import EvaluationFile, Measured, Segment, Shown, System, write_results
from nmt.evaluation.results import TestData as Data  # pytest takes Test... for tests
from nmt.evaluation.words import best_kept, kept
from nmt.study import heat_map
from nmt.study.evaluation_report import page

BLEU_SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"


def said(hypothesis: str, reference: str = "", source: str = "a source", **more: Any) -> Segment:
    return Segment(**({"source": source, "references": (reference,), "hypothesis": hypothesis, "chrf": 50.0} | more))


def evaluation(
    segments: Sequence[Segment], shown: Sequence[Shown] = (), languages: str = "en-de", **more: Any
) -> EvaluationFile:
    source, _, target = languages.partition("-")
    fields: dict[str, Any] = {
        "date": "2026-01-02T03:04:05Z",
        "command": ("nmt", "evaluate", "a bundle", "--results", "x.json"),
        "versions": {"sacrebleu": "2.6.0"},
        "machine": {"cores": 2},
        "system": System(
            name="my model", kind="bundle", where="models/my", source_language=source, target_language=target
        ),
        "data": Data(
            name="my test", sentences=len(segments), references=1, source_sha256="ab", reference_sha256=("cd",)
        ),
        "search": "beam 5",
        "options": {"beam_size": 5, "length_penalty": 0.75},
        "scores": (
            Measured(name="BLEU", score=41.234, signature=BLEU_SIGNATURE, low=39.5, high=43.125),
            Measured(name="TER", score=44.0, signature="case:lc|tok:tercom"),
        ),
        "exact_match": 0.125,
        "length_ratio": 0.98,
        "seconds": 20.0,
        "sentences_per_second": 12.5,
        "segments": tuple(segments),
        "shown": tuple(shown),
    }
    return EvaluationFile(**(fields | more))


def shown(tmp_path: Path, results: EvaluationFile) -> tuple[str, Reader]:
    """The page of the command, checked to be well-formed and to stand alone."""
    write_results(tmp_path / "results.json.gz", results)
    return report(tmp_path / "results.json.gz", tmp_path / "page.html")


# --- which words are right ----------------------------------------------------------------------------------------------


@given(st.text("abc", max_size=9), st.text("abc", max_size=9))
def test_the_most_words_are_kept_that_can_be(first: str, second: str) -> None:
    found = kept(first, second)
    left = "".join(itertools.compress(first, found))
    rest = iter(second)
    assert all(letter in rest for letter in left)  # a subsequence of both
    longest = max(
        len(some)
        for size in range(len(first) + 1)
        for some in itertools.combinations(first, size)
        if all(letter in other for other in [iter(second)] for letter in some)
    )
    assert len(left) == longest


def test_the_closest_reference_judges() -> None:
    one, other = ["es", "regnet", "heute", "sehr"], ["heute", "regnet", "es"]
    assert best_kept(["heute", "regnet", "es", "sehr"], [one, other]) == [True, True, True, False]
    assert best_kept(["a", "b"], [["x"], ["a", "b", "c"]]) == [
        True,
        True,
    ]  # one edit to the longer one, three to the other
    assert best_kept(["a"], []) == [False]


# --- calibration --------------------------------------------------------------------------------------------------------

HALF, QUARTER = -0.6931471805599453, -1.3862943611198906  # log 1/2, log 1/4


def test_words_of_a_known_probability_come_to_a_known_error() -> None:
    tokens = (("▁gut", HALF), ("en", HALF), ("▁", 0.0), ("Tag", QUARTER * 0.0), (".", 0.0), ("</s>", -9.0))
    right, wrong = said("guten Tag.", "guten Tag.", tokens=tokens), said("guten Tag.", "gute Tag.", tokens=tokens)
    found = calibrate(evaluation([right, wrong, wrong, wrong]))
    assert found is not None
    assert [(one.low, one.words, one.right) for one in found.bins] == [(0.2, 4, 1), (0.9, 4, 4)]
    assert found.bins[0].confidence == pytest.approx(0.25)
    assert found.error == pytest.approx(0)  # a quarter of those of a quarter, all of those that are sure
    found = calibrate(evaluation([wrong, wrong]))
    assert found is not None
    assert (found.words, found.accuracy, found.confidence) == (4, 0.5, pytest.approx(0.625))
    assert found.error == pytest.approx(0.125)  # (|0 - 0.25| + |1 - 1|) / 2


def test_subwords_make_words_and_ends_part_them() -> None:
    tokens = [("▁Es", -1.0), ("▁", -0.5), ("ge", -0.25), ("ht", -0.25), ("</s>", -7.0), ("ja", -2.0), ("</s>", -7.0)]
    assert list(units_of(tokens, spaced=True)) == [(["Es"], -1.0), (["geht"], -1.0), (["ja"], -2.0)]
    assert list(units_of([("▁我们", -1.0), ("走", -2.0)], spaced=False)) == [(["我", "们"], -1.0), (["走"], -2.0)]


def test_what_was_put_in_after_the_search_has_no_probability() -> None:
    tokens = (("▁Hallo", HALF), ("▁Tom", HALF), ("</s>", 0.0))
    found = calibrate(evaluation([said("Hallo %1$s", "Hallo %1$s", tokens=tokens)]))
    assert found is not None
    assert (found.words, found.left_out, found.bins[0].right) == (1, 1, 1)


def test_without_spaces_a_subword_stands_for_a_word() -> None:
    tokens = (("▁我们", HALF), ("走了", HALF), ("</s>", 0.0))
    found = calibrate(evaluation([said("我们走了", "我们走吧", tokens=tokens)], languages="en-zh-Hans"))
    assert found is not None
    assert [(one.words, one.right) for one in found.bins] == [(2, 1)]


def test_ranks_correlate() -> None:
    assert rank_correlation([(1.0, 10.0), (2.0, 11.0), (3.0, 99.0)]) == pytest.approx(1)
    assert rank_correlation([(1.0, 3.0), (2.0, 2.0), (3.0, -9.0)]) == pytest.approx(-1)
    tied = [(1.0, 1.0), (2.0, 2.0), (2.0, 3.0), (3.0, 4.0)]
    assert rank_correlation(tied) == pytest.approx(0.9486833)  # by scipy.stats.spearmanr
    assert rank_correlation([(1.0, 1.0), (2.0, 1.0)]) is None
    assert rank_correlation([]) is None


# --- lengths ------------------------------------------------------------------------------------------------------------


def test_a_bucket_has_the_corpus_score_of_its_sentences() -> None:
    short = [said("das ist ein sehr gutes Haus", "das ist ein gutes Haus", "a b c d e", chrf=70.0)] * 12
    long = [
        said("Heute ist es sehr kalt hier", "heute ist es kalt hier", " ".join("abcdef"), chrf=c) for c in (40.0, 60.0)
    ]
    first, second = scores_by_length(evaluation([*long, *short, said("", "x", "")]))
    assert [(one.label, one.sentences) for one in (first, second)] == [("1-5", 12), ("6-10", 2)]
    texts, references = [one.hypothesis for one in long], [one.references[0] for one in long]
    assert second.bleu is not None
    assert second.bleu.value == pytest.approx(BLEU().corpus_score(texts, [references]).score)
    assert (second.chrf.value, second.chrf.low, second.bleu.low) == (
        50.0,
        None,
        None,
    )  # two sentences are too few for an interval
    assert first.bleu is not None
    assert first.bleu.low is not None
    assert first.bleu.high is not None
    assert first.bleu.low <= first.bleu.value <= first.bleu.high
    lower = BLEU_SIGNATURE.replace("case:mixed", "case:lc")
    scores = (Measured(name="BLEU", score=1.0, signature=lower),)
    (only,) = scores_by_length(evaluation(long, scores=scores))
    assert only.bleu is not None
    assert only.bleu.value == pytest.approx(BLEU(lowercase=True).corpus_score(texts, [references]).score)
    unknown = (Measured(name="BLEU", score=1.0, signature=BLEU_SIGNATURE.replace("13a", "flores200")),)
    assert scores_by_length(evaluation(long, scores=unknown))[0].bleu is None


def test_lengths_of_unspaced_sources_are_in_characters() -> None:
    assert [
        one.label for one in scores_by_length(evaluation([said("x", "y", "我们走 了吧吗")], languages="zh-en"))
    ] == ["6-10"]


# --- faults -------------------------------------------------------------------------------------------------------------


def faults(*segments: Segment, languages: str = "en-de") -> dict[str, Fault]:
    return {fault.name: fault for fault in find_faults(evaluation(segments, languages=languages))}


def test_much_shorter_and_much_longer_is_counted() -> None:
    ten = "a b c d e f g h i j"
    found = faults(
        said("a b c d e", ten),
        said("a b c d e f", ten),  # 0.6 times is not yet a fault
        said("a", "a b c"),  # two words fewer are not yet one
        said("", "a b c"),
        said("a b c d e f g h i", "a b c d e"),
        said("a b c d e f g h", "a b c d e"),
        said("a b c d", ten, references=(ten, "a b c d")),  # the closest reference counts
        said("a", "", references=()),
    )
    assert [(case.index, case.remark) for case in found["under-translation"].cases] == [
        (0, "5 instead of 10"),
        (3, "0 instead of 3"),
    ]
    assert [case.index for case in found["over-translation"].cases] == [4]
    assert found["under-translation"].judged == 7


def test_what_is_said_again_is_counted_where_it_is_not_wanted() -> None:
    found = faults(
        said("Er geht, er geht, er geht nach Hause.", "Er geht nach Hause."),
        said("Nein, nein!", "Nein, nein!"),
        said("sehr sehr gut", "echt gut", "very very good"),
        said("sehr sehr sehr gut", "echt gut", "very very good"),
        said("der die der", "der die"),
        said("Das das ist", "Das ist"),
    )
    assert [(case.index, case.remark) for case in found["repetition"].cases] == [
        (0, "“er geht”: said again 2 times"),
        (3, "“sehr”: said again 2 times"),
        (5, "“das”: said again once"),
    ]
    assert repeats("abcabcabc", 3) == [0, 3]
    assert not faults(said("谢谢谢谢", "谢", "thanks"), languages="en-zh")["repetition"].cases
    assert faults(said("你好吗你好吗", "你好吗", "hi"), languages="en-zh")["repetition"].cases


def test_what_nothing_is_linked_to_is_counted() -> None:
    source = "The committee of 12 has postponed the important meeting."
    held = said("Sitzung", "Die Sitzung", source, links=((1, 0), (3, 0)))
    lost = said("Sitzung", "Die Sitzung", source, links=((8, 0), (0, 0)))
    found = faults(held, lost, said("x", "y", source))["words without a link"]
    assert [(case.index, case.remark) for case in found.cases] == [
        (1, "4 of 5: committee, 12, postponed, important"),
        (0, "3 of 5: postponed, important, meeting"),
    ]
    assert found.judged == 2
    covered = coverage(evaluation([held, lost]))
    assert covered is not None
    assert (covered.words, covered.unlinked) == (10, 7)
    assert "words without a link" not in faults(said("x", "y"))
    assert coverage(evaluation([said("x", "y")])) is None


def test_what_is_cut_off_is_counted() -> None:
    assert [case.index for case in faults(said("a"), said("b", truncated=True))["cut off"].cases] == [1]


# --- the page -----------------------------------------------------------------------------------------------------------


def full(hostile: str = "") -> EvaluationFile:
    """An evaluation with all there can be."""
    tokens = (("▁gut", HALF), ("en", HALF), ("▁Tag", 0.0), ("</s>", -0.1))
    segments = [
        said(
            f"guten Tag{hostile}",
            f"guter Tag{hostile}",
            f"good day{hostile}",
            tokens=tokens,
            score=-n / 10,
            links=((0, 0),),
            chrf=n,
        )
        for n in range(60)
    ]
    example = Shown(
        index=7,
        n_best=((f"guten Tag{hostile}", -0.25), ("guten Abend", -0.75)),
        source_subwords=(f"▁good{hostile}", "</s>", "</s>", "▁day", "</s>"),
        target_subwords=("▁guten", "</s>", f"▁Tag{hostile}", "</s>"),
        attention=(((0.75, 0.25), (0.015, 0.985)), (), ((0.5, 0.5), (0.25, 0.75))),
    )
    return evaluation(segments, [example])


def test_the_page_shows_what_the_file_holds(tmp_path: Path) -> None:
    text, read = shown(tmp_path, full())
    for words in (
        "Evaluation on my test : beam 5 2026-01-02T03:04:05Z",
        f"BLEU 41.23 95 %: 39.50 to 43.12; {BLEU_SIGNATURE}",
        "TER 44.00 case:lc|tok:tercom",
        "length ratio 0.980",
        "exact match 12.5%",
        "sentences a second 12.5",
        "Expected calibration error 0.125 over 120 words",
        "Spearman's rank correlation -1.00 over 60 sentences.",
        "sentence 8 good day reference guter Tag",
        "2 -0.750 -0.500 guten Abend",
        "The 50 sentences of lowest chrF2++.",
        "nmt evaluate 'a bundle' --results x.json",
        "beam_size 5 length_penalty 0.75",
        "Of all 60 content words of the sources 0 (0.0%) have no link.",
    ):
        assert words in read.text
    assert read.count("figure") == 4  # scores, lengths, calibration, sentences
    assert re.findall(r"<title>([^<]*)</title></rect>", text[text.index("Attention and") :]) == [
        "▁guten ← ▁good: 0.75",
        "▁guten ← &lt;/s&gt;: 0.25",
        "&lt;/s&gt; ← &lt;/s&gt;: 0.98",  # 0.015 is too little to be drawn
        "▁Tag ← ▁day: 0.50",
        "▁Tag ← &lt;/s&gt;: 0.50",
        "&lt;/s&gt; ← ▁day: 0.25",
        "&lt;/s&gt; ← &lt;/s&gt;: 0.75",
    ]


def test_the_worst_come_first_and_their_differences_are_marked(tmp_path: Path) -> None:
    segments = [said(f"der Hund {n}", f"der rote Hund {n}x", chrf=float((7 * n) % 80)) for n in range(80)]
    text, _ = shown(tmp_path, evaluation(segments))
    worst = text[text.index("<h2>The worst") :]
    found = [float(score) for score in re.findall(r"chrF2\+\+ ([\d.]+)<", worst)]
    assert found == sorted(one.chrf for one in segments)[:50]
    assert '<bdi dir="auto">der Hund <mark>0</mark></bdi>' in worst


def test_what_is_missing_is_left_out_with_a_word(tmp_path: Path) -> None:
    system = System(name="lines.txt", kind="file", where="lines.txt")
    _, read = shown(tmp_path, evaluation([said("a", "b")], system=system, seconds=0.0, sentences_per_second=0.0))
    for words in (
        "No calibration: the file holds no probabilities",
        "No confidence in sentences: the file holds no scores",
        "The file holds no sentences with attention",
        "No counts of words without a link",
    ):
        assert words in read.text
    assert "sentences a second" not in read.text
    assert read.count("figure") == 2
    _, read = shown(tmp_path, evaluation([], scores=()))
    assert "There are no sentences." in read.text


def test_text_is_text_whatever_it_holds(tmp_path: Path) -> None:
    results = full(HOSTILE)
    results = results.model_copy(update={"search": HOSTILE, "command": (HOSTILE,), "options": {HOSTILE: [HOSTILE]}})
    results = results.model_copy(
        update={"system": results.system.model_copy(update={"name": HOSTILE, "architecture": HOSTILE})}
    )
    scores = (Measured(name=HOSTILE, score=1.0, signature=HOSTILE, low=0.5, high=1.5),)
    _, read = shown(tmp_path, results.model_copy(update={"scores": scores}))
    assert "img" not in {name for name, _ in read.elements}
    assert f"good day{HOSTILE}" in read.words


ODD = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    ["", " ", "\x00\x0b\x1f\x7f\x85\ufffe", "שלום עולם", "‮abc", "👩‍👩‍👧 e\u0301", "▁", "\n\n", "x" * 3000, "a " * 1000]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.tuples(ODD, ODD, ODD), min_size=1, max_size=4),
    figures=st.tuples(st.floats(0, 100), st.floats(-1e9, 5), st.floats(-1e9, 1)),
    languages=st.sampled_from(["en-de", "zh-ja", "-"]),
)
def test_odd_texts_have_a_page(
    tmp_path: Path, texts: list[tuple[str, str, str]], figures: tuple[float, float, float], languages: str
) -> None:
    chrf, score, log_p = figures
    segments = [
        said(a, b, c, chrf=chrf, score=score, tokens=((a[:9], log_p), ("▁" + b, log_p)), links=((0, 0), (99, 3)))
        for a, b, c in texts
    ]
    a, b, c = texts[0]
    matrix = ((0.5, 0.5), (1.0, 0.0))
    odd = Shown(
        index=0,
        n_best=((a, score), (b, log_p)),
        source_subwords=(c,),
        target_subwords=(a, b, c),
        attention=(matrix, matrix),
    )
    shown(tmp_path, evaluation(segments, [odd, odd.model_copy(update={"index": 99})], languages))


def test_the_page_stays_small(tmp_path: Path) -> None:
    """Ten thousand sentences, and thirty of 200 x 200 subwords with their attention everywhere."""
    tokens = tuple((f"▁w{n}", -0.1 * n) for n in range(12))
    text = " ".join(f"w{n}" for n in range(12))
    segments = [
        said(text, text.replace(f"w{n % 12}", "x"), chrf=n / 100, score=-n / 1e4, tokens=tokens) for n in range(10_000)
    ]
    names = tuple(f"▁s{n}" for n in range(200))
    even = (tuple([0.03] * 200),) * 200
    examples = [
        Shown(index=n, n_best=((text * 300, -1.0),), source_subwords=names, target_subwords=names, attention=(even,))
        for n in range(30)
    ]
    written, read = shown(tmp_path, evaluation(segments, examples))
    assert len(written) < 6e6
    assert "The first 120 subwords of each side, of 200 and 200." in read.text
    assert "The attention is left out to keep the page small." in read.text
    assert "characters more" in read.text


def test_parts_have_their_own_subwords() -> None:
    found = heat_map.parts(full().shown[0])
    assert [(down, across) for _, down, across in found] == [
        (["▁guten", "</s>"], ["▁good", "</s>"]),
        (["▁Tag", "</s>"], ["▁day", "</s>"]),
    ]


# --- the command --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "expected"), [("a.b.json.gz", "a.b.html"), ("a.json", "a.html"), ("a", "a.html")])
def test_the_page_lies_beside_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, expected: str
) -> None:
    write_results(tmp_path / name, full())
    assert main(["report", str(tmp_path / name)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "my model on my test: BLEU 41.23, TER 44.00",
        f"page: {tmp_path / expected}",
    ]
    assert (tmp_path / expected).read_text(encoding="utf-8") == page(full())


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def mistake(*arguments: object) -> str:
        assert main(["report", *map(str, arguments)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    (tmp_path / "other.json").write_text('{"format": "another"}')
    assert "other.json: not an evaluation file (`nmt evaluate ... --results FILE` writes one)" in mistake(
        tmp_path / "other.json"
    )
    assert f"{tmp_path / 'none'}: no such folder or file: give" in mistake(tmp_path / "none")
    assert "holds no config.yaml, so it is no training run" in mistake(tmp_path)
    write_results(tmp_path / "results.json", full())
    assert main(["report", str(tmp_path / "results.json")]) == 0
    capsys.readouterr()
    before = (tmp_path / "results.html").read_bytes()
    with tiny.full_disk(1000):
        assert "results.html: the page could not be written" in mistake(tmp_path / "results.json")
    assert (tmp_path / "results.html").read_bytes() == before
