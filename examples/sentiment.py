"""Many to one: a stack of recurrent layers reads a review and says, after its last word, whether it is positive.

    python examples/sentiment.py --output runs/sentiment

The reviews are generated (`nmt.corpus.reviews`), such as "Audio is bad, display is great, overall I am happy.": negations turn clauses
round, and which clause decides depends on words anywhere in the review. Two layers are compared with one layer of the same
width and with one layer of as many parameters, because whatever is larger tends to be better. All of them train on the same
batches, from several seeds: a difference that comes and goes with the seed is none.

Writes `accuracy.png`, the course of training, and `grid.png`, what each layer of the stack holds at each word (H_t^L).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn
from tqdm import tqdm

from nmt import figures
from nmt.corpus.reviews import Review, reviews
from nmt.errors import NMTError
from nmt.model.config import StackConfig
from nmt.model.rnn import StackedRNN

SHAPES = {  # the first is compared with the others
    "two layers": StackConfig(layers=2, hidden=32),
    "one layer of that width": StackConfig(layers=1, hidden=32),
    "one layer of that size": StackConfig(layers=1, hidden=50),
}
EMBEDDING, BATCH, RATE = 32, 128, 0.02

Data = tuple[Tensor, Tensor, Tensor]  # word ids (N, S) padded with 0, lengths (N,), whether positive (N,)
Course = list[tuple[int, float]]  # updates made, % of the held-out reviews classified right


class Classifier(nn.Module):
    """Embedding, recurrent stack, and a linear judge of the last state of the top layer."""

    def __init__(self, stack: StackConfig, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, EMBEDDING)
        self.stack = StackedRNN(stack, EMBEDDING, return_sequences=False, return_grid=True)
        self.judge = nn.Linear(stack.widths[-1], 1)

    def forward(self, words: Tensor, lengths: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits (B,) of being positive for `words` (B, S), and the states (B, S, H) of every layer."""
        states = self.stack(self.embedding(words), lengths)
        return self.judge(states.output).squeeze(-1), states.grid


def encode(texts: Sequence[Review], ids: dict[str, int]) -> Data:
    lengths = torch.tensor([len(review.words) for review in texts])
    words = torch.zeros(len(texts), int(lengths.max()), dtype=torch.long)
    for row, review in enumerate(texts):
        words[row, : len(review.words)] = torch.tensor([ids.get(word, 0) for word in review.words])
    return words, lengths, torch.tensor([review.positive for review in texts])


def accuracy(model: Classifier, data: Data) -> float:
    """The share of `data` classified right, in percent."""
    words, lengths, positive = data
    with torch.no_grad():
        logits, _ = model(words, lengths)
    return 100 * float(((logits > 0) == positive).float().mean())


