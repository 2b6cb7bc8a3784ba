"""Rewriting PyTorch's networks so that they take less time on the CPU: the kernels of `kernels`.

A network is traced for inputs of one size. What it does is then known step by step, so that a step
is taken into another only where nothing else sees what lies between. Batch normalisation goes into
the weights of the convolution before it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.fusion import fuse_conv_bn_weights

from geounet.engines.kernels import LANES, enlarging_kernel, two_by_two_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch.fx import GraphModule, Node

__all__ = ["lighten"]

_LOG = logging.getLogger("geounet")
_OPS = torch.ops.aten
_REWRITTEN = (
    _OPS.conv2d.default,
    _OPS.batch_norm.default,
    _OPS.cat.default,
    _OPS.upsample_nearest2d.vec,
)
"""What nothing is lost by dropping, where nothing takes its result."""


def lighten(network: nn.Module, shape: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """A network's function for inputs of a shape, rewritten where it can be.

    Args:
        network: bands in, logits out; it is left as it is.
        shape: of the inputs [N, bands, h, w].

    Returns:
        What takes tensors of that shape, in channels-last order, and gives what the network gives
        but for float32's rounding; the network itself where it cannot be traced.
    """
    try:
        traced = _trace(network, shape)
    except Exception as error:  # noqa: BLE001 - its many own types share no other parent
        _LOG.info("the network runs as it is, as it cannot be traced: %s", error)
        return network
    for step in list(traced.graph.nodes):
        if step.target is _OPS.batch_norm.default:
            _fold(traced, step)
    for step in list(traced.graph.nodes):
        if conv := _padded_convolution(traced, step):
            _lighten_enlargement(traced, conv)
    _lighten_head(traced)
    _drop_unused(traced)
    traced.recompile()
    return traced


def _trace(network: nn.Module, shape: Sequence[int]) -> GraphModule:
    """Each step of a network, with the sizes of what it gives; nothing is computed."""
    example = torch.zeros(*shape).contiguous(memory_format=torch.channels_last)
    trace = make_fx(network, tracing_mode="fake", pre_dispatch=True, _allow_non_fake_inputs=True)
    with torch.inference_mode(mode=False), torch.no_grad():
        return trace(example)


class _Convolution(NamedTuple):
    """A 3 x 3 convolution of stride 1, padded by 1, whose weights are constants."""

    step: Node
    source: Node
    weights: Tensor
    bias: Tensor | None


def _padded_convolution(traced: GraphModule, step: Any) -> _Convolution | None:
    if not isinstance(step, torch.fx.Node) or step.target is not _OPS.conv2d.default:
        return None
    said = _arguments(step)
    weights = _constant(traced, said["weight"])
    usual = said["groups"] == 1 and all(
        _pair(said[name]) == (1, 1) for name in ("stride", "padding", "dilation")
    )
    if weights is None or not usual or weights.shape[2:] != (3, 3):
        return None
    bias = _constant(traced, said["bias"])
    known = bias is not None or said["bias"] is None
    return _Convolution(step, said["input"], weights, bias) if known else None


def _arguments(step: Node) -> dict[str, Any]:
    """What a step was called with by name, defaults included."""
    expected = step.target._schema.arguments  # type: ignore[union-attr]  # noqa: SLF001 - a function of ATen
    defaults = {a.name: a.default_value for a in expected if a.has_default_value()}
    return defaults | dict(zip((a.name for a in expected), step.args, strict=False)) | step.kwargs


def _pair(said: int | Sequence[int]) -> tuple[int, ...]:
    return (said, said) if isinstance(said, int) else tuple(said)


def _constant(traced: GraphModule, step: Any) -> Tensor | None:
    """The weights that a step stands for; None if it stands for anything else."""
    if not isinstance(step, torch.fx.Node) or step.op != "get_attr":
        return None
    value = getattr(traced, str(step.target))
    return value.detach() if isinstance(value, Tensor) else None


def _keep(traced: GraphModule, value: Tensor, before: Node) -> Node:
    """A step that stands for weights, before another."""
    name = f"_rewritten{sum(1 for _ in traced.buffers())}"
    if value.dim() == 4:
        value = value.contiguous(memory_format=torch.channels_last)
    traced.register_buffer(name, value)
    with traced.graph.inserting_before(before):
        return traced.graph.get_attr(name)


def _call(traced: GraphModule, before: Node, function: Any, *arguments: Any) -> Node:
    with traced.graph.inserting_before(before):
        return traced.graph.call_function(function, arguments)


def _drop_unused(traced: GraphModule) -> None:
    """Drop the steps that others stand for now."""
    for step in reversed(traced.graph.nodes):
        if not step.users and step.target in _REWRITTEN:
            traced.graph.erase_node(step)


def _fold(traced: GraphModule, norm: Node) -> None:
    """Take a batch normalisation into the convolution before it, if that feeds nothing else."""
    said = _arguments(norm)
    conv = said["input"]
    if said["training"] or conv.target is not _OPS.conv2d.default or len(conv.users) > 1:
        return
    names = ("weight", "bias", "running_mean", "running_var")
    scale, shift, mean, variance = (_constant(traced, said[name]) for name in names)
    before = _arguments(conv)
    weights = _constant(traced, before["weight"])
    if weights is None or mean is None or variance is None:
        return
    bias = _constant(traced, before["bias"])
    folded = fuse_conv_bn_weights(weights, bias, mean, variance, said["eps"], scale, shift)
    constants = (_keep(traced, value.detach(), conv) for value in folded)
    conv.args = (before["input"], *constants, *conv.args[3:])
    norm.replace_all_uses_with(conv)


def _lighten_enlargement(traced: GraphModule, conv: _Convolution) -> None:
    """Take the enlargement before a convolution into it, alone or with other maps beside it.

    New steps stand where their inputs were taken, as later ones may change these in place.
    """
    beside = conv.source.target is _OPS.cat.default and _arguments(conv.source)["dim"] == 1
    enlarged, *others = _arguments(conv.source)["tensors"] if beside else (conv.source,)
    if not _doubles(enlarged):
        return
    coarse = _arguments(enlarged)["input"]
    channels = coarse.meta["val"].shape[1]
    kernel = torch.from_numpy(enlarging_kernel(conv.weights[:, :channels].numpy()))
    weights, bias = _keep(traced, kernel, enlarged), _given(traced, conv.bias, enlarged)
    made = _call(
        traced, enlarged, _OPS.conv_transpose2d.input, coarse, weights, bias, [2, 2], [1, 1]
    )
    others = [step for step in others if step.meta["val"].shape[1]]
    if others:
        joint = conv.source
        rest = others[0] if len(others) == 1 else _call(traced, joint, _OPS.cat.default, others, 1)
        weights = _keep(traced, conv.weights[:, channels:], joint)
        skip = _call(traced, joint, _OPS.conv2d.default, rest, weights, None, [1, 1], [1, 1])
        made = _call(traced, joint, _OPS.add_.Tensor, made, skip)
    conv.step.replace_all_uses_with(made)


def _given(traced: GraphModule, bias: Tensor | None, before: Node) -> Node | None:
    return None if bias is None else _keep(traced, bias, before)


def _doubles(step: Node) -> bool:
    """Whether a step enlarges a map to twice its height and width, nearest neighbour."""
    if step.target is not _OPS.upsample_nearest2d.vec:
        return False
    said = _arguments(step)
    before, after = (s.meta["val"].shape[2:] for s in (said["input"], step))
    return said["scale_factors"] in (None, [2.0, 2.0]) and list(after) == [2 * n for n in before]


def _lighten_head(traced: GraphModule) -> None:
    """Let the last convolution give two by two pixels at once, if it gives few channels."""
    conv = _padded_convolution(traced, next(iter(reversed(traced.graph.nodes))).args[0])
    if conv is None or conv.bias is None or any(n % 2 for n in conv.source.meta["val"].shape[2:]):
        return
    kernel = two_by_two_kernel(conv.weights.numpy())
    if len(kernel) > LANES:
        return
    # pixel_shuffle has a channel's four pixels side by side
    order = np.arange(len(kernel)).reshape(4, -1).T.ravel()
    weights = _keep(traced, torch.from_numpy(kernel[order]), conv.step)
    bias = _keep(traced, conv.bias.repeat_interleave(4), conv.step)
    pixels = _call(
        traced, conv.step, _OPS.conv2d.default, conv.source, weights, bias, [2, 2], [1, 1]
    )
    made = _call(traced, conv.step, _OPS.pixel_shuffle.default, pixels, 2)
    conv.step.replace_all_uses_with(made)
