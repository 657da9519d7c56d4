"""A translator that turns letters into capitals, for tests of batch translation; as a program, a job with it that can be killed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nmt.batch.inputs import Shape
from nmt.batch.job import Outcome, Task, local, run
from nmt.batch.languages import Watched
from nmt.batch.opening import open_input
from nmt.inference.types import Hypothesis, Translation


@dataclass
class Loud:
    """`begin` of a job; it remembers what it was asked for, and raises what `wrong` gives for a text."""

    asked: list[str] = field(default_factory=list)
    wrong: Callable[[str], Exception | None] = lambda text: None
    cut: str = "\0"
    seconds: float = 0.0

    def __call__(self, texts: list[str]) -> Begun:
        self.asked += texts
        return Begun(self, texts)


@dataclass
class Begun:
    """What it has begun."""

    loud: Loud
    texts: list[str]

    def results(self) -> list[Translation]:
        time.sleep(self.loud.seconds)
        for text in self.texts:
            if error := self.loud.wrong(text):
                raise error
        return [translation(text, self.loud.cut in text) for text in self.texts]

    def cancel(self) -> None:
        pass


def translation(text: str, cut: bool = False) -> Translation:
    said = Hypothesis(text.upper(), -0.5, alignment=tuple((i, i) for i in range(len(text.split()))))
    return Translation(text, (said,), len(text.split()), len(text.split()), 1, cut)


def do(
    name: Path | str, output: Path, begin: Loud | None = None, shape: Shape | None = None, force: bool = False
) -> Outcome:
    """A job of one input."""
    return do_all([(name, output)], output, begin, shape, force)


def do_all(
    pairs: list[tuple[Path | str, Path]],
    output: Path,
    begin: Loud | None = None,
    shape: Shape | None = None,
    force: bool = False,
    language: str = "",
    passed: bool = False,
) -> Outcome:
    """A job of several."""
    tasks = [Task(Watched(open_input(str(name), shape or Shape()), language, passed), path) for name, path in pairs]
    links, full = any(task.input.links for task in tasks), bool(shape and shape.full)
    folder = output.with_name(f"{output.name}.work")
    return run(tasks, folder, {"inputs": [task.identity for task in tasks]}, local(begin or Loud(), links, full), force)


if __name__ == "__main__":
    do(Path(sys.argv[1]), Path(sys.argv[2]), Loud(seconds=0.05))
