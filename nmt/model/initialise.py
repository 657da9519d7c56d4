"""Initial weights. Deep recurrent stacks train from orthogonal recurrent weights; the landmarks were published with uniform ones."""

from __future__ import annotations

import torch
from torch import nn

from nmt.model.attention import AdditiveAttention
from nmt.model.config import Initialisation


def initialise(module: nn.Module, scheme: Initialisation) -> None:
    """Draw the weights of `module` and of all within it.

    "orthogonal": each gate's recurrent weights orthogonal (Saxe et al. 2014), its input weights Glorot-uniform (Glorot and Bengio
    2010), an LSTM's forget bias 1 (Jozefowicz et al. 2015), other recurrent biases 0. "uniform": the same with input weights in
    +-1/sqrt(H). Both leave what is not recurrent as its own class made it. A number u: every weight in +-u and
    recurrent biases 0, as published for Sutskever 2014 (0.08), GNMT v2 (0.1), RNMT+ (0.04); what normalises keeps its own.
    """
    with torch.no_grad():
        if isinstance(scheme, float):
            _published(module, scheme)
            return
        for child in module.modules():
            if isinstance(child, nn.RNNBase | nn.RNNCellBase):
                _recurrent(child, glorot=scheme == "orthogonal")


def _recurrent(kernel: nn.RNNBase | nn.RNNCellBase, glorot: bool) -> None:
    units = kernel.hidden_size
    for name, value in kernel.named_parameters():
        if name.startswith("bias"):
            value.zero_()
            if len(value) == 4 * units and name.startswith("bias_ih"):  # an LSTM's input, forget, cell, output gate
                value[units : 2 * units].fill_(1.0)
            continue
        for block in torch.split(value, units):
            if name.startswith("weight_hh"):
                nn.init.orthogonal_(block)
            elif glorot:
                nn.init.xavier_uniform_(block)
            else:
                nn.init.uniform_(block, -(units**-0.5), units**-0.5)


def _published(module: nn.Module, bound: float) -> None:
    kept: set[int] = set()
    for child in module.modules():
        if isinstance(child, nn.LayerNorm):
            kept |= {id(parameter) for parameter in child.parameters()}
        elif isinstance(child, AdditiveAttention):
            kept |= {id(child.gain), id(child.bias)}
    for name, parameter in module.named_parameters():
        if "bias_hh" in name:
            parameter.zero_()
        elif id(parameter) not in kept:
            parameter.uniform_(-bound, bound)
