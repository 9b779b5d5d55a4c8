# SPDX-License-Identifier: Apache-2.0
"""All weights as one vector on disk, read and written a buffer at a time.

The file is an ordinary safetensors file of float32 tensors that lie in the order of the layout, so its data
are the flat vector of `packing`, and whoever opens it with the library finds named tensors. A server that
keeps its vectors so needs the memory of a buffer for each, not of a model.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pasta_model.errors import CheckpointError, ExchangeError
from pasta_model.exchange.packing import Layout
from pasta_model.files import atomic_path

Floats = NDArray[np.float32]
_LENGTH_BYTES = 8  # a safetensors file begins with the length of its JSON header, little-endian


class Vector:
    """A safetensors file of float32 tensors, as a flat vector.

    Parameters
    ----------
    path
        The file.
    layout
        Of the tensors that it must hold.

    Raises
    ------
    CheckpointError
        When the file is missing, damaged, or of other tensors.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path = path
        self.sizes = float_buffers(layout)
        self._starts = dict(zip(self.sizes, np.cumsum([0, *self.sizes.values()]).tolist(), strict=False))
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
                header = dict(json.loads(file.read(length)))
            self._data = _LENGTH_BYTES + length
            whole = path.stat().st_size
        except (OSError, TypeError, ValueError, MemoryError) as error:
            raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        wanted = _header(layout)
        if header != wanted or whole != self._data + 4 * sum(self.sizes.values()):
            raise CheckpointError(f"{path}: not the tensors that these settings exchange, in their order")

    def __getitem__(self, buffer: str) -> Floats:
        """Read one buffer; a copy."""
        start = self._data + 4 * self._starts[buffer]
        return np.fromfile(self.path, "<f4", self.sizes[buffer], offset=start)

    def pieces(self) -> Iterator[tuple[str, Floats]]:
        """Yield every buffer in order."""
        for buffer in self.sizes:
            yield buffer, self[buffer]

    def digest(self) -> str:
        """SHA-256 of the values."""
        return digest(values for _, values in self.pieces())


def digest(pieces: Iterable[Floats]) -> str:
    """SHA-256 of a vector's values, given buffer by buffer."""
    found = hashlib.sha256()
    for values in pieces:
        found.update(np.ascontiguousarray(values, "<f4").data)
    return found.hexdigest()


def float_buffers(layout: Layout) -> dict[str, int]:
    """Name and length of the buffers of a layout that is exchanged.

    Raises
    ------
    ExchangeError
        When it holds anything but float32.
    """
    other = sorted({s.dtype for s in layout.slots} - {"float32"})
    if other or not layout.slots:
        raise ExchangeError(f"found weights of {other or 'no tensor'}, wanted float32: only those average")
    return layout.buffer_shapes()


class VectorWriter:
    """Writes a vector buffer by buffer; made by `vector_writer`."""

    def __init__(self, file: BinaryIO, layout: Layout, metadata: Mapping[str, str]) -> None:
        header = json.dumps({"__metadata__": dict(metadata), **_header(layout)}).encode()
        header += b" " * (-len(header) % 8)
        file.write(len(header).to_bytes(_LENGTH_BYTES, "little") + header)
        self._file = file
        self._left = list(float_buffers(layout).items())
        self._hash = hashlib.sha256()

    def add(self, values: Floats) -> None:
        """Write the next buffer.

        Raises
        ------
        ExchangeError
            When it is not the next of the layout, or not finite.
        """
        name, size = self._left.pop(0) if self._left else ("none", 0)
        if values.dtype != np.float32 or values.shape != (size,) or not np.isfinite(values).all():
            raise ExchangeError(f"buffer {name!r} is not {size} finite float32 values")
        whole = np.ascontiguousarray(values, "<f4")
        self._file.write(whole.data)
        self._hash.update(whole.data)

    def digest(self) -> str:
        """SHA-256 of the values; they must be complete."""
        if self._left:
            raise ExchangeError(f"{len(self._left)} buffers are missing")
        return self._hash.hexdigest()


@contextmanager
def vector_writer(
    path: Path, layout: Layout, metadata: Mapping[str, str] | None = None
) -> Iterator[VectorWriter]:
    """Open a vector for writing; the file appears whole when the block succeeds."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        writer = VectorWriter(file, layout, metadata or {})
        yield writer
        writer.digest()


def write_vector(
    path: Path, layout: Layout, pieces: Iterable[Floats], *, metadata: Mapping[str, str] | None = None
) -> str:
    """Write a vector, buffer after buffer, and return the SHA-256 of its values; whole or not at all.

    Raises
    ------
    ExchangeError
        When the pieces are not those of the layout, or not finite.
    """
    with vector_writer(path, layout, metadata) as writer:
        for values in pieces:
            writer.add(values)
        return writer.digest()


def _header(layout: Layout) -> dict[str, dict[str, object]]:
    """Return the description of the tensors as safetensors writes it."""
    return {
        slot.name: {
            "dtype": "F32",
            "shape": list(slot.shape),
            "data_offsets": [4 * slot.offset, 4 * (slot.offset + slot.size)],
        }
        for slot in layout.slots
    }
