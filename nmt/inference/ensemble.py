"""Ensembles: several models that search takes for one, which says what they say on average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from nmt.errors import ConfigError
from nmt.model.attention import Attention
from nmt.model.decoder import DecoderState, Memory
from nmt.model.seq2seq import Seq2Seq


@dataclass(frozen=True)
class EnsembleState:
    """The decoder state of every member."""

    members: tuple[DecoderState, ...]

    def select(self, rows: Tensor) -> EnsembleState:
        """The states of `rows` (N,) of the batch."""
        return EnsembleState(tuple(member.select(rows) for member in self.members))

    def joined(self, other: EnsembleState) -> EnsembleState:
        """The rows of both, one after the other."""
        return EnsembleState(tuple(mine.joined(its) for mine, its in zip(self.members, other.members, strict=True)))


@dataclass(frozen=True)
class EnsembleMemory:
    """The memory of every member."""

    members: tuple[Memory, ...]

    @property
    def state(self) -> EnsembleState:
        """The first states."""
        return EnsembleState(tuple(member.state for member in self.members))

    def select(self, rows: Tensor) -> EnsembleMemory:
        """The memories of `rows` (N,) of the batch."""
        return EnsembleMemory(tuple(member.select(rows) for member in self.members))

    @property
    def mask(self) -> Tensor:
        """Which source steps (B, S) are real, the same for all members."""
        return self.members[0].mask

    def widened(self, steps: int) -> EnsembleMemory:
        """The same with room for so many source steps."""
        return EnsembleMemory(tuple(member.widened(steps) for member in self.members))

    def joined(self, other: EnsembleMemory) -> EnsembleMemory:
        """The rows of both, one after the other."""
        return EnsembleMemory(tuple(mine.joined(its) for mine, its in zip(self.members, other.members, strict=True)))


class Ensemble(nn.Module):
    """Models of any shape over the same vocabularies, decoded together: P(y | ...) = 1/N sum_n P_n(y | ...).

    It is probabilities that are averaged, not their logarithms, as in Sutskever et al. (2014): a word needs one member that is sure
    of it, not the consent of all. Every member sees the same target words and keeps a state of its own.
    """

    def __init__(self, members: Sequence[Seq2Seq]) -> None:
        """Raise `ConfigError` when the vocabularies differ in size."""
        super().__init__()
        sizes = {(member.source_embedding.num_embeddings, len(member.output)) for member in members}
        if len(sizes) != 1:
            found = " and ".join(f"{source} / {target}" for source, target in sorted(sizes)) or "none"
            raise ConfigError(f"an ensemble needs models with one pair of vocabularies, found sizes {found}")
        self.members = cast(Sequence[Seq2Seq], nn.ModuleList(members))

    @property
    def device(self) -> torch.device:
        """Where the members are, and ids are expected."""
        return self.members[0].device

    @property
    def steady(self) -> bool:
        """Whether the state has one size at every step."""
        return all(member.steady for member in self.members)

    @property
    def vocabulary(self) -> int:
        """Target tokens."""
        return self.members[0].vocabulary

    def attentions(self) -> Sequence[Sequence[Attention]]:
        """Every member's."""
        return [member.attentions()[0] for member in self.members]

    def encode(self, source: Tensor, lengths: Tensor) -> EnsembleMemory:
        """Encode `source` ids (B, S), right-padded, of `lengths` (B,), end marks included, by every member."""
        return EnsembleMemory(tuple(member.encode(source, lengths) for member in self.members))

    def decode(self, target: Tensor, memory: EnsembleMemory, state: EnsembleState) -> tuple[Tensor, EnsembleState]:
        """Logarithms (B, T, V) of the mean probabilities after each of the `target` ids (B, T), and the states after the last."""
        logits, states = zip(
            *(
                member.decode(target, its_memory, its_state)
                for member, its_memory, its_state in zip(self.members, memory.members, state.members, strict=True)
            ),
            strict=True,
        )
        log_p = torch.stack([torch.log_softmax(each.float(), dim=-1) for each in logits])  # (N, B, T, V)
        return torch.logsumexp(log_p, dim=0) - math.log(len(log_p)), EnsembleState(states)
