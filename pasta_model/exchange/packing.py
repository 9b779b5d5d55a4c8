# SPDX-License-Identifier: Apache-2.0
"""Tensors <-> a few flat buffers.

Flower's transport pays by the tensor, not by the byte (1,000 small tensors cost three times as much as ten
large ones), so a state dict travels as flat buffers of a few MB, one dtype each. The layout (names,
shapes, dtypes) is not sent: both ends know it from the settings of the run.
"""

import hashlib
import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pasta_model.errors import ExchangeError

Buffers = dict[str, NDArray[Any]]
BUFFER_BYTES = 4 * 2**20  # less than the 5 MiB of a piece of Flower's: one buffer, one object
# numpy has no bfloat16 and Flower's arrays no bool: those bits travel in another dtype.
_CARRIER = {torch.bfloat16: torch.int16, torch.bool: torch.uint8}


@dataclass(frozen=True)
class Slot:
    """A tensor's place: `offset` counts elements in the buffers of its dtype, laid end to end."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Layout:
    """Where each tensor of a state dict lies in the buffers."""

    slots: tuple[Slot, ...]

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Self:
        """Layout of a state dict; the order of names does not matter."""
        used: dict[str, int] = {}
        slots = []
        for name in sorted(state):
            dtype = str(state[name].dtype).removeprefix("torch.")
            slot = Slot(name, dtype, tuple(state[name].shape), used.get(dtype, 0))
            used[dtype] = slot.offset + slot.size
            slots.append(slot)
        return cls(tuple(slots))

    def only(self, names: AbstractSet[str]) -> Self:
        """Return the layout of some of the tensors."""
        with torch.device("meta"):
            kept = [s for s in self.slots if s.name in names]
            return self.of({s.name: torch.empty(s.shape, dtype=getattr(torch, s.dtype)) for s in kept})

    def digest(self) -> str:
        """SHA-256 of names, dtypes and shapes."""
        text = json.dumps([[s.name, s.dtype, s.shape] for s in self.slots])
        return hashlib.sha256(text.encode()).hexdigest()

    def sizes(self) -> dict[str, int]:
        """Elements of each dtype."""
        totals: dict[str, int] = {}
        for slot in self.slots:
            totals[slot.dtype] = totals.get(slot.dtype, 0) + slot.size
        return totals

    def buffer_shapes(self) -> dict[str, int]:
        """Name and length of every buffer, in order."""
        shapes = {}
        for dtype, total in self.sizes().items():
            step = BUFFER_BYTES // getattr(torch, dtype).itemsize
            for part, start in enumerate(range(0, max(total, 1), step)):
                shapes[f"{dtype}.{part:03d}"] = min(step, total - start)
        return shapes


def pack(state: Mapping[str, Tensor]) -> Buffers:
    """Lay a state dict into flat buffers, named `dtype.number`."""
    layout = Layout.of(state)
    flat = {dtype: torch.empty(total, dtype=getattr(torch, dtype)) for dtype, total in layout.sizes().items()}
    for slot in layout.slots:  # one copy, whatever device and memory format a tensor has
        place = flat[slot.dtype][slot.offset : slot.offset + slot.size]
        place.view(slot.shape).copy_(state[slot.name].detach())
    joined = {
        name: whole.view(_CARRIER.get(whole.dtype, whole.dtype)).numpy() for name, whole in flat.items()
    }
    buffers, used = {}, dict.fromkeys(joined, 0)
    for name, length in layout.buffer_shapes().items():
        dtype = name.split(".")[0]
        buffers[name] = joined[dtype][used[dtype] : used[dtype] + length]
        used[dtype] += length
    return buffers


def unpack(buffers: Mapping[str, NDArray[Any]], layout: Layout) -> dict[str, Tensor]:
    """Take a state dict out of flat buffers; its tensors are views of one new array a dtype.

    Raises
    ------
    ExchangeError
        When buffers are missing, superfluous, or of the wrong length or dtype.
    """
    check_buffers(buffers, layout)
    joined: dict[str, Tensor] = {}
    for dtype in layout.sizes():
        names = sorted(n for n in buffers if n.split(".")[0] == dtype)
        whole = torch.from_numpy(np.concatenate([buffers[n] for n in names]))
        joined[dtype] = whole.view(getattr(torch, dtype))
    return {s.name: joined[s.dtype][s.offset : s.offset + s.size].reshape(s.shape) for s in layout.slots}


def check_buffers(buffers: Mapping[str, NDArray[Any]], layout: Layout) -> None:
    """Refuse buffers that are not exactly those of a layout.

    Raises
    ------
    ExchangeError
        Saying what was found and what was wanted.
    """
    wanted = {}
    for name, length in layout.buffer_shapes().items():
        dtype = getattr(torch, name.split(".")[0])
        carrier = str(_CARRIER.get(dtype, dtype)).removeprefix("torch.")
        wanted[name] = (carrier, (length,))
    found = {name: (str(b.dtype), b.shape) for name, b in buffers.items()}
    if found != wanted:
        raise ExchangeError(f"weights do not fit the network: found {found}, wanted {wanted}")
