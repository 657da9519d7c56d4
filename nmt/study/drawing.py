"""What the pictures of a page share, all of them inline SVG: colours, scales, numbers, and the frame with title and remarks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nmt.pages import safe

# Okabe and Ito 2008, as in nmt.figures, and a lighter set for dark pages.
STYLE = """
:root { --c0: #0072B2; --c1: #D55E00; --c2: #009E73; --c3: #CC79A7; --c4: #B98900; --c5: #3A9BD1; }
@media (prefers-color-scheme: dark) {
  :root { --c0: #5AB0E8; --c1: #FF9152; --c2: #35C79C; --c3: #E5A3C7; --c4: #EDBE4A; --c5: #A3D8F7; } }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1rem; }
.charts.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 14.5rem), 1fr)); }
figure { display: flex; flex-direction: column; margin: 0; padding: .7rem .8rem .5rem;
  border: 1px solid var(--line); border-radius: .5rem; min-width: 0; }
figcaption { line-height: 1.35; } figure > svg { width: 100%; height: auto; margin-top: auto; padding-top: .4rem; }
figure > small { line-height: 1.35; overflow-wrap: anywhere; }
.small figcaption { font-size: .93em; }
.keys { display: flex; flex-wrap: wrap; gap: 0 .9rem; font-size: .87em; }
.keys i { display: inline-block; width: 1.3em; border-top: 2.5px solid; vertical-align: middle; margin-right: .35em; }
.keys i.dashed { border-top-style: dashed; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); } svg .grid { stroke: var(--line); }
svg polyline { fill: none; stroke-width: 1.8; stroke-linejoin: round; } svg .dashed { stroke-dasharray: 6 4; }
"""


def colour(index: int) -> str:
    """One of six colours that are told apart, for lines without an order."""
    return f"var(--c{index % 6})"


def keys(named: Sequence[tuple[str, str, bool]]) -> str:
    """What colours stand for: label, colour in CSS, and whether the line is dashed."""
    items = (
        f'<span><i class="{"dashed" if dashed else "solid"}" style="border-color:{tint}"></i>{safe(label)}</span>'
        for label, tint, dashed in named
    )
    return f'<div class="keys">{"".join(items)}</div>'


def picture(
    title: str, unit: str, drawn: str, size: tuple[int, int], words: str, above: str = "", note: str = ""
) -> str:
    """A figure of the SVG elements `drawn`, `size` in pixels where the page leaves so much room; `words` say to those who can't see it
    what it shows. `above` (the keys) and `note` are HTML."""
    remark = f" <small>{safe(unit)}</small>" if unit else ""
    below = f"<small>{note}</small>" if note else ""
    return (
        f"<figure><figcaption><b>{safe(title)}</b>{remark}{above}</figcaption>"
        f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{safe(words)}">{drawn}</svg>{below}</figure>'
    )


@dataclass(frozen=True)
class Scale:
    """From the lowest value to the highest, in equal steps or in equal ratios."""

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, from 0 (lowest) to 1."""
        if self.log:
            return (math.log10(value) - math.log10(self.low)) / self.decades
        return (value - self.low) / (self.high - self.low)

    @property
    def decades(self) -> float:
        """Powers of ten from the lowest to the highest."""
        return math.log10(self.high) - math.log10(self.low)

    def ticks(self) -> list[float]:
        """Round values, three to six."""
        if self.log and self.decades >= 1:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            each = (1, 2, 5) if self.decades < 2 else (1,)
            found = [factor * 10.0**power for power in range(first, last + 1) for factor in each]
            found = [value for value in found if self.low <= value <= self.high]
            return found[:: -(-len(found) // 6)]
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        return [number * step for number in range(math.ceil(self.low / step), math.floor(self.high / step + 1e-9) + 1)]


def in_words(value: float) -> str:
    """A value in words: four digits or so."""
    if value and abs(value) < 0.001:
        return f"{value:.2e}"
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def tick_label(value: float, small: bool = False) -> str:
    """A tick's text; `small` where all of them are."""
    if small and value:
        digits, power = f"{value:.2e}".split("e")
        return f"{float(digits):g}e{int(power)}"
    if abs(value) >= 1e6:
        return f"{value / 1e6:,.6g}M"
    return f"{value / 1e3:,.6g}k" if abs(value) >= 1e5 else f"{value:,.6g}"