def train(model: Classifier, training: Data, held_out: Data, steps: int, seed: int) -> Course:
    """Adam on batches of reviews of like length, the same for every model; the learning rate rises and falls once."""
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    course = []
    for step in tqdm(range(1, steps + 1), f"seed {seed}", leave=False, disable=None):
        first = int(torch.randint(max(1, len(training[0]) - BATCH), (), generator=draw))
        words, lengths, positive = (part[first : first + BATCH] for part in training)
        logits, _ = model(words[:, : lengths.max()], lengths)
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.binary_cross_entropy_with_logits(logits, positive.float()))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step == steps or step % (steps // 10) == 0:
            course.append((step, accuracy(model, held_out)))
    return course


def draw_courses(courses: dict[str, list[Course]], path: Path) -> None:
    """Held-out accuracy over updates: a thin line for every run, a thick one for their mean."""
    made = figures.figure()
    axes = made.subplots()
    for colour, (name, runs) in zip(figures.COLOURS, courses.items(), strict=False):
        updates, right = torch.tensor(runs).numpy().transpose(2, 1, 0)  # (checks, runs) each
        axes.plot(updates, right, color=colour, linewidth=0.7, alpha=0.7)
        axes.plot(updates[:, 0], right.mean(1), color=colour, linewidth=2.5, label=name)
    axes.axhline(50, color="grey", linestyle=":", label="chance")
    axes.set(
        xlabel="updates", ylabel="held-out reviews classified right, %", title="Every run (thin) and their mean (thick)"
    )
    axes.legend(frameon=False)
    figures.save(made, path)


def draw_grid(model: Classifier, review: Review, ids: dict[str, int], path: Path) -> None:
    """H_t^L of one review, the top layer on top; below, what the judge would say if the review ended at that word."""
    words, lengths, _ = encode([review], ids)
    with torch.no_grad():
        _, grid = model(words, lengths)
        judged = model.judge(grid[-1])[0, :, 0].sigmoid().numpy()
    made = figures.figure(10, 7)
    *upper, below = made.subplots(len(grid) + 1, 1, sharex=True)
    for axes, number in zip(upper, range(len(grid), 0, -1), strict=True):
        states = grid[number - 1][0].T.numpy()  # (H, S)
        peak = abs(states).max()
        made.colorbar(axes.imshow(states, aspect="auto", cmap="RdBu", vmin=-peak, vmax=peak), ax=axes)
        axes.set_ylabel(f"layer {number}, units")
    for clause in review.clauses:
        colour = figures.COLOURS[0 if clause.positive else 1]
        below.axvspan(clause.start - 0.5, clause.end - 0.5, color=colour, alpha=0.25)
    below.plot(judged, color="black", marker="o")
    upper[0].set_title("States, and the judgement after each word (blue: a positive clause, orange: a negative one)")
    below.set(ylabel="judged positive", ylim=(-0.05, 1.05))
    below.set_xticks(range(len(review.words)), review.words, rotation=60, ha="right", rotation_mode="anchor")
    figures.save(made, path)


def conclusion(courses: dict[str, list[Course]]) -> str:
    """What these runs show and no more: a difference counts where every seed has it."""
    (name, stack), *baselines = [(name, torch.tensor([run[-1][1] for run in runs])) for name, runs in courses.items()]
    said = []
    for baseline, final in baselines:
        gains = stack - final
        shown = "better" if (gains > 0).all() else "worse" if (gains < 0).all() else "neither better nor worse"
        if len(gains) == 1:
            shown = "which one run cannot settle"
        spread = f"{gains.min():+.1f} to {gains.max():+.1f}"
        said.append(f"{name} against {baseline}: {gains.mean():+.1f} points ({spread}), {shown}")
    return "\n".join(said)


def compare(options: argparse.Namespace) -> None:
    """Train every shape from every seed; print the table and what follows from it, and draw."""
    made = reviews(options.reviews, options.seed)
    held_out, training = made[: len(made) // 10], made[len(made) // 10 :]
    training.sort(key=lambda review: len(review.words))  # so that neighbours make a batch with little padding
    words = sorted({word for review in training for word in review.words})
    ids = {word: number for number, word in enumerate(words, 1)}  # 0 is padding, and a word never seen
    seen, unseen = encode(training, ids), encode(held_out, ids)
    models: dict[str, Classifier] = {}
    courses: dict[str, list[Course]] = {}
    print(f"{'':<24} layers  width  parameters  training %  held out %  seconds")
    for name, shape in SHAPES.items():
        started, fitted = time.process_time(), []
        for seed in range(options.seed, options.seed + options.runs):
            torch.manual_seed(seed)
            model = models[name] = Classifier(shape, len(ids) + 1)
            courses.setdefault(name, []).append(train(model, seen, unseen, options.steps, seed))
            fitted.append(accuracy(model, seen))
        size = sum(parameter.numel() for parameter in model.parameters())
        final, seconds = mean(run[-1][1] for run in courses[name]), (time.process_time() - started) / options.runs
        row = f"{shape.layers:6} {shape.hidden:6} {size:11} {mean(fitted):11.1f} {final:11.1f} {seconds:8.1f}"
        print(f"{name:<24} {row}")
    print(f"Means over {options.runs} seeds; seconds are processor time. On held-out reviews:\n{conclusion(courses)}")
    draw_courses(courses, options.output / "accuracy.png")
    shown = next((review for review in held_out if {"but", "not"} <= set(review.words)), held_out[0])
    draw_grid(models["two layers"], shown, ids, options.output / "grid.png")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("runs/sentiment"), help="folder of the figures")
    parser.add_argument("--reviews", type=int, default=10000, help="how many, of which a tenth is held out")
    parser.add_argument("--steps", type=int, default=500, help="updates of a run")
    parser.add_argument("--runs", type=int, default=2, help="runs of every shape, from seeds --seed, --seed + 1, ...")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.reviews < 50 or options.steps < 10 or options.runs < 1:
        parser.error("at least 50 reviews, 10 steps and 1 run are needed")
    try:
        options.output.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    except OSError as error:
        parser.error(f"--output: {error}")
    torch.set_num_threads(1)  # on tensors this small more threads only wait for each other
    try:
        compare(options)
    except NMTError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
