# SPDX-License-Identifier: Apache-2.0
"""How a buffer of float32 is written for the wire: float32, bfloat16, or int8 and int4 by blocks.

A block codec keeps one scale a block (the largest size in it, as bfloat16 rounded up) and rounds to whole
steps of it; the codes go through zlib's Huffman coder, because differences of weights are far from evenly
spread (int4: about 3.3 bits a weight). What rounding loses is not lost for good: whoever encodes keeps the
rest and adds it to the next update (error feedback; Seide et al. 2014, Karimireddy et al. 2019).

Nothing here trusts its input: `decode` never makes more than the values that it was asked for.
"""

import zlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pasta_model.errors import ExchangeError

Floats = NDArray[np.float32]
BLOCK = 64  # values that share a scale
_NAN = np.uint16(0x7FC0)


class Codec(Protocol):
    """One way of writing float32 values."""

    def encode(self, values: Floats) -> NDArray[np.generic]:
        """Write the values as one flat array for the wire."""
        ...

    def decode(self, array: NDArray[np.generic], size: int) -> Floats:
        """Read `size` values back."""
        ...


class _Float32:
    def encode(self, values: Floats) -> NDArray[np.generic]:
        return values

    def decode(self, array: NDArray[np.generic], size: int) -> Floats:
        _exactly(array, np.float32, size)
        return array.astype(np.float32, copy=False)


class _BFloat16:
    """The upper half of a float32, rounded to nearest even; numpy has no such type, so it is int16."""

    def encode(self, values: Floats) -> NDArray[np.generic]:
        return _upper_half(values, np.uint32(0x7FFF)).view(np.int16)

    def decode(self, array: NDArray[np.generic], size: int) -> Floats:
        _exactly(array, np.int16, size)
        return _from_upper_half(array.view(np.uint16))


@dataclass(frozen=True)
class _Blocks:
    """Whole numbers of -`levels` .. `levels` times the scale of their block; `bits` is 8 or 4."""

    bits: int

    @property
    def levels(self) -> int:
        return (1 << (self.bits - 1)) - 1

    def encode(self, values: Floats) -> NDArray[np.generic]:
        blocks = np.zeros((-(-values.size // BLOCK), BLOCK), np.float32)
        blocks.reshape(-1)[: values.size] = values
        # Rounded up: the largest value then never passes the highest level.
        scales = _upper_half(np.abs(blocks).max(axis=1) / np.float32(self.levels), None)
        step = _from_upper_half(scales)[:, None]
        steps = np.divide(blocks, step, out=np.zeros_like(blocks), where=step > 0)
        codes = (np.rint(steps).astype(np.int8) + np.int8(self.levels)).astype(np.uint8).reshape(-1)
        if self.bits == 4:
            codes = codes[0::2] | (codes[1::2] << 4)
        packer = zlib.compressobj(level=1, strategy=zlib.Z_HUFFMAN_ONLY)
        packed = packer.compress(codes.tobytes()) + packer.flush()
        return np.concatenate([scales.view(np.uint8), np.frombuffer(packed, np.uint8)])

    def decode(self, array: NDArray[np.generic], size: int) -> Floats:
        blocks = -(-size // BLOCK)
        wanted = blocks * BLOCK * self.bits // 8
        if array.dtype != np.uint8 or array.ndim != 1 or array.size < 2 * blocks:
            raise ExchangeError(f"an encoded buffer is {array.dtype} {array.shape}, wanted bytes")
        scales = np.ascontiguousarray(array[: 2 * blocks]).view(np.uint16)
        unpacker = zlib.decompressobj()
        try:
            raw = unpacker.decompress(array[2 * blocks :].tobytes(), wanted + 1)
        except zlib.error as error:
            raise ExchangeError(f"an encoded buffer is damaged ({error})") from error
        codes = np.frombuffer(raw, np.uint8)
        if codes.size != wanted or not unpacker.eof or unpacker.unused_data:
            raise ExchangeError(f"an encoded buffer does not hold {size} values")
        if self.bits == 4:
            codes = np.stack([codes & 15, codes >> 4], axis=1).reshape(-1)
        signed = codes.astype(np.int16) - np.int16(self.levels)
        if signed[size:].any():
            raise ExchangeError(f"an encoded buffer does not hold {size} values")
        steps = signed.reshape(blocks, BLOCK).astype(np.float32)
        with np.errstate(all="ignore"):  # a forged scale may be infinite; steps refuse what is not finite
            found: Floats = (steps * _from_upper_half(scales)[:, None]).reshape(-1)[:size]
        return found


CODECS: dict[str, Codec] = {
    "float32": _Float32(),
    "bfloat16": _BFloat16(),
    "int8": _Blocks(8),
    "int4": _Blocks(4),
}


def codec(name: str) -> Codec:
    """Return a codec by its name.

    Raises
    ------
    ExchangeError
        When there is none of that name.
    """
    if name not in CODECS:
        raise ExchangeError(f"found codec {name!r} in a message, wanted one of {sorted(CODECS)}")
    return CODECS[name]


def _upper_half(values: Floats, half: np.uint32 | None) -> NDArray[np.uint16]:
    """Cut float32 to bfloat16: to nearest even where `half` is given, else away from zero."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    push = (half + ((bits >> np.uint32(16)) & np.uint32(1))) if half is not None else np.uint32(0xFFFF)
    upper = ((bits + push) >> np.uint32(16)).astype(np.uint16)
    upper[np.isnan(values)] = _NAN  # adding could make a number of it
    return upper


def _from_upper_half(bits: NDArray[np.uint16]) -> Floats:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _exactly(array: NDArray[np.generic], dtype: type[np.generic], size: int) -> None:
    if array.dtype != dtype or array.shape != (size,):
        raise ExchangeError(
            f"an encoded buffer is {array.dtype} {array.shape}, wanted {np.dtype(dtype)} ({size},)"
        )
