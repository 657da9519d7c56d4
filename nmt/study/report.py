"""The reports of studies: Markdown with tables, figures beside it, and what can be concluded."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from nmt.errors import NMTError
from nmt.study.config import AblationStudy, DepthStudy, Study
from nmt.study.result import Outcome, Result
from nmt.study.summary import Noise, Setting, baseline, recommend, settings, varied
from nmt.study.verdict import rules


def write_report(study: DepthStudy | AblationStudy, outcomes: Sequence[Outcome], command: str) -> None:
    """Write the study's report and its figures from what is stored; cells without a result are shown as open or failed."""
    found = settings(outcomes)
    lines = _depth(study, found, outcomes) if isinstance(study, DepthStudy) else _ablation(study, found)
    results = [outcome.result for outcome in outcomes if outcome.result is not None]
    text = [*lines, *_unfinished(outcomes), *_conditions(study, results, command)]
    try:
        study.report.parent.mkdir(parents=True, exist_ok=True)
        partial = study.report.with_name(f".{study.report.name}.partial")
        partial.write_text("\n".join(text) + "\n", encoding="utf-8")
        partial.replace(study.report)
    except OSError as error:
        raise NMTError(f"{study.report}: the report could not be written ({error.strerror or error})") from None


# --- depth --------------------------------------------------------------------------------------------------------------


def _depth(study: DepthStudy, found: Sequence[Setting], outcomes: Sequence[Outcome]) -> list[str]:
    noise = Noise(found)
    lines = ["# When depth pays", "", _state(study, outcomes), "", "## What to train", ""]
    lines += [
        f"The choice is made on validation BLEU; differences are those of test BLEU. {noise} {_measured(found)}",
        "",
    ]
    for corpus in dict.fromkeys(setting.point["corpus"] for setting in found):
        lines += [f"### {corpus}", ""]
        lines += [f"- {line}" for line in recommend([s for s in found if s.point["corpus"] == corpus], noise)]
        lines += [""]
    lines += ["## Cells", "", *_depth_table(found), ""]
    lines += [
        f"{_fixed(found)}Difference: test BLEU less that of the single layer with all else equal. Minutes: training alone, without "
        "validation. Sentences/s: translation of the first test sentences right after training, at beam 1 and at beam 5, on the same "
        "device and threads.",
        "",
    ]
    lines += [*_figures(study, found), "## Over-fitting", "", rules(), "", *_verdict_table(found), ""]
    return lines


def _depth_table(found: Sequence[Setting]) -> list[str]:
    axes = [axis for axis in ("layers", *varied(found)) if axis in found[0].point]
    axes = list(dict.fromkeys(axes))
    head = [
        "corpus",
        "pairs",
        *axes,
        "seeds",
        "parameters",
        "tokens seen",
        "minutes",
        "tokens/s",
        "sentences/s (beam 1, 5)",
        "validation BLEU",
        "test BLEU",
        "difference",
        "verdict",
    ]
    rows = []
    for setting in found:
        place = [setting.point["corpus"], _pairs(setting), *(str(setting.point[axis]) for axis in axes)]
        if not setting.results:
            rows.append([*place, _status(setting), *[""] * (len(head) - len(place) - 1)])
            continue
        rows.append(
            [
                *place,
                _seeds(setting),
                f"{setting.mean(lambda r: r.parameters) / 1e6:.2f} M",
                f"{setting.mean(lambda r: r.tokens) / 1e6:.2f} M",
                f"{setting.seconds / 60:.1f}",
                f"{setting.mean(lambda r: r.tokens_per_second):,.0f}",
                ", ".join(f"{_speed(setting, beam):.0f}" for beam in ("1", "5")),
                f"{setting.validation_bleu:.2f}",
                _bleu(setting),
                _difference(setting, found),
                "; ".join(dict.fromkeys(result.verdict.short for result in setting.results)),
            ]
        )
    return _table(head, rows)


