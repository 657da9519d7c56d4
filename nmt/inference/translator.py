"""The Translator: texts in, translations out, the one way that the command line, evaluation and the service share."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from pathlib import Path

from nmt.errors import InputError
from nmt.inference.backend import Backend
from nmt.inference.bundle import Bundle, ModelInfo, check_alike, describe
from nmt.inference.engine import Engine, Priority
from nmt.inference.loading import load_backend
from nmt.inference.search import Cancelled, Candidate, Sentence
from nmt.inference.types import DecodeOptions, Hypothesis, Precision, TokenScore, Translation
from nmt.text.normalize import normalize
from nmt.text.segment import Segment, split_long
from nmt.text.tokenizer import EOS, Tokenizer

_WINDOW = 2000  # texts that `translate_iter` sorts at a time
_ASKED_S = 0.02  # how often a caller is asked whether it still wants its translations
_UNSPACED = {"zh", "ja", "th", "lo", "km", "my", "bo"}  # languages whose sentences are joined without a space
_ONE_TEXT = "a list of texts was expected, found one text: put it into a list"


@dataclass(frozen=True)
class Vocabularies:
    """The tokenizers of both sides, the same one twice where the vocabulary is joint."""

    source: Tokenizer
    target: Tokenizer


@dataclass(frozen=True)
class _Part:
    """A segment of a text on its way through the model."""

    text: int
    ids: list[int]
    inside_word: bool = False


@dataclass(frozen=True, eq=False)
class Pending:
    """Texts that are being translated: the futures of their segments."""

    futures: list[Future[list[Candidate]]]
    join: Callable[[list[list[Candidate]]], list[Translation]]

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all is done or something has gone wrong; whether that is so."""
        done, waiting = wait(self.futures, timeout_s, FIRST_EXCEPTION)
        return not waiting or any(future.exception() for future in done)

    def results(self) -> list[Translation]:
        """A translation for each text; waits. Raises what has gone wrong, if something has."""
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
        self.info, self.defaults, self.max_source_tokens = info, defaults, max_source_tokens

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
    ) -> list[Translation]:
        """A `Translation` for each text, in order; text without content gives "".

        Raises what `begin` raises, what goes wrong with a text, and `search.Cancelled` soon after the callable says so.
        """
        pending = self.begin(texts, options, Priority.DOCUMENT, prefixes)
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
    ) -> Pending:
        """Begin to translate texts, beside whatever the engine has in hand.

        `prefixes` are what each translation is to begin with, "" for nothing. Raises `InputError` for text that is not Unicode, for
        `n_best` above `beam_size`, and for a prefix that is longer than the translation may be, or of a text that is divided.
        """
        options = options or self.defaults
        if options.temperature:  # each is drawn by itself, nothing competes
            options = options.model_copy(update={"beam_size": options.n_best})
        if isinstance(texts, str):  # a sequence of texts too, but not the one that was meant
            raise InputError(_ONE_TEXT)
        if options.n_best > options.beam_size:
            raise InputError(f"n_best {options.n_best} is more than beam_size {options.beam_size}: raise beam_size")
        for text in (*texts, *(prefixes or ())):
            self.validate(text)
        parts = self._parts(texts)
        begins = self._begins(parts, texts, prefixes, options)
        order = sorted(range(len(parts)), key=lambda index: -len(parts[index].ids))
        futures = self.engine.submit_all(
            [parts[index].ids for index in order],
            options,
            priority,
            prefixes=[begins[parts[index].text] for index in order],
        )
        by_part = dict(zip(order, futures, strict=True))

        def join(found: list[list[Candidate]]) -> list[Translation]:
            by_text: dict[int, list[tuple[_Part, list[Candidate]]]] = {index: [] for index in range(len(texts))}
            for part, candidates in zip(parts, found, strict=True):
                by_text[part.text].append((part, candidates))
            return [self._join(text, by_text[index], options) for index, text in enumerate(texts)]

        return Pending([by_part[index] for index in range(len(parts))], join)

    def translate_iter(self, texts: Iterable[str], options: DecodeOptions | None = None) -> Iterator[Translation]:
        """As `translate` for any number of texts, in constant memory; results come in order, a window at a time."""
        if isinstance(texts, str):
            raise InputError(_ONE_TEXT)
        iterator = iter(texts)
        while window := list(itertools.islice(iterator, _WINDOW)):
            yield from self.translate(window, options)

    def score(self, pairs: Sequence[tuple[str, str]], length_penalty: float = 1.0) -> list[Hypothesis]:
        """Each given target with its score as a translation of its source: log P / length ** `length_penalty`, end mark included.

        The whole text is one sentence. Raises `InputError` for text that is not Unicode or is empty.
        """
        encoded: list[tuple[list[int], list[int]]] = []
        for pair in pairs:
            for text in pair:
                self.validate(text)
            source, target = (
                tokenizer.encode([normalize(text)])[0]
                for tokenizer, text in zip((self.vocabularies.source, self.vocabularies.target), pair, strict=True)
            )
            if not source or not target:
                raise InputError(f"pair {len(encoded) + 1}: there is no text on one of its sides")
            encoded.append(([*source, EOS], [*target, EOS]))
        options = DecodeOptions(beam_size=1, length_penalty=length_penalty)
        sources, targets = [source for source, _ in encoded], [target for _, target in encoded]
        futures = self.engine.submit_all(sources, options, Priority.DOCUMENT, prefixes=targets)
        return [
            Hypothesis(target, best.score, tuple(self._tokens(best)))
            for (_, target), best in zip(pairs, (future.result()[0] for future in futures), strict=True)
        ]

    def _begins(
        self, parts: list[_Part], texts: Sequence[str], prefixes: Sequence[str] | None, options: DecodeOptions
    ) -> list[list[int]]:
        """The ids that each text's translation begins with."""
        if prefixes is None:
            return [[] for _ in texts]
        if len(prefixes) != len(texts):
            raise InputError(
                f"{len(prefixes)} prefixes for {len(texts)} texts: give one for each, empty where there is none"
            )
        begins = self.vocabularies.target.encode([normalize(prefix) for prefix in prefixes])
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

    def _parts(self, texts: Sequence[str]) -> list[_Part]:
        tokenizer = self.vocabularies.source
        clean = [normalize(text) for text in texts]
        parts = []
        for index, (text, ids) in enumerate(zip(clean, tokenizer.encode(clean), strict=True)):
            if len(ids) <= self.max_source_tokens:
                parts += [_Part(index, [*ids, EOS])] if ids else []
                continue
            segments = split_long(text, lambda part: len(tokenizer.encode([part])[0]), self.max_source_tokens)
            parts += [self._part(index, segment) for segment in segments]
        return parts

    def _part(self, index: int, segment: Segment) -> _Part:
        return _Part(index, [*self.vocabularies.source.encode([segment.text])[0], EOS], segment.inside_word)

    def _join(self, text: str, parts: list[tuple[_Part, list[Candidate]]], options: DecodeOptions) -> Translation:
        if not parts:
            return Translation(text, (Hypothesis("", 0.0),), 0, 0)
        count = min(options.n_best, max(len(candidates) for _, candidates in parts))
        hypotheses = []
        for rank in range(count):
            chosen = [(part, candidates[min(rank, len(candidates) - 1)]) for part, candidates in parts]
            score = sum(candidate.score for _, candidate in chosen) / len(chosen)
            tokens = tuple(token for _, candidate in chosen for token in self._tokens(candidate))
            hypotheses.append(Hypothesis(self._text(chosen), score, tokens))
        best = [candidates[0] for _, candidates in parts]
        return Translation(
            source=text,
            hypotheses=tuple(hypotheses),
            source_tokens=sum(len(part.ids) - 1 for part, _ in parts),
            target_tokens=sum(len(candidate.ids) for candidate in best),
            segments=len(parts),
            truncated=not all(candidate.ended for candidate in best),
        )

    def _tokens(self, candidate: Candidate) -> Iterator[TokenScore]:
        pieces = self.vocabularies.target.pieces([*candidate.ids, EOS])
        return itertools.starmap(TokenScore, zip(pieces, candidate.each, strict=False))

    def _text(self, chosen: list[tuple[_Part, Candidate]]) -> str:
        """The parts' translations joined as the target language does; the parts of a divided word without a space."""
        source_spaced, target_spaced = (
            language.partition("-")[0] not in _UNSPACED
            for language in (self.info.source_language, self.info.target_language)
        )
        text = ""
        for part, candidate in chosen:
            piece = self.vocabularies.target.decode(candidate.ids).strip()
            word_goes_on = part.inside_word and source_spaced  # elsewhere every cut is between words, as far as we know
            text += " " + piece if text and piece and target_spaced and not word_goes_on else piece
        return text
