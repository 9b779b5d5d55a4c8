# SPDX-License-Identifier: Apache-2.0
"""The shape of an arm: the named sizes, and how a few words override parts of one."""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True)
class Shape:
    """Everything that fixes an arm's parameters but the clinical vector.

    Attributes
    ----------
    slices
        Slices of a slab, the channels of the network.
    width
        Channels at full resolution.
    multipliers
        Width of each level in units of `width`; each level halves the pixels of the one before.
    blocks
        Residual blocks a level on the way down; one more on the way up.
    attention
        Downsampling factors whose blocks have attention.
    heads, groups
        Of the attention; of the normalisation (small widths need fewer than the published 32).
    patch
        Pixels of a side folded into channels before the stem; the published network folds none.
    """

    slices: int
    width: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    heads: int
    groups: int
    patch: int = 1

    def __post_init__(self) -> None:
        """Refuse what no network can be made of."""
        if min(self.slices, self.width, *self.multipliers, self.blocks, self.heads, self.groups) < 1:
            raise ValueError("network.shape: every number must be at least 1")
        if self.patch < 1 or self.width % 2:
            raise ValueError("network.shape: patch must be at least 1, width even")
        widths = [self.width * m for m in self.multipliers]
        for divisor, name in ((self.groups, "groups"), (self.heads, "heads")):
            if any(width % divisor for width in widths):
                raise ValueError(f"network.shape: widths {widths} are not all multiples of {name} {divisor}")

    @property
    def pixel_multiple(self) -> int:
        """What both sides of a slab, in pixels, must be a multiple of."""
        return int(self.patch * 2 ** (len(self.multipliers) - 1))

    def overridden(self, words: str) -> Self:
        """Return this shape with parts replaced, as "width 32, multipliers 1-2-3, attention none".

        Raises
        ------
        ValueError
            When the words are not understood or no network has that shape.
        """
        changes: dict[str, int | tuple[int, ...]] = {}
        for part in filter(None, (p.strip() for p in words.split(","))):
            name, _, value = part.partition(" ")
            changes[name] = _number_or_list(name, value.strip())
        return replace(self, **changes)  # type: ignore[arg-type]

    def words(self) -> str:
        """Return the whole shape in the words that `overridden` reads."""
        values = {name: getattr(self, name) for name in _NAMES}
        return ", ".join(f"{name} {_said(value)}" for name, value in values.items())


_LISTS = ("multipliers", "attention")
_NAMES = ("slices", "width", "multipliers", "blocks", "attention", "heads", "groups", "patch")


def _number_or_list(name: str, value: str) -> int | tuple[int, ...]:
    if name not in _NAMES:
        raise ValueError(f"network.shape: no part is called {name!r}; wanted one of {', '.join(_NAMES)}")
    try:
        if name not in _LISTS:
            return int(value)
        return () if value == "none" else tuple(int(v) for v in value.split("-"))
    except ValueError:
        wanted = "numbers with hyphens, as 1-2-3" if name in _LISTS else "a number"
        raise ValueError(f"network.shape: {name} is {value!r}, wanted {wanted}") from None


def _said(value: int | tuple[int, ...]) -> str:
    if isinstance(value, int):
        return str(value)
    return "-".join(map(str, value)) or "none"


SHAPES = {
    "tiny": Shape(15, 48, (1, 1), 1, (), 1, 8, patch=2),
    "small": Shape(15, 32, (1, 2, 3), 2, (4,), 4, 16),
    "base": Shape(15, 64, (1, 2, 3, 4), 4, (4, 8), 4, 32),
}