def _verdict_table(found: Sequence[Setting]) -> list[str]:
    head = [
        "cell",
        "verdict",
        "training loss",
        "validation loss",
        "gap",
        "lowest at step (epoch)",
        "rise since",
        "what to try",
    ]
    rows = []
    for result in (result for setting in found for result in setting.results):
        verdict, last = result.verdict, result.curve[-1]
        rows.append(
            [
                result.cell,
                verdict.kind,
                f"{last.train_loss:.3f}",
                f"{last.validation_loss:.3f}",
                f"{verdict.gap:.3f}",
                f"{verdict.lowest_step} ({verdict.lowest_epoch:.1f})",
                f"{verdict.rise:.3f}",
                verdict.advice,
            ]
        )
    return _table(head, rows)


def _figures(study: DepthStudy, found: Sequence[Setting]) -> list[str]:
    if not any(setting.results for setting in found):
        return []
    from nmt.study.charts import draw_bleu, draw_curves, draw_time

    names = {kind: study.report.with_name(f"{study.report.stem}-{kind}.png") for kind in ("bleu", "time", "curves")}
    signature = ", ".join(_signatures(found))
    draw_bleu(found, signature, names["bleu"])
    draw_time(found, signature, names["time"])
    draw_curves(found, names["curves"])
    titles = {
        "bleu": "Test BLEU against depth",
        "time": "Training time against test BLEU; the number at a point is its depth",
        "curves": "Loss on validation and on training pairs, in evaluation mode",
    }
    return [line for kind, path in names.items() for line in (f"![{titles[kind]}]({path.name})", "")]


# --- ablation -----------------------------------------------------------------------------------------------------------


def _ablation(study: AblationStudy, found: Sequence[Setting]) -> list[str]:
    noise = Noise(found)
    outcomes = [outcome for setting in found for outcome in setting.outcomes]
    lines = [f"# Ablation: {study.name}", "", _state(study, outcomes), ""]
    for corpus in dict.fromkeys(setting.point["corpus"] for setting in found):
        here = [setting for setting in found if setting.point["corpus"] == corpus]
        lines += [f"## {corpus}, {_pairs(here[0])} pairs", "", *_ablation_table(study, here, noise), ""]
    lines += [
        "Differences are to the base: each variant changes only what its row says. Loss: validation loss in nats per token at the best "
        f"checkpoint. Minutes: training alone, without validation. {noise} {_measured(found)}",
        "",
    ]
    return lines


def _ablation_table(study: AblationStudy, found: Sequence[Setting], noise: Noise) -> list[str]:
    head = [
        "variant",
        "change",
        "seeds",
        "validation BLEU",
        "test BLEU",
        "difference",
        "loss",
        "difference",
        "minutes",
        "time",
        "verdict",
    ]
    rows = []
    for setting in found:
        name = str(setting.point["variant"])
        change = ", ".join(f"`{key}: {_value(value)}`" for key, value in study.variants.get(name, {}).items())
        if not setting.results:
            rows.append([name, change, _status(setting), *[""] * (len(head) - 3)])
            continue
        base = baseline(setting, found)
        loss = setting.mean(lambda result: result.validation_loss)
        other = base if base is not None and base is not setting else None
        rows.append(
            [
                name,
                change,
                _seeds(setting),
                f"{setting.validation_bleu:.2f}",
                _bleu(setting),
                f"{setting.test_bleu - other.test_bleu:+.2f}{noise.remark(setting, other)}" if other else "",
                f"{loss:.3f}",
                f"{loss - other.mean(lambda result: result.validation_loss):+.3f}" if other else "",
                f"{setting.seconds / 60:.1f}",
                f"{setting.seconds / other.seconds:.2f}x" if other else "",
                "; ".join(dict.fromkeys(result.verdict.short for result in setting.results)),
            ]
        )
    return _table(head, rows)


# --- both ---------------------------------------------------------------------------------------------------------------


def _state(study: Study, outcomes: Sequence[Outcome]) -> str:
    done = sum(outcome.result is not None for outcome in outcomes)
    failed = sum(outcome.failure is not None and outcome.result is None for outcome in outcomes)
    left = len(outcomes) - done - failed
    state = f"{done} of {len(outcomes)} cells are finished"
    state += f", {failed} failed" if failed else ""
    state += f", {left} {'is' if left == 1 else 'are'} open" if left else ""
    train = outcomes[0].cell.config.train
    budget = f"{train.max_steps:,} updates of {train.accumulate * train.batch_tokens:,} tokens (padding included)"
    return f"Study `{study.name}`: {state}. Every cell has the same budget, {budget}."


