# SPDX-License-Identifier: Apache-2.0
"""Steps from one set of weights to another, as they travel: encoded differences, chained and verified.

Weights are never sent where a difference will do. The receiver adds the steps to what it holds, and the
SHA-256 of the result must be the one that the sender named: a site that holds something else notices.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pasta_model.errors import ExchangeError
from pasta_model.exchange.codecs import codec
from pasta_model.exchange.packing import Buffers

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """A difference of weights, encoded.

    Attributes
    ----------
    codec
        One of `codecs.CODECS`.
    arrays
        The encoded buffers by the names of the layout.
    """

    codec: str
    arrays: Buffers = field(repr=False)

    def decode(self, buffer: str, size: int) -> Floats:
        """Return the float32 values of one buffer.

        Raises
        ------
        ExchangeError
            When the buffer is missing, damaged, of another size, or not finite.
        """
        if buffer not in self.arrays:
            raise ExchangeError(f"an update lacks buffer {buffer!r}")
        values = codec(self.codec).decode(self.arrays[buffer], size)
        if not np.isfinite(values).all():
            raise ExchangeError(f"buffer {buffer!r} holds NaN or infinity; wanted finite numbers")
        return values

    def check(self, sizes: Mapping[str, int]) -> float:
        """Decode everything once and return the norm of the difference.

        Raises
        ------
        ExchangeError
            When the update is not exactly what the layout says.
        """
        if self.arrays.keys() != sizes.keys():
            more = sorted(self.arrays.keys() - sizes.keys())
            less = sorted(sizes.keys() - self.arrays.keys())
            raise ExchangeError(f"weights do not fit the network: superfluous {more}, missing {less}")
        squares = 0.0
        for buffer, size in sizes.items():
            values = self.decode(buffer, size).astype(np.float64)
            squares += float(values @ values)
        return float(np.sqrt(squares))

    @property
    def nbytes(self) -> int:
        """Bytes on the wire, without the transport's own."""
        return sum(array.nbytes for array in self.arrays.values())


def encode_step(name: str, differences: Iterable[tuple[str, Floats]]) -> tuple[Step, dict[str, Floats]]:
    """Encode a difference, and return it with what rounding left over.

    The caller keeps the rest and adds it to its next difference (error feedback).
    """
    used, arrays, rest = codec(name), Buffers(), dict[str, Floats]()
    for buffer, values in differences:
        arrays[buffer] = used.encode(values)
        decoded = used.decode(arrays[buffer], values.size)
        # Zeros that nobody writes to take no memory: a model's worth of it.
        rest[buffer] = np.zeros(values.size, np.float32) if decoded is values else values - decoded
    return Step(name, arrays), rest


def walk(
    base: Iterable[tuple[str, Floats]] | None, steps: Sequence[Step], sizes: Mapping[str, int]
) -> Iterator[Floats]:
    """Yield the buffers of `base` with all steps added; `None` begins at zero.

    Every sum is of two float32 arrays in a fixed order, so both ends get the same bits.
    """
    start = base if base is not None else ((b, np.zeros(n, np.float32)) for b, n in sizes.items())
    for buffer, values in start:
        total = values
        for step in steps:
            total = total + step.decode(buffer, sizes[buffer])
        yield total
