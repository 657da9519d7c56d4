"""The exceptions of Strata.

    NMTError                something the user can put right: what, where, what to do
    +-- ConfigError         a configuration or recipe: unknown key, wrong type, impossible combination
    +-- DataError           a corpus: missing file or column, unequal lengths, invalid UTF-8, empty
    +-- BundleError         a model bundle: missing file, wrong checksum, unknown format
    +-- CheckpointError     a training run: missing or damaged checkpoint, changed configuration
    +-- TrainingError       training cannot go on: non-finite loss, full disk
    +-- InputError          text given to a translator that it cannot accept
    +-- ServiceError        a translation server that cannot be reached or that refused

The command line prints any of them as one line and exits with status 2; the service answers with a 4xx that carries
the same words. Anything else that reaches a user is a defect.
"""

from __future__ import annotations


class NMTError(Exception):
    """Base of every error that a user can put right."""


class ConfigError(NMTError):
    """A configuration or recipe is wrong."""


class DataError(NMTError):
    """A corpus is wrong or missing."""


class BundleError(NMTError):
    """A model bundle is missing, damaged or of an unknown format."""


class CheckpointError(NMTError):
    """A training run's checkpoint is missing or damaged."""


class TrainingError(NMTError):
    """Training cannot go on."""


class InputError(NMTError):
    """A text to be translated, or an option beside it, is not acceptable."""


class ServiceError(NMTError):
    """A translation server cannot be reached or refused the request, then with this `status` (0: there was no answer, or none to read)."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
