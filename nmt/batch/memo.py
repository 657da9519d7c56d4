"""Where the answer to a text is: a hash table in a file, so that memory does not grow with the number of texts."""

from __future__ import annotations

import os
import struct
from pathlib import Path

_SLOT = struct.Struct("<16sQ")  # the key of a text, and one more than the place of its answer: 0 where the slot is free
_BLOCK = 32  # slots that are read together
_LEAST = 1 << 10


class Memo:
    """Places by keys of 16 bytes, with linear probing. Its size is fixed, at twice the number of texts there may be at least; a part that
    was never written takes no room on disk. `kill -9` leaves it whole: a slot is written at once."""

    def __init__(self, path: Path, texts: int) -> None:
        """Open the table at `path`, or make it anew where there is none for so many texts."""
        self._slots = max(_LEAST, 1 << (2 * texts).bit_length())
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if os.fstat(self._file).st_size != self._slots * _SLOT.size:
            os.ftruncate(self._file, 0)
            os.ftruncate(self._file, self._slots * _SLOT.size)

    def find(self, key: bytes) -> int | None:
        """The place that was put for `key`, if one was."""
        return self._look(key)[1]

    def put(self, key: bytes, place: int) -> None:
        """Note the place for `key`; an earlier one is replaced."""
        os.pwrite(self._file, _SLOT.pack(key, place + 1), self._look(key)[0] * _SLOT.size)

    def _look(self, key: bytes) -> tuple[int, int | None]:
        """The slot of `key`, or the one that is free for it, and its place."""
        slot = int.from_bytes(key[:8], "little") & (self._slots - 1)
        while True:
            block = os.pread(self._file, min(_BLOCK, self._slots - slot) * _SLOT.size, slot * _SLOT.size)
            for number, (found, place) in enumerate(_SLOT.iter_unpack(block)):
                if not place:
                    return slot + number, None
                if found == key:
                    return slot + number, place - 1
            slot = (slot + len(block) // _SLOT.size) & (self._slots - 1)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
