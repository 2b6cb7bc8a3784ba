"""Rewriting OpenVINO's networks so that they take less time: the kernels of `kernels`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from geounet.engines.kernels import LANES, enlarging_kernel, two_by_two_kernel
from geounet.engines.silent_openvino import ops

if TYPE_CHECKING:
    from collections.abc import Sequence

    import openvino as ov
    from numpy.typing import NDArray

__all__ = ["lighten"]


def lighten(network: ov.Model, sides: Sequence[int]) -> None:
    """Rewrite a network in place where it can be; the rest stays as it is.

    Args:
        network: bands in, logits out; weights are constants, outputs have even sides.
        sides: some heights that square inputs may have, in pixels: what is twofold at each of them
            counts as twofold.
    """
    doubled = set.intersection(*(_doubled(network, side) for side in sides))
    for node in network.get_ordered_ops():
        if _is_padded_convolution(node):
            _lighten_enlargement(node, doubled)
    _lighten_head(network.output(0).get_node())
    network.validate_nodes_and_infer_types()


def _doubled(network: ov.Model, side: int) -> set[str]:
    """Names of the nearest-neighbour enlargements to twice the height and the width."""
    sized = network.clone()
    sized.reshape([1, network.input(0).get_partial_shape()[1].get_length(), side, side])
    return {node.get_friendly_name() for node in sized.get_ordered_ops() if _doubles(node)}


def _doubles(node: Any) -> bool:
    if node.get_type_name() != "Interpolate":
        return False
    kind = node.get_attributes()
    how = kind["mode"], kind["coordinate_transformation_mode"], kind["nearest_mode"]
    before, after = (list(port.get_shape()) for port in (node.input_value(0), node.output(0)))
    twice = [*before[:2], *(2 * n for n in before[2:])]
    return how == ("nearest", "asymmetric", "floor") and after == twice


def _is_padded_convolution(node: Any) -> bool:
    """Whether it is 3 x 3, of stride 1, padded by 1, and has constant weights."""
    if node.get_type_name() != "Convolution":
        return False
    weights, kind = node.input_value(1), node.get_attributes()
    return (
        weights.get_node().get_type_name() == "Constant"
        and list(weights.get_shape())[2:] == [3, 3]
        and all(kind[name] == [1, 1] for name in ("strides", "dilations", "pads_begin", "pads_end"))
    )


def _lighten_enlargement(node: Any, doubled: set[str]) -> None:
    """Take the enlargement before a convolution into it, alone or with other maps beside it."""
    source = node.input_value(0).get_node()
    beside = source.get_type_name() == "Concat" and source.get_attributes()["axis"] == 1
    enlarged = source.input_value(0).get_node() if beside else source
    if enlarged.get_friendly_name() not in doubled:
        return
    weights, coarse = node.input_value(1).get_node().get_data(), enlarged.input_value(0)
    channels = enlarged.output(0).get_partial_shape()[1].get_length()
    kernel = enlarging_kernel(weights[:, :channels])
    made = ops.convolution_backprop_data(
        coarse, kernel, [2, 2], pads_begin=[1, 1], pads_end=[1, 1], dilations=[1, 1]
    )
    if not beside:
        _replace(node, made)
        return
    others = [source.input_value(i) for i in range(1, source.get_input_size())]
    rest = others[0] if len(others) == 1 else ops.concat(others, 1).output(0)
    _add_after_bias(node, _convolve(rest, weights[:, channels:], 1), made)


def _add_after_bias(node: Any, skip: Any, made: Any) -> None:
    """Put ``skip + bias + made`` for a convolution and its bias: both sums while it convolves."""
    users = [target.get_node() for target in node.output(0).get_target_inputs()]
    bias = _bias(users[0]) if len(users) == 1 else None
    if bias is None:
        _replace(node, ops.add(skip, made))
    else:
        _replace(users[0], ops.add(ops.add(skip, bias), made))


def _bias(node: Any) -> Any:
    """The constant that a node adds to what goes into it first; None if it does no such thing."""
    if node.get_type_name() != "Add":
        return None
    bias = node.input_value(1)
    return bias if bias.get_node().get_type_name() == "Constant" else None


def _lighten_head(result: Any) -> None:
    """Let the last convolution give two by two pixels at once, if it gives few channels."""
    add = result.input_value(0).get_node()
    bias = _bias(add)
    if bias is None or not _is_padded_convolution(node := add.input_value(0).get_node()):
        return
    kernel = two_by_two_kernel(node.input_value(1).get_node().get_data())
    if len(kernel) > LANES:
        return
    biases = np.tile(bias.get_node().get_data().reshape(1, -1, 1, 1), (1, 4, 1, 1))
    pixels = ops.add(_convolve(node.input_value(0), kernel, 2), biases)
    _replace(add, ops.depth_to_space(pixels, "blocks_first", 2))


def _convolve(x: Any, weights: NDArray[np.float32], stride: int) -> Any:
    return ops.convolution(
        x, np.ascontiguousarray(weights), [stride, stride], [1, 1], [1, 1], [1, 1]
    )


def _replace(old: Any, new: Any) -> None:
    """Give all that take a node's output another node's."""
    for target in old.output(0).get_target_inputs():
        target.replace_source_output(new.output(0))
