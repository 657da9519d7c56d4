"""Whether a run over-fits: a verdict from its curves of training and validation loss, and what to try."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from nmt.config import Section

Kind = Literal["too short", "diverges", "over-fits", "still improving", "under-fits", "converged"]

RISE = 0.02  # nats per token by which validation loss must have risen from its lowest to count as a rise
FALL = 0.02  # nats per token by which it must have fallen over the last quarter of the run to count as falling
SMALL_GAP = 0.1  # nats per token below which the model does no better on what it was trained on
WIDE_GAP = 0.5  # nats per token from which memorising is worth saying even while validation loss holds


class CurvePoint(Section):
    """One validation of a run; both losses are nats per target token in evaluation mode, on the averaged weights."""

    step: int
    epoch: float
    validation_loss: float
    train_loss: float
    bleu: float


class Verdict(Section):
    """What the curves say. `gap` is validation less training loss at the end, `rise` how far validation loss ended above its
    lowest value, which it had at `lowest_step`; all losses in nats per token."""

    kind: Kind
    gap: float
    lowest_step: int
    lowest_epoch: float
    rise: float
    advice: str

    @property
    def short(self) -> str:
        """A few words for a table."""
        return f"over-fits from step {self.lowest_step}" if self.kind == "over-fits" else self.kind

    def __str__(self) -> str:
        where = f"validation loss lowest at step {self.lowest_step} (epoch {self.lowest_epoch:.1f})"
        rise = f", {self.rise:.2f} nats higher at the end" if self.rise >= 0.005 else ""
        return f"{self.short}: gap {self.gap:.2f} nats per token, {where}{rise}; {self.advice}"


def rules() -> str:
    """How a verdict is reached, in words."""
    return (
        "The verdict compares the validation loss with the loss on a sample of the training pairs, both in evaluation mode, in nats per "
        f"token. Over-fits: validation loss ended more than {RISE:g} above its lowest while training loss went on falling (diverges: "
        f"while it didn't). Still improving: it fell by more than {FALL:g} over the last quarter. Under-fits: neither, and the gap is "
        f"below {SMALL_GAP:g}. Converged: neither, and the gap is wider."
    )


def judge(curve: Sequence[CurvePoint]) -> Verdict:
    """The verdict on a curve of at least one point; with fewer than three points it is "too short"."""
    last = curve[-1]
    lowest = min(curve, key=lambda point: point.validation_loss)
    rise = last.validation_loss - lowest.validation_loss
    gap = last.validation_loss - last.train_loss
    kind = _kind(curve, lowest, rise, gap)
    return Verdict(
        kind=kind,
        gap=round(gap, 4),
        lowest_step=lowest.step,
        lowest_epoch=round(lowest.epoch, 2),
        rise=round(rise, 4),
        advice=_advice(kind, lowest.step, gap),
    )


def _kind(curve: Sequence[CurvePoint], lowest: CurvePoint, rise: float, gap: float) -> Kind:
    last = curve[-1]
    if len(curve) < 3:
        return "too short"
    if rise > RISE:
        return "over-fits" if last.train_loss < lowest.train_loss else "diverges"
    before = max(
        (point for point in curve if point.step <= 0.75 * last.step), key=lambda point: point.step, default=None
    )
    if before is not None and before.validation_loss - last.validation_loss > FALL:
        return "still improving"
    return "under-fits" if gap < SMALL_GAP else "converged"


def _advice(kind: Kind, step: int, gap: float) -> str:
    if kind == "over-fits":
        return f"more dropout, more data, a smaller model, or stop at step {step}"
    if kind == "still improving":
        return "train longer" + (", with more dropout or data: the gap is wide" if gap > WIDE_GAP else "")
    if kind == "converged":
        return "more data or more dropout" if gap > WIDE_GAP else "more data; longer training alone won't help"
    return {
        "under-fits": "less dropout, a wider or deeper model, a higher learning rate",
        "diverges": "a lower learning rate or a longer warm-up: the training loss rises too",
        "too short": "validate more often (validation.every): three points at least",
    }[kind]
