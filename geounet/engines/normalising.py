"""From stored numbers to a network's input, in numpy: for the engines on the CPU.

OpenVINO computes logarithms one by one, numpy many at once; and band by band each step finds its
numbers in the processor's cache. That took a twelfth off a window of the default model in bfloat16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geounet.spec import Inputs, Normalisation

__all__ = ["normalise"]


def normalise(
    dn: NDArray[Any],
    observed: NDArray[np.bool_],
    inputs: Inputs,
    normalisation: Normalisation,
    out: NDArray[np.float32],
) -> None:
    """Fill in a window's network input: what `Segmenter.normalise` gives, to float32's rounding.

    Args:
        dn: numbers as stored [bands read, h, w].
        observed: bool [h, w].
        inputs: how the bands that were read fill the model's.
        normalisation: the model's.
        out: float32 [bands, H, W], at least h x w; what is beyond these was not observed.
    """
    height, width = observed.shape
    out[:, height:], out[:, :height, width:] = 0, 0
    hidden = None if observed.all() else ~observed
    columns = (inputs.take, inputs.gain, inputs.bias, normalisation.mean, normalisation.std)
    with np.errstate(all="ignore"):  # what was not observed may be any number, and is 0 at last
        for whole, place, gain, bias, mean, std in zip(out, *columns, strict=True):
            x = whole[:height, :width]
            if not gain:
                x[...] = 0
                continue
            x[...] = dn[place]
            if dn.dtype.kind == "f":
                np.nan_to_num(x, copy=False)
            x *= np.float32(gain)
            x += np.float32(bias)
            np.log(np.maximum(x, np.float32(normalisation.floor), out=x), out=x)
            x -= np.float32(mean)
            x /= np.float32(std)
            if hidden is not None:
                x[hidden] = 0
