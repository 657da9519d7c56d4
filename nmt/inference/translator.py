"""The Translator: texts in, translations out, the one way that the command line, evaluation and the service share."""

from __future__ import annotations

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from nmt.errors import InputError
from nmt.inference.backend import Backend
from nmt.inference.bundle import Bundle, ModelInfo, check_alike, describe
from nmt.inference.cache import Cache
from nmt.inference.engine import Engine, Priority
from nmt.inference.loading import load_backend
from nmt.inference.output import NOTHING, UNSPACED, Output, Part, Vocabularies
from nmt.inference.phrases import NONE, Phrases
from nmt.inference.search import Cancelled, Candidate, Sentence
from nmt.inference.types import DecodeOptions, Hypothesis, Precision, Translation
from nmt.text.normalize import normalize
from nmt.text.placeholders import STAND_INS, Kept, hold
from nmt.text.segment import split_long, stretches
from nmt.text.tags import split_tag, tag
from nmt.text.tokenizer import EOS, UNK

Demands = Callable[[str], Sequence[str]]
_CONSTRAINED = 10  # hypotheses of a search for phrases, at least: they share the beam
_WINDOW = 2000  # texts that `translate_iter` sorts at a time
_ASKED_S = 0.02  # how often a caller is asked whether it still wants its translations
_ONE_TEXT = "a list of texts was expected, found one text: put it into a list"


