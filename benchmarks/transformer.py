"""A Transformer of torch.nn's layers in the place of the recurrent encoder and decoder, everything else equal.

    python benchmarks/transformer.py tatoeba-en-de --run runs/transformer
    python benchmarks/transformer.py multi30k-en-de --run runs/tiny --layers 4 --width 128 --ff 256 \\
        --set 'model.dropout={embedding: 0.3, layer: 0.3}' optimizer.lr=5e-3 train.max_steps=2500

Corpus, batches, loss, optimiser, number of updates, moving average, validation and search are those of the configuration; so are the
embeddings, tied as it says, with their dropout and word dropout. `model.dropout.layer` is the Transformer's. The schedule is
inverse_sqrt, as is usual for Transformers, unless --set says another.

Without --width the model is as wide as the embeddings, without --ff it gets as many parameters as the recurrent model of the
configuration. The second command is the published Transformer-tiny of Multi30k (Wu et al. 2021: 4 layers, 128 units, 4 heads, 256
inner units, dropout 0.3).

Prints JSON: parameters of both models, updates, training subwords seen, scores on the test split with their signatures (13a, and
tok-lc where sacremoses is there). A run that was stopped goes on with the same command; --score-only scores what it has. Search
computes the prefix anew at each step, so nothing here says how fast Transformers translate. The run folder is not for `nmt bundle`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import nmt
from nmt.config import find_shipped, load
from nmt.corpus.store import PreparedCorpus
from nmt.errors import CheckpointError, ConfigError, NMTError
from nmt.evaluation.evaluate import TestSet, evaluate
from nmt.evaluation.scores import Moses
from nmt.inference.bundle import ModelInfo
from nmt.inference.output import Vocabularies
from nmt.inference.torch_backend import TorchBackend
from nmt.inference.translator import Translator
from nmt.inference.types import DecodeOptions
from nmt.model.decoder import Decoder, DecoderState, Memory
from nmt.model.seq2seq import Seq2Seq
from nmt.study.cell import tokens_by_step
from nmt.training.checkpoint import averaged_weights
from nmt.training.config import RunConfig
from nmt.training.trainer import Interrupted, Trainer

DEFAULTS = ("optimizer.schedule=inverse_sqrt",)


@dataclass(frozen=True)
class Shape:
    """Layers of encoder and of decoder, width (None: the embeddings'), heads, inner width (None: equal parameters)."""

    layers: int = 6
    width: int | None = None
    heads: int = 4
    inner: int | None = None


def sinusoids(steps: int, width: int, device: torch.device) -> Tensor:
    """Position encodings (steps, width) of Vaswani 2017, section 3.5, sines in the first half and cosines in the second."""
    rates = 10000.0 ** (-torch.arange(0, width, 2, device=device) / width)
    angles = torch.arange(steps, device=device)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=1)[:, :width]


