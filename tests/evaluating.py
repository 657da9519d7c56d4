"""What tests of evaluation translate and score: a small test set with two sets of references, and hypotheses that miss it by a little."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from conftest import ROOT
from serving_fakes import served

from serving.backend import Models
from serving.config import ServeConfig
from serving.gateway import create_app
from serving.replica import TranslatorReplica

BUNDLE = str(ROOT / "data/pretrained/tatoeba-en-de")

# Source, reference, another reference.
TRIPLES = [
    ("I saw Tom in Boston.", "Ich habe Tom in Boston gesehen.", "Ich sah Tom in Boston."),
    ("Where is the station?", "Wo ist der Bahnhof?", "Wo befindet sich der Bahnhof?"),
    ("I am tired.", "Ich bin müde.", "Müde bin ich."),
    ("She lives in Berlin.", "Sie lebt in Berlin.", "Sie wohnt in Berlin."),
    ("He bought 12 apples.", "Er kaufte 12 Äpfel.", "Er hat 12 Äpfel gekauft."),
    ("That's my plan.", "Das ist mein Plan.", "So lautet mein Plan."),
    ("It is raining again.", "Es regnet wieder.", "Es regnet schon wieder."),
    ("Tom gave Mary a book.", "Tom gab Mary ein Buch.", "Tom hat Mary ein Buch gegeben."),
    ("The train leaves at 7:45.", "Der Zug fährt um 7:45 Uhr ab.", "Der Zug geht um 7:45 Uhr."),
    ("We have known each other for years.", "Wir kennen uns seit Jahren.", "Wir kennen einander seit Jahren."),
    ("I don't know what to say.", "Ich weiß nicht, was ich sagen soll.", "Mir fehlen die Worte."),
    ("My brother is older than me.", "Mein Bruder ist älter als ich.", "Mein Bruder ist der ältere."),
    ("Can you help me?", "Kannst du mir helfen?", "Können Sie mir helfen?"),
    ("The house on the hill is very old.", "Das Haus auf dem Hügel ist sehr alt.", "Sehr alt ist das Haus dort oben."),
    ("Please close the door.", "Bitte schließ die Tür.", "Mach bitte die Tür zu."),
    (
        "Nobody believed the story that he told us last night.",
        "Niemand glaubte die Geschichte.",
        "Keiner hat es geglaubt.",
    ),
    ("Good luck!", "Viel Glück!", "Alles Gute!"),
    ("What time is it?", "Wie spät ist es?", "Wie viel Uhr ist es?"),
    ("They are waiting for the bus.", "Sie warten auf den Bus.", "Sie warten gerade auf den Bus."),
    ("I have never been to Australia.", "Ich war noch nie in Australien.", "Ich bin nie in Australien gewesen."),
]
SOURCES, FIRST, SECOND = (list(column) for column in zip(*TRIPLES, strict=True))


def noisy(seed: int) -> list[str]:
    """The first references, about half of them with a word changed, one left out, or two in the wrong order."""
    rng, found = random.Random(seed), []
    for line in FIRST:
        words = line.split()
        change = rng.randrange(6)
        if change == 0:
            words[rng.randrange(len(words))] = "anders"
        elif change == 1 and len(words) > 2:
            del words[rng.randrange(len(words))]
        elif change == 2 and len(words) > 2:
            words[0], words[1] = words[1], words[0]
        found.append(" ".join(words))
    return found


def written(path: Path, lines: Sequence[str]) -> str:
    """Write lines to a file; its name."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def served_bundle() -> AbstractContextManager[str]:
    """A server of the bundle; its address."""
    config = ServeConfig(models=[BUNDLE], deadline_s=60.0)
    return served(create_app(Models({"bundled": TranslatorReplica(BUNDLE, 1, config)}), config))


def sacrebleu(*arguments: str) -> Any:
    """What sacreBLEU's own command prints as JSON."""
    command = [sys.executable, "-m", "sacrebleu", *arguments, "--format", "json", "-w", "6"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout)