_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Pending(Generic[_T]):
    """What the engine has in hand for a caller: the futures of its segments, and what becomes of them."""

    futures: list[Future[list[Candidate]]]
    join: Callable[[list[list[Candidate]]], list[_T]]

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all is done or something has gone wrong; whether that is so."""
        done, waiting = wait(self.futures, timeout_s, FIRST_EXCEPTION)
        return not waiting or any(future.exception() for future in done)

    def results(self) -> list[_T]:
        """One for each text; waits. Raises what has gone wrong, if something has."""
        for future in self.futures:
            if future.done():
                future.result()
        return self.join([future.result() for future in self.futures])

    def cancel(self) -> None:
        """Give up what is not finished."""
        for future in self.futures:
            future.cancel()


class Translator:
    """Translates lists of texts; the result of one never depends on the others."""

    def __init__(
        self,
        backend: Backend,
        vocabularies: Vocabularies,
        info: ModelInfo,
        defaults: DecodeOptions,
        max_source_tokens: int,
        workers: int = 1,
    ) -> None:
        """`max_source_tokens` is the longest source the model was trained for; longer text is split. `workers` are the engine's."""
        self.engine, self.vocabularies = Engine(backend, workers), vocabularies
        self.cache = Cache(0)  # may be set
        self.info, self.defaults, self.max_source_tokens = info, defaults, max_source_tokens
        self._copies = backend.shows  # what has no subwords
        self._listed = backend.shortlist
        self._stand_ins = STAND_INS.known(lambda word: UNK not in vocabularies.source.encode([word])[0])
        self._outputs = {target: Output(vocabularies, info.source_language, target) for target in info.targets}
        self._tags = {
            target: vocabularies.source.encode([tag(target)])[0] if len(info.targets) > 1 else []
            for target in info.targets
        }

    @classmethod
    def load(
        cls,
        path: Path,
        threads: int | None = None,
        device: str = "cpu",
        ensemble: Sequence[Path] = (),
        precision: Precision = "auto",
    ) -> Translator:
        """Open a bundle, and those of `ensemble` to decode with it as one model; the search defaults are those of the first.

        On a CPU ONNX Runtime computes, on a GPU and for ensembles PyTorch. Raises `BundleError` naming the file when something of a bundle
        is missing or damaged, or when they don't go together, and `ConfigError` for a precision that the backend has not.
        """
        bundles = [Bundle.open(item) for item in (path, *ensemble)]
        check_alike(bundles)
        first = bundles[0]
        backend, workers = load_backend(bundles, threads, device, precision)
        return cls(
            backend,
            Vocabularies(first.source_tokenizer, first.target_tokenizer),
            describe(bundles) if ensemble else first.info,
            first.config.decode,
            min(bundle.config.max_source_tokens for bundle in bundles),
            workers,
        )

    def validate(self, text: str) -> None:
        """Raise `InputError` when `text` is not something that can be translated."""
        if not isinstance(text, str):
            raise InputError(f"a text was expected, found {type(text).__name__}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"the text holds a lone surrogate at character {error.start + 1}: not valid Unicode"
            ) from None

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Source subwords of each text."""
        return [len(ids) for ids in self.vocabularies.source.encode([normalize(text) for text in texts])]

    def translate(
        self,
        texts: Sequence[str],
        options: DecodeOptions | None = None,
        cancelled: Callable[[], bool] | None = None,
        prefixes: Sequence[str] | None = None,
        demands: Demands | None = None,
    ) -> list[Translation]:
        """A `Translation` for each text, in order; text without content gives "".

        Raises what `begin` raises, what goes wrong with a text, and `search.Cancelled` soon after the callable says so.
        """
        pending = self.begin(texts, options, Priority.DOCUMENT, prefixes, demands)
        try:
            while not (cancelled and cancelled()):
                if pending.wait(_ASKED_S if cancelled else None):
                    return pending.results()
            raise Cancelled
        finally:
            pending.cancel()

    def begin(
        self,
        texts: Sequence[str],
        options: DecodeOptions | None = None,
        priority: Priority = Priority.INTERACTIVE,
        prefixes: Sequence[str] | None = None,
        demands: Demands | None = None,
    ) -> Pending[Translation]:
        """Begin to translate texts, beside whatever the engine has in hand.

        `prefixes` are what each translation is to begin with, "" for nothing; `demands` gives the phrases that must appear in the
        translation of a piece of text (`Glossary.phrases`), which is searched for with a beam of ten at least. Lines, and the sentences of
        a line that has no prefix, are translated one by one, and what is between them stays (`nmt.text.segment.stretches`).

        Raises `InputError` for text that is not Unicode, for `n_best` above `beam_size`, for a prefix that is longer than the translation
        may be, or of a text that is divided, and for a phrase that has no subwords.
        """
        options = options or self.defaults
        if options.temperature:  # each is drawn by itself, nothing competes
            options = options.model_copy(update={"beam_size": options.n_best})
        if isinstance(texts, str):  # a sequence of texts too, but not the one that was meant
            raise InputError(_ONE_TEXT)
        if options.n_best > options.beam_size:
            raise InputError(f"n_best {options.n_best} is more than beam_size {options.beam_size}: raise beam_size")
        if options.shortlist and not self._listed:
            raise InputError("this model has no shortlist, or runs where it can't be used: leave shortlist out")
        for text in (*texts, *(prefixes or ())):
            self.validate(text)
        if prefixes is not None and len(prefixes) != len(texts):
            raise InputError(
                f"{len(prefixes)} prefixes for {len(texts)} texts: give one for each, empty where there is none"
            )
        begun = prefixes or [""] * len(texts)
        whole = [not options.split_sentences or bool(prefix) for prefix in begun]
        targets, untagged = self._targets(texts, options.target)
        parts = self._parts(untagged, whole, options.keep_placeholders, [self._tags[target] for target in targets])
        begins = self._begins(parts, begun, [self._outputs[target] for target in targets], options)
        spoken = sorted((part for part in parts if not part.silent), key=lambda part: -len(part.ids))
        if demands and options.temperature:
            raise InputError("phrases are demanded of a search, not of what is drawn at random: set temperature to 0")
        wide = options.model_copy(update={"beam_size": max(options.beam_size, _CONSTRAINED)})
        sentences = []
        for part in spoken:
            phrases = self._phrases(demands(part.plain)) if demands else NONE
            its = wide if phrases.ids else options
            sentences.append(Sentence(part.ids, its, begins[part.text], phrases, aligned=part.aligned))
        futures = dict(zip(map(id, spoken), self.cache.submit(self.engine, sentences, priority), strict=True))
        nothing: Future[list[Candidate]] = Future()
        nothing.set_result([NOTHING])

        def join(found: list[list[Candidate]]) -> list[Translation]:
            by_text: dict[int, list[tuple[Part, list[Candidate]]]] = {index: [] for index in range(len(texts))}
            for part, candidates in zip(parts, found, strict=True):
                by_text[part.text].append((part, candidates))
            return [
                self._outputs[targets[index]].translation(text, by_text[index], options, begun[index])
                for index, text in enumerate(untagged)
            ]

        return Pending([futures.get(id(part), nothing) for part in parts], join)

    def translate_iter(self, texts: Iterable[str], options: DecodeOptions | None = None) -> Iterator[Translation]:
        """As `translate` for any number of texts, in constant memory; results come in order, a window at a time."""
        if isinstance(texts, str):
            raise InputError(_ONE_TEXT)
        iterator = iter(texts)
        while window := list(itertools.islice(iterator, _WINDOW)):
            yield from self.translate(window, options)

    def score(
        self, pairs: Sequence[tuple[str, str]], length_penalty: float = 1.0, alignment: bool = False
    ) -> list[Hypothesis]:
        """As `begin_score`, and waits."""
        return self.begin_score(pairs, length_penalty, alignment, Priority.DOCUMENT).results()

    def begin_score(
        self,
        pairs: Sequence[tuple[str, str]],
        length_penalty: float = 1.0,
        alignment: bool = False,
        priority: Priority = Priority.INTERACTIVE,
        target: str = "",
    ) -> Pending[Hypothesis]:
        """Each given target with its score as a translation of its source: log P / length ** `length_penalty`, end mark included; with
        `alignment` also which source word each of its words comes from.

        The whole text is one sentence. Raises `InputError` for text that is not Unicode or is empty.
        """
        options = DecodeOptions(beam_size=1, length_penalty=length_penalty, alignment=alignment)
        parts, sentences = [], []
        for pair in pairs:
            for text in pair:
                self.validate(text)
        targets, sources = self._targets([source for source, _ in pairs], target)
        for index, pair in enumerate(zip(sources, (each for _, each in pairs), strict=True)):
            source, target = map(normalize, pair)
            ids, given = self.vocabularies.source.encode([source])[0], self.vocabularies.target.encode([target])[0]
            if not ids or not given:
                raise InputError(f"pair {index + 1}: there is no text on one of its sides")
            parts.append(Part.of(index, source, ids, self.vocabularies.source, tag=self._tags[targets[index]]))
            sentences.append(Sentence(parts[-1].ids, options, [*given, EOS]))

        def join(found: list[list[Candidate]]) -> list[Hypothesis]:
            scored = (
                self._outputs[targets[part.text]].hypothesis([(part, candidates[0])], alignment)
                for part, candidates in zip(parts, found, strict=True)
            )
            return [replace(one, text=target) for one, (_, target) in zip(scored, pairs, strict=True)]

        return Pending(self.engine.submit_all(sentences, priority), join)

    def _phrases(self, texts: Sequence[str]) -> Phrases:
        tokenizer = self.vocabularies.target
        ids = [tuple(each) for each in tokenizer.encode([normalize(text) for text in texts])]
        for text, each in zip(texts, ids, strict=True):
            if not each or UNK in each:
                raise InputError(f"the phrase {text!r} can't be said: it is empty, or has characters without a subword")
        return Phrases(tuple(dict.fromkeys(ids)), self._continuing)

    @functools.cached_property
    def _continuing(self) -> NDArray[np.bool_] | None:
        """The subwords (V,) that go on with a word; None where words are written without spaces."""
        if self.info.target_language.partition("-")[0] in UNSPACED:
            return None
        pieces = self.vocabularies.target.pieces(range(len(self.vocabularies.target)))
        return np.array([piece[:1].isalnum() for piece in pieces])

    def _begins(
        self, parts: list[Part], prefixes: Sequence[str], outputs: Sequence[Output], options: DecodeOptions
    ) -> list[list[int]]:
        """The ids that each text's translation begins with."""
        begins: list[list[int]] = [[] for _ in prefixes]
        for part in parts:
            if prefixes[part.text]:
                begins[part.text] = outputs[part.text].begin(part, prefixes[part.text])
        counts = collections.Counter(part.text for part in parts)
        for part in parts:
            begin, text = begins[part.text], part.text + 1
            if begin and counts[part.text] > 1:
                raise InputError(
                    f"text {text} is divided into {counts[part.text]} parts: a prefix can be given for one part alone"
                )
            if len(begin) >= (limit := Sentence(part.ids, options).limit):
                raise InputError(
                    f"the prefix of text {text} has {len(begin)} subwords, its translation may have {limit - 1}"
                )
        return begins

    def _targets(self, texts: Sequence[str], asked: str) -> tuple[list[str], list[str]]:
        """The target language of each text: of the tag that it begins with, else the one that is asked for; and the texts without tags."""
        known = self.info.targets
        if asked and asked not in known:
            raise InputError(f"target {asked!r}: this model translates into {', '.join(known)}")
        default = asked or known[0]
        if len(known) == 1:
            return [default] * len(texts), list(texts)
        targets, untagged = [], []
        for text in texts:
            found, rest = split_tag(text)
            targets.append(found if found in known else default)
            untagged.append(rest if found in known else text)
        return targets, untagged

    def _parts(
        self, texts: Sequence[str], whole: Sequence[bool], keep: bool, tags: Sequence[Sequence[int]]
    ) -> list[Part]:
        """The parts of all texts; the lines of those that are `whole` are not divided into sentences. With `keep` some is held."""
        tokenizer, language = self.vocabularies.source, self.info.source_language
        cut = [stretches(text, language, not one) for text, one in zip(texts, whole, strict=True)]
        read = [
            hold(stretch.text, self._stand_ins) if keep else (stretch.text, None)
            for found, _ in cut
            for stretch in found
        ]
        clean = [normalize(text) for text, _ in read]
        encoded = zip(clean, tokenizer.encode(clean), (kept for _, kept in read), strict=True)
        parts: list[Part] = []
        for index, (found, rest) in enumerate(cut):
            its: list[Part] = []
            held = ""  # before what has nothing that can be translated
            for stretch, (text, ids, kept) in zip(found, encoded, strict=False):
                held += stretch.before
                if ids:
                    its += self._divided(index, text, ids, held, kept, keep, tags[index])
                    held = ""
            if its:
                its[-1] = replace(its[-1], after=held + rest)
            parts += its
        return parts

    def _divided(
        self,
        index: int,
        text: str,
        ids: list[int],
        before: str,
        kept: Kept | None,
        faithful: bool,
        tag: Sequence[int],
    ) -> list[Part]:
        """The parts of a sentence: one, where it is not too long."""
        tokenizer = self.vocabularies.source
        if len(ids) <= self.max_source_tokens:
            return [Part.of(index, text, ids, tokenizer, self._copies, False, before, kept, faithful, tag)]
        segments = split_long(text, lambda part: len(tokenizer.encode([part])[0]), self.max_source_tokens)
        cut = tokenizer.encode([segment.text for segment in segments])
        parts: list[Part] = []
        word = 0  # of `text`
        for segment, its in zip(segments, cut, strict=True):
            word -= bool(parts) and not segment.separator
            count = segment.text.count(" ") + 1
            held = kept.of(word, count) if kept else None
            begins = None if parts else before
            parts.append(
                Part.of(
                    index, segment.text, its, tokenizer, self._copies, segment.inside_word, begins, held, faithful, tag
                )
            )
            word += count
        return parts