class TransformerEncoder(nn.Module):
    """Pre-LN self-attention layers in the place of the recurrent stack."""

    def __init__(self, width: int, shape: Shape, inner: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        layer = nn.TransformerEncoderLayer(width, shape.heads, inner, dropout, batch_first=True, norm_first=True)
        self.stack = nn.TransformerEncoder(layer, shape.layers, nn.LayerNorm(width), enable_nested_tensor=False)
        _draw(self)

    def forward(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Outputs (B, S, E) for `embedded` (B, S, E) with `lengths` (B,) real steps."""
        steps = embedded.shape[1]
        x = embedded + sinusoids(steps, self.width, embedded.device)
        padding = torch.arange(steps, device=lengths.device) >= lengths[:, None]  # (B, S)
        return self.stack(x, src_key_padding_mask=padding)  # type: ignore[no-any-return]


class TransformerDecoder(Decoder):
    """Pre-LN layers of masked self-attention, attention over the encoder and feed-forward. Its state is the embedded prefix."""

    steady = False

    def __init__(self, width: int, shape: Shape, inner: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        layer = nn.TransformerDecoderLayer(width, shape.heads, inner, dropout, batch_first=True, norm_first=True)
        self.stack = nn.TransformerDecoder(layer, shape.layers, nn.LayerNorm(width))
        _draw(self)

    def remember(self, encoded: Tensor, mask: Tensor) -> Memory:
        """The encoder's outputs (B, S, E) as they are, and an empty prefix."""
        return Memory((encoded,), (), mask, DecoderState(((encoded.new_zeros(len(encoded), 0, self.width),),)))

    def forward(self, embedded: Tensor, memory: Memory, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """As `Decoder.forward`: the vectors of the T new steps, each of which sees those before it and the prefix."""
        prefix = torch.cat((state.layers[0][0], embedded), dim=1)
        steps = prefix.shape[1]
        future = torch.ones(steps, steps, dtype=torch.bool, device=prefix.device).triu(1)
        output = self.stack(
            prefix + sinusoids(steps, self.width, prefix.device),
            memory.keys[0],
            tgt_mask=future,
            tgt_is_causal=True,
            memory_key_padding_mask=~memory.mask,
        )
        return output[:, steps - embedded.shape[1] :], DecoderState(((prefix,),))


def _draw(stack: nn.Module) -> None:
    """Glorot-uniform matrices, as torch.nn.Transformer draws them; a stack's layers begin as copies of one."""
    for parameter in stack.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)


def make_transformer(config: RunConfig, shape: Shape, vocabularies: tuple[int, int]) -> Seq2Seq:
    """A `Seq2Seq` whose encoder and decoder are a Transformer's; raise `ConfigError` for a shape that can't be."""
    width = shape.width or config.model.embedding
    if width % shape.heads or min(shape.layers, shape.heads, width) < 1:
        raise ConfigError(f"--heads {shape.heads} does not divide the width {width}, or a number is below 1")
    inner = shape.inner or _matching(config, shape, width, vocabularies)
    dropout = config.model.dropout.layer
    model = Seq2Seq(config.model.model_copy(update={"embedding": width}), *vocabularies)
    model.encoder = TransformerEncoder(width, shape, inner, dropout)  # type: ignore[assignment]
    model.decoder = TransformerDecoder(width, shape, inner, dropout)
    return model


def _matching(config: RunConfig, shape: Shape, width: int, vocabularies: tuple[int, int]) -> int:
    """The inner width with which the Transformer has as many parameters as the recurrent model."""
    with torch.device("meta"):
        wanted = parameters(Seq2Seq(config.model, *vocabularies))
        least = parameters(make_transformer(config, Shape(shape.layers, width, shape.heads, 1), vocabularies))
    inner = round((wanted - least) / (2 * shape.layers * (2 * width + 1)) / 8) * 8  # as kernels like it
    if inner < width // 4:
        raise ConfigError(
            f"{shape.layers} layers of width {width} leave no room for feed-forward blocks in {wanted:,} parameters: take fewer "
            "--layers, a smaller --width, or give --ff"
        )
    return inner


def parameters(model: nn.Module) -> int:
    """How many numbers the model has, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def make_trainer(config: RunConfig, shape: Shape) -> Trainer:
    """A trainer of the Transformer, at the last checkpoint of the run folder."""
    torch.manual_seed(config.seed)
    vocabulary = PreparedCorpus.open(config.corpus).manifest["vocabulary"]
    return Trainer(config, model=make_transformer(config, shape, (vocabulary["source"], vocabulary["target"])))


def best_translator(trainer: Trainer) -> Translator:
    """A translator by the averaged weights of the run's best checkpoint."""
    best = trainer.checkpoints.best() or trainer.progress.step
    if not best:
        raise CheckpointError(f"{trainer.config.run}: no checkpoint to score: train first")
    weights = averaged_weights(trainer.checkpoints.load(best)[0])
    model, corpus = trainer.average.model, trainer.corpus
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    info = ModelInfo("transformer", *corpus.languages, "", parameters(model), "Transformer", [], "")
    vocabularies = Vocabularies(corpus.source_tokenizer, corpus.target_tokenizer)
    return Translator(
        TorchBackend(model), vocabularies, info, DecodeOptions(), corpus.manifest["lengths"]["source"]["0.999"]
    )


def seen_subwords(trainer: Trainer) -> int:
    """Source and target subwords of all training batches so far, end marks included."""
    return sum(tokens_by_step(trainer.batches, trainer.config.train.accumulate, trainer.progress.step))


def moses_of(language: str) -> Moses | None:
    """Moses' rules of the language, None where sacremoses is not installed."""
    try:
        return Moses(language)
    except ConfigError:
        return None


def report(trainer: Trainer) -> dict[str, Any]:
    """What a finished run is reported by."""
    corpus, translator = trainer.corpus, best_translator(trainer)
    moses, search = moses_of(corpus.languages[1]), translator.defaults
    result = evaluate(
        lambda texts: [item.text for item in translator.translate(texts)],
        TestSet.of_pairs(f"{corpus.manifest['recipe']['name']} test", corpus.pairs("test")),
        f"beam {search.beam_size}, length penalty {search.length_penalty:g}",
        moses=moses,
    )
    vocabulary = corpus.manifest["vocabulary"]
    with torch.device("meta"):
        recurrent = Seq2Seq(trainer.config.model, vocabulary["source"], vocabulary["target"])
    return {
        "parameters": parameters(trainer.model),
        "parameters of the recurrent model": parameters(recurrent),
        "updates": trainer.progress.step,
        "subwords seen": seen_subwords(trainer),
        "scores": result.records(),
        **({} if moses else {"note": "no tok-lc: sacremoses is not installed"}),
        "versions": {"strata-nmt": nmt.__version__, "torch": torch.__version__},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description="Train and score a Transformer in the place of a recurrent model.")
    parser.add_argument("config", help="a training configuration, or the name of a shipped one")
    parser.add_argument("--run", required=True, type=Path, metavar="FOLDER", help="the run folder")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="override settings")
    parser.add_argument("--layers", type=int, default=6, help="of encoder and of decoder each")
    parser.add_argument("--width", type=int, help="default: model.embedding of the configuration")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--ff", type=int, help="inner width; default: as many parameters as the recurrent model has")
    parser.add_argument("--score-only", action="store_true", help="no training: score the best checkpoint")
    options = parser.parse_args(arguments)
    try:
        config = load(
            RunConfig, find_shipped(options.config, "configs"), [*DEFAULTS, *options.set, f"run={options.run}"]
        )
        trainer = make_trainer(config, Shape(options.layers, options.width, options.heads, options.ff))
        if not options.score_only:
            # On a CPU the plain products: their gradient takes a third of the fused kernel's time at the lengths of sentences.
            plain = sdpa_kernel(SDPBackend.MATH) if trainer.device.type == "cpu" else contextlib.nullcontext()
            with plain:
                trainer.run()
        print(json.dumps(report(trainer), indent=1))
    except Interrupted as stopped:
        print(f"{stopped}", file=sys.stderr)
        return 130
    except NMTError as error:
        print(f"transformer.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
