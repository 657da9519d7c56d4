"""The PyTorch backend: a model out of the weights of a bundle, tied weights restored."""

from __future__ import annotations

import torch

from nmt.errors import BundleError
from nmt.inference.bundle import WEIGHTS, Bundle
from nmt.inference.weights import read_weights
from nmt.model.seq2seq import Seq2Seq


def load_model(bundle: Bundle, threads: int | None = None, device: str = "cpu") -> Seq2Seq:
    """The bundle's model in fp32, ready to search; `threads` sets PyTorch's for the whole process."""
    if threads is not None:
        torch.set_num_threads(threads)
    with torch.device("meta"):
        model = Seq2Seq(bundle.config.model, len(bundle.source_tokenizer), len(bundle.target_tokenizer))
    tensors = read_weights(bundle.path / WEIGHTS)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if expected != {name: tuple(value.shape) for name, value in with_ties(model, tensors).items()}:
        raise BundleError(f"{bundle.path / WEIGHTS}: its tensors are not those of the model that config.yaml describes")
    model.load_state_dict(with_ties(model, tensors), assign=True)
    retie(model)
    return model.requires_grad_(False).to(device).eval()


def without_ties(model: Seq2Seq, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`tensors` of a state dict without the second and third names of tied weights: what is worth storing."""
    return {name: value for name, value in tensors.items() if name not in _ties(model)}


def with_ties(model: Seq2Seq, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict with the names that `without_ties` left out."""
    table = tensors.get("output")
    return tensors | (dict.fromkeys(_ties(model), table) if table is not None else {})


def retie(model: Seq2Seq) -> None:
    """Make tied weights one parameter again after loading."""
    if model.config.tie_embeddings != "none":
        model.target_embedding.weight = model.output
    if model.config.tie_embeddings == "all":
        model.source_embedding = model.target_embedding


def _ties(model: Seq2Seq) -> tuple[str, ...]:
    embeddings = ("target_embedding.weight", "source_embedding.weight")
    names = {"none": (), "output": embeddings[:1], "all": embeddings}
    return names[model.config.tie_embeddings]
