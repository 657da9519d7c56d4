"""The translation model: `encode` a batch of source sentences, `decode` any number of target steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.errors import ConfigError
from nmt.model.attention import Attention
from nmt.model.config import ModelConfig, Wiring
from nmt.model.decoder import Decoder, DecoderState, GNMTDecoder, Memory
from nmt.model.deep import DeepDecoder, DeepEncoder
from nmt.model.dropout import Dropout, WordDropout
from nmt.model.encoder import Encoder
from nmt.model.initialise import initialise
from nmt.model.landmarks import BahdanauDecoder, LuongDecoder
from nmt.text.tokenizer import PAD

_DECODERS: dict[Wiring, Callable[[ModelConfig, int], Decoder]] = {
    "gnmt": GNMTDecoder,
    "deep": DeepDecoder,
    "luong": LuongDecoder,
    "bahdanau": BahdanauDecoder,
}


class Seq2Seq(nn.Module):
    """Deep recurrent encoder-decoder with attention. Search and serving know `encode`, `decode` and nothing else."""

    def __init__(self, config: ModelConfig, source_vocabulary: int, target_vocabulary: int) -> None:
        """Raise `ConfigError` when embeddings are to be tied across vocabularies that differ in size."""
        super().__init__()
        if config.tie_embeddings == "all" and source_vocabulary != target_vocabulary:
            raise ConfigError(
                f"tie_embeddings: all needs a joint vocabulary, but the sizes are {source_vocabulary} and "
                f"{target_vocabulary} (set tokenizer.joint: true in the recipe, or tie_embeddings: output)"
            )
        self.config = config
        width = config.embedding
        # Words enter with unit variance; where all weights are as published in +-u, they enter as they are.
        self.scale = 1.0 if isinstance(config.init, float) else width**0.5
        self.target_embedding = nn.Embedding(target_vocabulary, width, padding_idx=PAD)
        tied = config.tie_embeddings == "all"
        self.source_embedding = (
            self.target_embedding if tied else nn.Embedding(source_vocabulary, width, padding_idx=PAD)
        )
        for embedding in (self.target_embedding, self.source_embedding):
            nn.init.normal_(embedding.weight, std=width**-0.5)  # logits begin near zero, the loss near log V
        self.output = (
            self.target_embedding.weight
            if config.tie_embeddings != "none"
            else nn.Parameter(torch.randn(target_vocabulary, width) * width**-0.5)
        )
        self.output_bias = nn.Parameter(torch.zeros(target_vocabulary))
        self.encoder = (
            DeepEncoder(config) if config.wiring == "deep" else Encoder(config.encoder, width, config.dropout.layer)
        )
        self.decoder = _DECODERS[config.wiring](config, self.encoder.width)
        self.word_dropout = WordDropout(config.dropout.word)
        self.embedding_dropout = Dropout(config.dropout.embedding)
        if config.init != "orthogonal":  # what every part draws by itself
            initialise(self, config.init)

    @property
    def device(self) -> torch.device:
        """Where the model is, and ids are expected."""
        return self.output_bias.device

    @property
    def steady(self) -> bool:
        """Whether the decoder's state has one size at every step."""
        return self.decoder.steady

    @property
    def vocabulary(self) -> int:
        """Target tokens."""
        return len(self.output_bias)

    def attentions(self) -> Sequence[Sequence[Attention]]:
        """The decoder's, lowest first, as the only member's of an ensemble."""
        return [list(self.decoder.attentions())]

    def encode(self, source: Tensor, lengths: Tensor) -> Memory:
        """Encode `source` ids (B, S), right-padded, of `lengths` (B,), end marks included."""
        mask = torch.arange(source.shape[1], device=source.device) < lengths[:, None]  # (B, S)
        encoded = self.encoder(self._embed(self.source_embedding, source), lengths)
        return self.decoder.remember(encoded, mask)

    def decode_vectors(self, target: Tensor, memory: Memory, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """As `decode`, but the vectors (B, T, E) that meet the vocabulary instead of the logits."""
        vectors: tuple[Tensor, DecoderState] = self.decoder(self._embed(self.target_embedding, target), memory, state)
        return vectors

    def decode(self, target: Tensor, memory: Memory, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Logits (B, T, V) after each of the `target` ids (B, T), and the state after the last; T = 1 is a search step."""
        vectors, state = self.decode_vectors(target, memory, state)
        return self.logits(vectors), state

    def logits(self, vectors: Tensor) -> Tensor:
        """Scores over the vocabulary (..., V) of `vectors` (..., E)."""
        return F.linear(vectors, self.output, self.output_bias)

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        """Teacher forcing: the vectors (B, T, E) after each of the `target` ids (B, T), which begin with the begin mark."""
        memory = self.encode(source, lengths)
        return self.decode_vectors(target, memory, memory.state)[0]

    def _embed(self, embedding: nn.Embedding, ids: Tensor) -> Tensor:
        x = embedding(ids) * self.scale  # (B, S, E)
        return self.embedding_dropout(self.word_dropout(x))  # type: ignore[no-any-return]
