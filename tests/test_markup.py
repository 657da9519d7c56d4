"""HTML: tags stay, text goes, whatever is broken; and where inline elements come to stand."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.documents.inline import Element, Passage
from nmt.documents.markup import Html, Xml, plain, tokens
from nmt.inference.translator import Translator
from nmt.inference.types import Hypothesis, Translation

TAGS = [
    *(
        "<b>",
        "</b>",
        "<i class='x y'>",
        "</i>",
        "<a href=\"?a=1&amp;b='>'\">",
        "</a>",
        "<p>",
        "</p>",
        "<div/>",
        "<br>",
        "<BR />",
    ),
    *(
        "<img src=a.png>",
        "<!-- a <b> c -->",
        "<!doctype html>",
        "<?php x ?>",
        "<code>",
        "</code>",
        "<span translate=no>",
        "</span>",
    ),
    *(
        "<script>",
        "</script>",
        "<style>",
        "</STYLE >",
        "<textarea>",
        "</textarea>",
        "<td title=it's>",
        "<",
        "</",
        "<!",
        "< b",
        "&amp;",
        "&lt;",
    ),
]
WORDS = ["one", "two three", "Vier!", " ", "\n  ", ",", "&nbsp;", "ü", "x1"]


def same(text: str) -> Hypothesis:
    """A translation that is its source."""
    return Hypothesis(text, 0.0, alignment=tuple((place, place) for place in range(len(text.split()))))


def unchanged(page: str) -> str:
    html = Html(page)
    return html.write([same(text) for text in html.texts])


@settings(max_examples=400)
@given(st.lists(st.one_of(st.sampled_from(TAGS), st.sampled_from(WORDS)), max_size=25))
def test_every_tag_stays_and_every_word(parts: list[str]) -> None:
    page = "".join(parts)
    written = unchanged(page)
    cut = [page[token.start : token.end] for token in tokens(page)]
    assert "".join(cut) == page
    assert sorted(_marks(written)) == sorted(_marks(page))
    assert _words(written) == _words(page)


@settings(max_examples=200)
@given(st.lists(st.sampled_from(TAGS), max_size=25))
def test_a_page_without_words_comes_back_to_the_byte(parts: list[str]) -> None:
    page = "\n".join(parts)
    if not Html(page).texts:
        assert unchanged(page) == page


@pytest.mark.parametrize(
    "page",
    [
        "<p>One <b>two</b> three.</p>\n\n<ul>\n  <li>Four <i><b>five</b> six</i>!</li>\n</ul>",
        "Use <code>ls -l</code> or <kbd>Q</kbd>, (<var>x</var>) now",
        "<div translate=no>No <b>way</b></div> Yes <span class='a notranslate'>no</span> yes",
        "<script>if (a < b) c('<p>no</p>')</script>Yes<style>p > b {}</style>",
        "One<br/>two<hr>three",
        "A <b>b <i>c</b> d</i> e",
        "<b>One<p>two</b> three</p>",
        "x &lt; y &amp; 3 &gt; 2",
        "an <img src='a b'> image <!-- here --> yes",
        "<title>One</title><textarea>not <b>this</textarea>",
        "one <b>",
        "<p><b>one </b></p>",
        "one <b> two</b>",
        "one\n  <b></b>",
        "</b> one",
        "one </p",
    ],
)
def test_a_page_whose_translation_is_itself_comes_back(page: str) -> None:
    assert unchanged(page) == page


@pytest.mark.parametrize(
    ("page", "texts"),
    [
        ("<p>One <b>two</b>\n   three.</p><p>Four", ["One two three.", "Four"]),
        ("a &amp; b&nbsp;c &#x41;", ["a & b\xa0c A"]),
        ("Use <code>ls</code>.", ["Use {{x0}}."]),
        ("Use <code>{{x}}</code>.", ["Use {{x10}}."]),
        ("<code>ls</code> <b>!</b>", []),
        ("<code>ls is not closed", ["ls is not closed"]),
        ("<p translate='no'>a</p><p translate='yes'>b</p>", ["b"]),
        ("<pre>code</pre>text", ["text"]),
        ("<a title='>'>x</a>", ["x"]),
        ("1 <2 and <b x='", ["1 <2 and"]),
    ],
)
def test_what_of_a_page_is_text(page: str, texts: list[str]) -> None:
    assert Html(page).texts == texts


@pytest.mark.parametrize(
    ("page", "xml", "texts"),
    [
        ("<doc><t>One <x>two</x>.</t><t>Three</t></doc>", Xml(), ["One two.", "Three"]),
        ("Press <x>Go</x><y/> now", Xml(), ["Press Go now"]),
        ("<a><b>One</b><b>two</b></a>", Xml(), ["One", "two"]),
        ("<a><b>One</b> <b>two</b></a>", Xml(outline=False), ["One two"]),
        ("<a><b>One</b> <b>two</b></a>", Xml(inline=frozenset(["b"])), ["One two"]),
        ("One <b>two</b> three", Xml(split=frozenset(["b"])), ["One", "two", "three"]),
        ("One <k>two</k> three", Xml(kept=frozenset(["k"])), ["One {{x0}} three"]),
        ("<p>One <img>two</img></p>", Xml(), ["One two"]),
        ("One <b>two", Xml(), ["One two"]),
    ],
)
def test_what_of_xml_is_text(page: str, xml: Xml, texts: list[str]) -> None:
    html = Html(page, xml)
    assert html.texts == texts
    assert html.write([same(text) for text in html.texts]) == page


def test_what_a_reader_sees() -> None:
    assert plain("<p>One&nbsp;<b>two</b></p><script>three</script>").split() == ["One", "two"]


# --- places ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "said", "links", "found"),
    [
        ("I <b>saw</b> him.", "Ich habe ihn gesehen.", "0-0 1-1 1-3 2-2", "Ich <b>habe</b> ihn gesehen."),
        ("<b>the red</b> house", "la maison rouge", "0-0 1-2 2-1", "<b>la</b> maison rouge"),
        ("the <b>red</b> house", "la maison rouge", "0-0 1-2 2-1", "la maison <b>rouge</b>"),
        (
            "the <i>very <b>red</b></i> house",
            "la maison très rouge",
            "0-0 1-2 2-3 3-1",
            "la maison <i>très <b>rouge</b></i>",
        ),
        ("<b>one</b> <i>two</i>", "zwei eins", "0-1 1-0", "<i>zwei</i> <b>eins</b>"),
        ("Go (<b>now</b>)!", "Geh (jetzt)!", "0-0 1-1", "Geh (<b>jetzt</b>)!"),
        ("<b>Go!</b> Now.", "Geh! Jetzt.", "0-0 1-1", "<b>Geh!</b> Jetzt."),
        ("a <b>b</b> c", "x y", "0-0 2-1", "x <b></b>y"),  # nothing comes from it
        ("a <img> b", "b a", "0-1 1-0", "b a<img> "),
        ("<b>all of it</b>", "alles davon hier", "", "<b>alles davon hier</b>"),  # without links
        ("a <b>b</b>", "x < y", "0-0 1-2", "x &lt; <b>y</b>"),
        ("<b>so</b><code>x</code> y", "so{{x0}} y", "0-0 1-1", "<b>so<code>x</code></b> y"),
        ("<b>so</b> <code>x</code>", "{{x0}} also", "0-1 1-0", "<code>x</code> <b>also</b>"),
        ("so <code>x</code>", "also", "0-0", "also <code>x</code>"),  # never lost
        ("un<b>real</b>", "unwirklich", "0-0", "<b>unwirklich</b>"),
    ],
)
def test_an_element_goes_where_its_words_have_gone(page: str, said: str, links: str, found: str) -> None:
    pairs = tuple((int(a), int(b)) for a, b in (link.split("-") for link in links.split()))
    assert Html(page).write([Hypothesis(said, 0.0, alignment=pairs)]) == found


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12),
    st.lists(st.sampled_from(["<b>", "</b>", "<i>", "</i>", "<img>", " w", " x."]), min_size=3, max_size=14),
    st.integers(0, 6),
)
def test_whatever_the_links_each_tag_is_there_once_in_a_nesting_that_holds(
    links: list[tuple[int, int]], parts: list[str], count: int
) -> None:
    page = "a " + "".join(parts)
    said = " ".join(f"t{number}" for number in range(count))
    written = Html(page).write([Hypothesis(said, 0.0, alignment=tuple(links))])
    assert sorted(_marks(written)) == sorted(_marks(page))
    assert re.sub(r"<[^>]*>", "", written).split() == said.split()
    if _well_formed(page):
        assert _well_formed(written)


def test_elements_with_neither_words_nor_translation() -> None:
    passage = Passage("a b", (Element(0, 3, "<x>", "</x>"), Element(2, 2, "<y>", "")))
    assert passage.write("", (), str) == "<x><y></x>"


def test_a_page_as_a_translation() -> None:
    html = Html("<p>a</p><p>b c</p>")
    some = [
        Translation("a", (Hypothesis("A", -1.0), Hypothesis("Ä", -2.0)), 1, 1),
        Translation("b c", (Hypothesis("B C", -3.0),), 2, 2, truncated=True),
    ]
    whole = html.translation(some)
    assert [(each.text, each.score) for each in whole.hypotheses] == [
        ("<p>A</p><p>B C</p>", -2.0),
        ("<p>Ä</p><p>B C</p>", -2.5),
    ]
    assert (whole.source_tokens, whole.target_tokens, whole.segments, whole.truncated) == (3, 3, 2, True)
    assert Html("<hr>").translation([]).text == "<hr>"


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "<a ",
            "<!--",
            "<![CDATA[",
            "&",
            "<",
            "</",
            '<a x="',
            "<a x='",
            "<!",
            "<?",
            "<script>",
            "a<b ",
            "<p>",
            "<a b=c ",
            "&#",
        ),
        *(
            "<b>",
            "<b>a",
            "</b>a",
            "<code>",
            "<code>x</code> ",
            "<b>a</i>",
            "<textarea>",
            "</ ",
            "a <i>b</i> ",
            "<img>a ",
        ),
    ],
)
def test_a_page_takes_time_by_its_length(piece: str) -> None:
    started = time.process_time()
    unchanged(piece * (100_000 // len(piece)))
    assert time.process_time() - started < 6.0


def test_the_bundled_model_and_a_page() -> None:
    translator = Translator.load(ROOT / "data/pretrained/tatoeba-en-de", threads=1)
    html = Html("<p>I have a <b>big house</b> and <code>%d</code> <a href='x'>red cars</a>.</p>")
    options = translator.defaults.model_copy(update={"alignment": True})
    written = html.write([each.hypotheses[0] for each in translator.translate(html.texts, options)])
    assert "<b>ein großes Haus</b>" in written or "<b>großes Haus</b>" in written
    assert written.count("<code>%d</code>") == 1
    assert re.search(r"<a href='x'>[^<]*Autos?[^<]*</a>", written)


def _marks(page: str) -> list[str]:
    """What is no text, of adjacent pieces that are comments or the like each character's."""
    return [page[token.start : token.end] for token in tokens(page) if token.name]


def _words(page: str) -> str:
    return re.sub(r"\s+", "", plain(page))


def _well_formed(page: str) -> bool:
    opened: list[str] = []
    for token in tokens(page):
        if token.closes:
            if not opened or opened.pop() != token.name:
                return False
        elif token.name and not token.alone:
            opened.append(token.name)
    return not opened


def test_tokens_touch() -> None:
    page = "a<b>c</b><!-- d --><script>e</script>"
    assert all(one.end == other.start for one, other in pairwise(tokens(page)))
