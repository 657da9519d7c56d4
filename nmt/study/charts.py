"""The figures of studies: curves of every run, BLEU against depth, time against BLEU; how gradients flow in one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from nmt.figures import COLOURS, figure, save
from nmt.study.flow import OTHERS, ROWS, FlowLog
from nmt.study.run_log import Series
from nmt.study.summary import Setting, axis_words, varied

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def _styles(found: Sequence[Setting]) -> dict[tuple[Any, ...], tuple[str, str]]:
    """Colour and label of each combination of the axes beside corpus and depth."""
    axes = _other_axes(found)
    keys = list(dict.fromkeys(_other(setting, axes) for setting in found))
    return {
        key: (
            COLOURS[index % len(COLOURS)],
            ", ".join(axis_words(axis, value) for axis, value in zip(axes, key, strict=True)) or "all",
        )
        for index, key in enumerate(keys)
    }


def _other_axes(found: Sequence[Setting]) -> list[str]:
    return [axis for axis in varied(found) if axis != "layers"]


def _other(setting: Setting, axes: Sequence[str]) -> tuple[Any, ...]:
    return tuple(setting.point[axis] for axis in axes)


def _corpora(found: Sequence[Setting]) -> list[str]:
    return list(dict.fromkeys(setting.point["corpus"] for setting in found))


def draw_curves(found: Sequence[Setting], path: Path) -> None:
    """Small multiples: a row a corpus, a column a depth; validation loss solid, training loss dashed, lowest point marked."""
    styles, axes = _styles(found), _other_axes(found)
    corpora, depths = _corpora(found), sorted({setting.point["layers"] for setting in found})
    made = figure(1.0 + 2.6 * len(depths), 0.9 + 2.2 * len(corpora))
    panels = made.subplots(len(corpora), len(depths), sharex=True, sharey="row", squeeze=False)
    for row, corpus in enumerate(corpora):
        for column, depth in enumerate(depths):
            panel = panels[row][column]
            for setting in found:
                if setting.point["corpus"] == corpus and setting.point["layers"] == depth:
                    _draw_runs(panel, setting, styles[_other(setting, axes)][0])
            if not panel.lines:
                panel.text(0.5, 0.5, "open", transform=panel.transAxes, ha="center", va="center", color="grey")
            panel.set_title(f"{corpus}, {axis_words('layers', depth)}", fontsize=9)
            panel.grid(alpha=0.3)
            if row == len(corpora) - 1:
                panel.set_xlabel("step")
            if column == 0:
                panel.set_ylabel("loss (nats per token)")
    handles = [Line2D([], [], color=colour, label=label) for colour, label in styles.values()]
    handles += [
        Line2D([], [], color="grey", label="validation"),
        Line2D([], [], color="grey", linestyle="--", label="training pairs"),
        Line2D([], [], color="grey", linestyle="", marker="o", markersize=5, label="lowest validation"),
    ]
    made.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), fontsize=8, frameon=False)
    save(made, path)


def _draw_runs(panel: Any, setting: Setting, colour: str) -> None:
    for result in setting.results:
        steps = [point.step for point in result.curve]
        validation = [point.validation_loss for point in result.curve]
        panel.plot(steps, validation, color=colour, linewidth=1.4)
        panel.plot(steps, [point.train_loss for point in result.curve], color=colour, linewidth=1.1, linestyle="--")
        lowest = validation.index(min(validation))
        panel.plot(steps[lowest], validation[lowest], "o", color=colour, markersize=5)


def draw_bleu(found: Sequence[Setting], signature: str, path: Path) -> None:
    """Test BLEU against depth, a panel a corpus, a line for each combination of the other axes; bars are the seeds' spread."""
    styles, axes = _styles(found), _other_axes(found)
    corpora, depths = _corpora(found), sorted({setting.point["layers"] for setting in found})
    made = figure(1.2 + 3.2 * len(corpora), 3.8)
    panels = made.subplots(1, len(corpora), squeeze=False)[0]
    for panel, corpus in zip(panels, corpora, strict=True):
        for index, (key, (colour, label)) in enumerate(styles.items()):
            line = [s for s in found if s.results and s.point["corpus"] == corpus and _other(s, axes) == key]
            line.sort(key=lambda setting: setting.point["layers"])
            panel.errorbar(
                [depths.index(setting.point["layers"]) for setting in line],
                [setting.test_bleu for setting in line],
                yerr=[setting.spread or 0.0 for setting in line],
                color=colour,
                marker=_MARKERS[index % len(_MARKERS)],
                capsize=3,
                label=label,
            )
        panel.set_xticks(range(len(depths)), [str(depth) for depth in depths])
        panel.set_xlim(-0.3, len(depths) - 0.7)
        panel.set_title(corpus, fontsize=10)
        panel.set_xlabel("layers of encoder and of decoder")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("test BLEU")
    _legend(made, styles, signature, "-")
    save(made, path)


