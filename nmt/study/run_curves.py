"""The curves of a training run as HTML: what the log says over the steps, of the whole and of each layer."""

from __future__ import annotations

from html import escape

from nmt.pages import folded, table
from nmt.study import flow
from nmt.study.drawing import colour
from nmt.study.line_chart import Chart, Line, chart, keys, shade
from nmt.study.run_log import Run


def curves(run: Run) -> str:
    """Losses, scores, learning rate, gradient norm, throughput and memory over the steps, and the validations in numbers."""
    log, end = run.log, run.log.last_step
    validation = log.series("validation", "loss")
    lowest = min(validation, key=lambda point: point[1], default=None)
    limit = run.config.optimizer.clip_norm
    charts = [
        Chart(
            "Loss",
            "nats per token",
            [
                Line("training", log.series("train", "nll"), "var(--soft)"),
                Line("training, no dropout", log.series("validation", "train_loss"), colour(1)),
                Line("validation", validation, colour(0)),
            ],
            end,
            note="Without label smoothing. A ring marks the best value.",
            focus=True,
            ring=(*lowest, f"lowest validation loss, step {lowest[0]:,}: {lowest[1]:.3f}") if lowest else None,
        ),
        *(_score_chart(run, name, title, end) for name, title in (("bleu", "BLEU"), ("chrf", "chrF2"))),
        Chart("Learning rate", "", [Line("learning rate", log.series("train", "lr"), colour(2))], end),
        Chart(
            "Gradient norm",
            "before clipping",
            [
                Line("norm", log.series("train", "gradient_norm"), colour(4)),
                Line("clipped to", [(0, limit), (end, limit)], "var(--soft)", dashed=True),
            ],
            end,
            log=True,
        ),
        Chart(
            "Throughput", "tokens a second", [Line("rate", log.series("train", "tokens_per_second"), colour(3))], end
        ),
        Chart("Memory", "GB", [Line("memory", log.series("train", "memory_gb"), colour(5))], end),
    ]
    drawn = "".join(map(chart, charts))
    return f'<div class="charts">{drawn}</div>{_validations(run)}' if drawn else ""


def _score_chart(run: Run, name: str, title: str, end: int) -> Chart:
    scores = run.log.scores(name)
    best = max(scores, key=lambda point: point[1], default=None)
    ring = (*best, f"highest {title}, step {best[0]:,}: {best[1]:.2f}") if best else None
    line = Line(title, scores, colour(0 if name == "bleu" else 2))
    return Chart(f"Validation {title}", "", [line], end, note=_signatures(run, name), ring=ring)


def _signatures(run: Run, name: str) -> str:
    found = (record.get(f"{name}_signature") for record in run.log.of("validation"))
    return ", ".join(f"<code>{escape(text)}</code>" for text in dict.fromkeys(found) if isinstance(text, str))


def _validations(run: Run) -> str:
    """The numbers of every validation, as a table that folds away."""
    columns = {key: dict(run.log.series("validation", key)) for key in ("loss", "train_loss", "seconds")}
    columns |= {name: dict(run.log.scores(name)) for name in ("bleu", "chrf")}
    forms = {"loss": ".4f", "train_loss": ".4f", "bleu": ".2f", "chrf": ".2f", "seconds": ".0f"}
    rows = []
    for step in dict.fromkeys(record["step"] for record in run.log.of("validation")):
        cells = [f"{step:,}", f"{run.log.epoch(step):.2f}"]
        cells += (f"{columns[key][step]:{form}}" if step in columns[key] else "" for key, form in forms.items())
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    if not rows:
        return ""
    heads = ("step", "epoch", "validation loss", "on training pairs", "BLEU", "chrF2", "seconds")
    signed = "; ".join(f"{title}: {_signatures(run, name)}" for name, title in (("bleu", "BLEU"), ("chrf", "chrF2")))
    return folded(
        f"the {len(rows)} validations in numbers", table("numbers", heads, rows) + f"<p><small>{signed}</small></p>"
    )


def health(run: Run) -> str:
    """Each stack's gradients, updates and gates over the steps, and the last record as a table; empty where the log has none."""
    found = flow.health(run.log)
    if not found.parts:
        return ""
    made = []
    several = len({record["step"] for record in run.log.of("health")}) > 1
    for stack, names in found.stacks().items() if several else ():
        colours = [colour(i) if stack == flow.OTHERS else shade(i, len(names)) for i in range(len(names))]
        shown = [name.removeprefix(f"{stack} ") for name in names]
        charts = [
            Chart(
                title.replace("\n", " "),
                "",
                [
                    Line(short, found.parts[name].get(item, []), c)
                    for name, short, c in zip(names, shown, colours, strict=True)
                ],
                run.log.last_step,
                log=item != "saturation",
                keys=False,
                size=(300, 190),
            )
            for item, title in flow.ROWS.items()
        ]
        legend = keys([Line(short, [], c) for short, c in zip(shown, colours, strict=True)])
        made.append(f'<h3>{escape(stack)}</h3>{legend}<div class="charts small">{"".join(map(chart, charts))}</div>')
    return "".join(made) + f"<h3>The last record</h3><pre>{escape(found.render())}</pre>"