def _unfinished(outcomes: Sequence[Outcome]) -> list[str]:
    waiting = [outcome for outcome in outcomes if outcome.result is None]
    if not waiting:
        return []
    lines = [f"- `{o.cell.name}`: " + (f"failed: {_cell_text(o.failure)}" if o.failure else "open") for o in waiting]
    return ["## Cells without a result", "", *lines, ""]


def _conditions(study: Study, results: Sequence[Result], command: str) -> list[str]:
    lines = ["## How it was measured", "", "```sh", command, "```", ""]
    for machine in dict.fromkeys(result.machine.model_dump_json() for result in results):
        used = next(result.machine for result in results if result.machine.model_dump_json() == machine)
        device = f"on {used.device}, " if used.device != "cpu" else ""
        lines.append(
            f"- {device}{used.processor}, {_count(used.cores, 'core')}, {_count(used.threads, 'thread')} a cell, {used.precision}, "
            f"{_count(used.at_once, 'cell')} at a time"
        )
    for versions in dict.fromkeys(tuple(result.versions.items()) for result in results):
        named = ", ".join(f"{name} {version}" for name, version in versions)
        lines += [f"- {named}"]
    lines.append("- times and rates are what these runs took, with whatever else the machine was doing")
    base = yaml.safe_dump(study.base, sort_keys=False, allow_unicode=True, width=100).rstrip()
    return [*lines, "", "The base of every cell:", "", "```yaml", base, "```"]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number != 1 else "")


def _measured(found: Sequence[Setting]) -> str:
    """The search and the signature that belong to every BLEU of the report."""
    results = [result for setting in found for result in setting.results]
    if not results:
        return ""
    sizes = ", ".join(f"{size:,}" for size in sorted({result.test_sentences for result in results}))
    text = f"Test BLEU: {results[0].search}, {sizes} sentences, `{'`, `'.join(_signatures(found))}`."
    validation = dict.fromkeys(
        (r.config["validation"]["beam_size"], r.validation_sentences, r.validation_signature) for r in results
    )
    for beam, sentences, signature in validation:
        text += f" Validation BLEU: best of the run, beam {beam}, {sentences:,} sentences, `{signature}`."
    return text


def _signatures(found: Sequence[Setting]) -> list[str]:
    return list(dict.fromkeys(result.test_signature for setting in found for result in setting.results))


def _fixed(found: Sequence[Setting]) -> str:
    """The axes that have one value all over."""
    fixed = [axis for axis in found[0].point if axis not in ("corpus", "layers", *varied(found))]
    return f"All cells: {found[0].words(fixed)}. " if fixed else ""


def _pairs(setting: Setting) -> str:
    if setting.results:
        return f"{setting.results[0].pairs:,}"
    pairs = setting.outcomes[0].cell.config.train.pairs
    return f"{pairs:,}" if pairs else "all"


def _seeds(setting: Setting) -> str:
    seeds = ", ".join(str(result.config["seed"]) for result in setting.results)
    left = len(setting.outcomes) - len(setting.results)
    return seeds + (f" ({left} not finished)" if left else "")


def _status(setting: Setting) -> str:
    return "failed" if any(outcome.failure for outcome in setting.outcomes) else "open"


def _bleu(setting: Setting) -> str:
    return f"{setting.test_bleu:.2f}" + (f" ± {setting.spread:.2f}" if setting.spread is not None else "")


def _difference(setting: Setting, found: Sequence[Setting]) -> str:
    single = baseline(setting, found)
    if single is None:
        return "baseline open"
    return "baseline" if single is setting else f"{setting.test_bleu - single.test_bleu:+.2f}"


def _speed(setting: Setting, beam: str) -> float:
    return setting.mean(lambda result: result.decode_speed[beam])


def _value(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()


def _cell_text(text: str | None) -> str:
    return " ".join((text or "").replace("|", r"\|").split())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]