def draw_time(found: Sequence[Setting], signature: str, path: Path) -> None:
    """Training time against test BLEU, a panel a corpus; the number at a point is its depth."""
    styles, axes = _styles(found), _other_axes(found)
    corpora = _corpora(found)
    made = figure(1.2 + 3.2 * len(corpora), 3.8)
    panels = made.subplots(1, len(corpora), sharex=True, squeeze=False)[0]
    for panel, corpus in zip(panels, corpora, strict=True):
        for setting in found:
            if not setting.results or setting.point["corpus"] != corpus:
                continue
            key = _other(setting, axes)
            place = (setting.seconds / 60, setting.test_bleu)
            marker = _MARKERS[list(styles).index(key) % len(_MARKERS)]
            panel.plot(*place, marker=marker, color=styles[key][0], linestyle="", markersize=7)
            panel.annotate(str(setting.point["layers"]), place, xytext=(6, 4), textcoords="offset points", fontsize=9)
        panel.margins(0.15)
        panel.set_title(corpus, fontsize=10)
        panel.set_xlabel("minutes of training")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("test BLEU")
    _legend(made, styles, signature, "")
    save(made, path)


def _legend(made: Any, styles: dict[tuple[Any, ...], tuple[str, str]], signature: str, linestyle: str) -> None:
    handles = [
        Line2D([], [], color=colour, linestyle=linestyle, marker=_MARKERS[index % len(_MARKERS)], label=label)
        for index, (colour, label) in enumerate(styles.values())
    ]
    made.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4), fontsize=8, frameon=False)
    made.suptitle(f"BLEU {signature}", fontsize=7, color="grey")


def draw_flow(log: FlowLog, path: Path) -> None:
    """Small multiples over the steps: a column for each stack and one for the other parts, a row for each figure."""
    columns = log.stacks()
    made = figure(1.2 + 3.4 * len(columns), 1.2 + 1.9 * len(ROWS))
    panels = made.subplots(len(ROWS), len(columns), sharex=True, sharey="row", squeeze=False)
    for column, (title, names) in enumerate(columns.items()):
        colours = _shades(len(names), ordered=title != OTHERS)
        for row, item in enumerate(ROWS):
            panel = panels[row][column]
            for name, colour in zip(names, colours, strict=True):
                _line(panel, log.parts[name].get(item, []), colour, name.removeprefix(f"{title} "))
            if not panel.lines:
                panel.set_axis_off()
                continue
            panel.grid(alpha=0.3)
            panel.tick_params(which="both", labelsize=8, labelbottom=True)
            if item != "saturation":
                panel.set_yscale("log")
        panels[0][column].set_title(title, fontsize=10)
        panels[0][column].legend(fontsize=7, ncols=2, framealpha=0.6, loc="best")
        shown = [panels[row][column] for row in range(len(ROWS)) if panels[row][column].axison]
        shown[-1].set_xlabel("step", fontsize=9)
    for row, label in enumerate(ROWS.values()):
        panels[row][0].set_ylabel(label, fontsize=9)
    panels[-1][0].set_ylim(0.0, None)
    save(made, path)


def _shades(count: int, ordered: bool) -> list[str | tuple[float, ...]]:
    """From dark (lowest layer) to light where there is an order."""
    if not ordered:
        return [COLOURS[index % len(COLOURS)] for index in range(count)]
    return [colormaps["viridis"](0.9 * index / max(1, count - 1)) for index in range(count)]


def _line(panel: Axes, series: Series, colour: str | tuple[float, ...], label: str) -> None:
    if series:
        steps, values = zip(*series, strict=True)
        panel.plot(steps, values, color=colour, linewidth=1.3, marker="o", markersize=2.5, label=label)
