"""Generated reviews: every label follows from the words, recomputed here from lists and rules of the test's own."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from nmt.corpus.reviews import Review, reviews

MADE = reviews(3000, seed=5)


def words(text: str) -> set[str]:
    return set(text.split())


PRAISE = words(
    "good great excellent superb fantastic solid brilliant reliable impressive lovely perfect wonderful decent sturdy crisp pleasant "
    "splendid happy satisfied pleased delighted content impressed enthusiastic like love enjoy admire appreciate"
)
BLAME = words(
    "bad terrible awful poor horrible flimsy weak faulty dreadful useless disappointing mediocre ugly shoddy annoying clumsy lousy "
    "disappointed unhappy dissatisfied annoyed frustrated angry upset hate dislike regret loathe resent"
)
NEGATION = re.compile(r"\b(?:do not|would not|is not|not|never|hardly|far from|by no means|nobody|doubt)\b")
JOINER = re.compile(r"(?: (?:,|:|\.|and|but|yet|although|though|overall|altogether|ultimately))+ ")


def polarity(clause: str) -> bool:
    """Whether a clause praises: by its one opinion word, and by how often it's negated."""
    (opinion,) = [word for word in clause.split() if word in PRAISE | BLAME]
    return (opinion in PRAISE) == (len(NEGATION.findall(clause)) % 2 == 0)


def judgement(text: str) -> bool:
    """Whether a review, as words with spaces, is positive; read from its text alone."""
    if verdict := re.search(r"\b(?:overall|altogether|ultimately) ([^:.]*)", text):
        return polarity(verdict[1])
    if contrast := re.search(r"\b(?:but|yet) (.*)", text):
        return polarity(contrast[1])
    if conceded := re.fullmatch(r"(?:although|though) [^,]*, (.*)", text):
        return polarity(conceded[1])
    if conceded := re.fullmatch(r"(.*) , (?:although|though) .*", text):
        return polarity(conceded[1])
    votes = [polarity(clause) for clause in re.split(r" , | and | \.", text) if clause]
    assert len(votes) % 2 == 1
    return sum(votes) * 2 > len(votes)


def said(review: Review) -> list[str]:
    """The text of every clause."""
    return [" ".join(review.words[clause.start : clause.end]) for clause in review.clauses]


def test_the_polarity_of_a_clause_follows_from_its_words() -> None:
    wrong = [
        text
        for review in MADE
        for text, clause in zip(said(review), review.clauses, strict=True)
        if polarity(text) != clause.positive
    ]
    assert wrong == []


def test_the_judgement_of_a_review_follows_from_its_text() -> None:
    assert [review.text for review in MADE if judgement(" ".join(review.words)) != review.positive] == []


@pytest.mark.parametrize(
    ("clause", "positive"),
    [
        ("audio is bad", False),
        ("display is great", True),
        ("case is not bad", True),
        ("case was hardly great", False),
        ("case seems far from good", False),
        ("I would not say that case is good", False),
        ("I doubt that case is not good", True),
    ],
)
def test_the_rules_of_this_test_are_those_of_english(clause: str, positive: bool) -> None:
    assert polarity(clause) == positive


def test_clauses_are_all_of_a_review_but_what_joins_them() -> None:
    for review in MADE:
        text = f" {' '.join(review.words)} "
        assert [part.strip() for part in JOINER.split(text) if part.strip()] == said(review), text


def test_every_clause_has_one_opinion_and_an_aspect_or_the_writer() -> None:
    for review in MADE:
        for clause in review.clauses:
            tags = Counter(review.tags[clause.start : clause.end])
            assert tags["positive"] + tags["negative"] == 1
            assert tags["aspect"] == 1 or "I am" in " ".join(review.words[clause.start : clause.end])
            assert tags["connector"] == tags["punctuation"] == 0


def test_a_word_has_the_same_tag_everywhere_and_the_right_one() -> None:
    tags: dict[str, str] = {}
    for review in MADE:
        for word, tag in zip(review.words, review.tags, strict=True):
            assert tags.setdefault(word, tag) == tag, word
    of = {tag: {word for word, given in tags.items() if given == tag} for tag in set(tags.values())}
    assert of["positive"] == PRAISE
    assert of["negative"] == BLAME
    assert of["negation"] == words("not never hardly far from by no means nobody doubt")
    assert of["connector"] == words("and but yet although though overall altogether ultimately")
    assert of["punctuation"] == set(",:.")
    assert of["intensifier"] == words("very really truly quite remarkably")
    assert of["function"] == words("I am do would say says think find friends that the is was seems")
    assert len(of["aspect"]) >= 40


def test_labels_are_balanced_in_every_beginning_of_the_list() -> None:
    for count in (1, 2, 17, 1000, len(MADE)):
        assert abs(2 * sum(review.positive for review in MADE[:count]) - count) <= 1
    clauses = [clause.positive for review in MADE for clause in review.clauses]
    assert 0.47 < sum(clauses) / len(clauses) < 0.53
    first = [review.positive for review in MADE[::2]]
    assert 0.45 < sum(first) / len(first) < 0.55  # and not positive and negative in turn


def test_no_single_reading_that_ignores_the_rules_gets_far() -> None:
    """Counting opinion words, or taking the first clause, the last one or most of them, is right in less than 3 of 4."""

    def share(guess: list[bool]) -> float:
        return sum(one == review.positive for one, review in zip(guess, MADE, strict=True)) / len(MADE)

    assert share([review.tags.count("positive") > review.tags.count("negative") for review in MADE]) < 0.6
    assert share([review.clauses[0].positive for review in MADE]) < 0.75
    assert share([review.clauses[-1].positive for review in MADE]) < 0.75
    assert share([2 * sum(c.positive for c in review.clauses) > len(review.clauses) for review in MADE]) < 0.75


def test_the_seed_decides_everything_and_no_review_comes_twice() -> None:
    assert reviews(700, seed=5) == MADE[:700]
    assert len(set(MADE)) == len({review.words for review in MADE}) == len(MADE)
    assert len(set(MADE) & set(reviews(3000, seed=6))) < 30  # only the shortest can be drawn by chance again


def test_the_text_reads_as_a_person_writes_it() -> None:
    for review in MADE[:500]:
        assert re.fullmatch(r"[A-Z][a-z]*(?:[,:]? [A-Za-z]+)*\.", review.text), review.text
        assert re.findall(r"\w+|[,:.]", review.text.lower()) == [word.lower() for word in review.words]
