# SPDX-License-Identifier: Apache-2.0
"""What can be measured of a skull-stripped MRI in MNI space without knowing whose it is.

Shapes: all arrays are (x, y, z) on the network's crop. Brightness is 1 at the 99th percentile of the brain
and 0 outside, so that no measure depends on the scanner's units.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pasta_model.data.grid import Grid
from pasta_model.prepare.template import TemplateBrain, template_brain

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
TINY = 1e-6
SMOOTHING = 3.0  # mm, sigma; before a scan is laid beside another one
BINS = 64  # of the histogram, from 0 to 1.25
LONGEST_WAVE = 30.0  # mm; slower changes are anatomy
NEIGHBOURS = 4  # frequencies to each side that a ripple must stand out from
_SECOND = (1.0, -2.0, 1.0)


@dataclass(frozen=True, eq=False)
class Head:
    """A brain and where it lies."""

    brightness: Floats
    grid: Grid

    @cached_property
    def inside(self) -> Mask:
        """Where the brain is: brighter than the background's 0."""
        return self.brightness > 0

    @cached_property
    def brain(self) -> Floats:
        """Brightness of the brain's voxels, sorted."""
        return np.sort(self.brightness[self.inside])

    @cached_property
    def smooth(self) -> Floats:
        """The brain without its fine structure."""
        return ndimage.gaussian_filter(self.brightness, SMOOTHING / self.grid.spacing, truncate=3.0)

    @cached_property
    def template(self) -> TemplateBrain:
        """The MNI152 template on the same grid."""
        return template_brain(self.grid)

    def quantile(self, level: float) -> float:
        """Brightness that a share `level` of the brain stays below."""
        return float(self.brain[min(int(level * self.brain.size), self.brain.size - 1)])


def volume(head: Head) -> float:
    """Log of the brain's volume in ml."""
    return float(np.log(head.brain.size * head.grid.spacing**3 / 1000.0))


def dark_share(head: Head) -> float:
    """Log odds of a brain voxel being darker than 0.4: cerebrospinal fluid in a T1."""
    dark = int(np.searchsorted(head.brain, 0.4)) + 0.5
    return float(np.log(dark / (head.brain.size + 1.0 - dark)))


def quantile_ratio(head: Head, low: float, high: float) -> float:
    """Log of how much darker one quantile of the brain is than another."""
    return float(np.log((head.quantile(low) + 0.01) / (head.quantile(high) + 0.01)))


def glare(head: Head) -> float:
    """Log of how far the very brightest voxels exceed the bright ones."""
    return float(np.log(max(head.quantile(0.999) / head.quantile(0.98) - 1.0, 0.0) + 0.01))


def entropy(head: Head) -> float:
    """Entropy of the histogram of the brain, in bits: how many shades there are."""
    counts, _ = np.histogram(np.minimum(head.brain, 1.2499), bins=BINS, range=(0.0, 1.25))
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def sharpness(head: Head, axis: int) -> float:
    """Log of the root mean square step between neighbours along an axis, over the brain's spread."""
    v, inside = np.moveaxis(head.brightness, axis, 0), np.moveaxis(head.inside, axis, 0)
    both = inside[1:] & inside[:-1]
    step = (v[1:] - v[:-1])[both]
    power = float(np.mean(step**2, dtype=np.float64)) if step.size else 0.0
    return float(0.5 * np.log((power + TINY) / (float(head.brain.var(dtype=np.float64)) + TINY)))


def noise(head: Head) -> float:
    """Log of the noise, from the median of a second difference along all axes (Immerkaer 1996, in 3D)."""
    fine = head.brightness
    for axis in range(3):
        fine = ndimage.correlate1d(fine, _SECOND, axis=axis)
    found = np.abs(fine[ndimage.binary_erosion(head.inside, np.ones((3, 3, 3), dtype=bool))])
    sigma = float(np.median(found)) * 1.4826 / 6**1.5 if found.size else 0.0
    return float(np.log(sigma + 1e-4))


def shading(head: Head) -> float:
    """Log of the spread of a quadratic that fits the log of the brighter half: the coil's bias field."""
    every = max(1, round(3.0 / head.grid.spacing))
    thin = head.brightness[::every, ::every, ::every]
    where = np.argwhere(thin > head.quantile(0.5)).astype(np.float64)
    if len(where) < 100:
        return float(np.log(1e-3))
    x, y, z = (where - where.mean(axis=0)).T / (where.std(axis=0)[:, None] + TINY)
    terms = np.stack([np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], axis=1)
    log = np.log(thin[thin > head.quantile(0.5)].astype(np.float64))
    weights = np.linalg.lstsq(terms.T @ terms, terms.T @ log, rcond=1e-10)[0]
    return float(np.log((terms @ weights).std() + 1e-3))


def asymmetry(head: Head) -> float:
    """Log of the mean difference between the brain and its mirror image about MNI's x = 0."""
    grid = head.grid
    last = -2.0 * grid.origin[0] / grid.spacing  # the index that is mirrored onto index 0
    mirrored = ndimage.affine_transform(
        head.smooth, np.diag([-1.0, 1.0, 1.0]), offset=(last, 0.0, 0.0), order=1, mode="constant"
    )
    apart = np.abs(mirrored - head.smooth)[head.inside].mean(dtype=np.float64)
    return float(np.log(apart + 1e-3))


def match(head: Head) -> float:
    """Fisher z of the correlation with the template's T1, where either has brain."""
    here, wanted, mask = head.smooth, _smooth_template(head.grid), head.template.mask
    either = head.inside | mask
    a, b = (volume[either] - volume[either].mean(dtype=np.float64) for volume in (here, wanted))
    r = float(a @ b) / (float(a @ a) ** 0.5 * float(b @ b) ** 0.5 + TINY)
    return float(np.arctanh(np.clip(r, -0.999, 0.999)))


def overlap(head: Head) -> float:
    """Log odds of the Dice coefficient with the template's brain."""
    mask = head.template.mask
    both = int(np.count_nonzero(head.inside & mask))
    dice = 2.0 * both / (head.brain.size + int(np.count_nonzero(mask)))
    dice = min(max(dice, 1e-3), 1 - 1e-3)
    return float(np.log(dice / (1 - dice)))


def shift(head: Head, axis: int) -> float:
    """How far the brain's centre lies from the template's along an axis, in mm."""
    other = tuple(a for a in range(3) if a != axis)
    here, wanted = (
        float(mask.sum(axis=other) @ np.arange(mask.shape[axis]) / max(np.count_nonzero(mask), 1))
        for mask in (head.inside, head.template.mask)
    )
    return (here - wanted) * head.grid.spacing


def flat_end(head: Head) -> float:
    """Return how far an outermost section of the brain exceeds the template's, the worst of six: a cut.

    In roots of the section's area over the largest of its axis.
    """
    return float(np.max(_ends(head.inside) - _ends(head.template.mask)))


def _ends(mask: Mask) -> NDArray[np.float64]:
    """Root of the relative area of the first and last section along each axis, (6,)."""
    found = []
    for axis in range(3):
        area = mask.sum(axis=tuple(a for a in range(3) if a != axis))
        present = np.flatnonzero(area)
        found += [np.sqrt(area[end] / area.max()) for end in present[[0, -1]]]
    return np.asarray(found)


def shortfall(head: Head) -> float:
    """Return how far an end of the brain stops short of the template's, in mm, the worst of six: a cut."""
    short = (_reach(head.inside) - _reach(head.template.mask)) * head.grid.spacing
    return float(np.max(short * np.array([1.0, -1.0] * 3)))


def _reach(mask: Mask) -> NDArray[np.float64]:
    """Where the first and the last 1 % of the brain end along each axis, in voxels, (6,)."""
    found = []
    for axis in range(3):
        area = mask.sum(axis=tuple(a for a in range(3) if a != axis))
        share = np.concatenate([[0.0], np.cumsum(area) / max(int(area.sum()), 1)])
        found += list(np.interp((0.01, 0.99), share, np.arange(share.size)))
    return np.asarray(found)


def ripple(head: Head) -> float:
    """Log of how far one frequency stands out from those beside it, along the worst axis: ghosts, motion."""
    return float(np.log(max(_ripple(head, axis) for axis in range(3)) + 0.01))


def _ripple(head: Head, axis: int) -> float:
    lines = np.moveaxis(head.brightness, axis, -1)
    lines = lines[head.inside.any(axis=axis)]
    power = (np.abs(np.fft.rfft(lines, axis=-1)) ** 2).mean(axis=0, dtype=np.float64)
    log = np.log(power + TINY)
    around = ndimage.median_filter(log, size=2 * NEIGHBOURS + 1, mode="nearest")
    first = int(np.ceil(lines.shape[-1] * head.grid.spacing / LONGEST_WAVE))
    return float((log - around)[first:].max(initial=0.0))


@lru_cache(maxsize=4)
def _smooth_template(grid: Grid) -> Floats:
    return ndimage.gaussian_filter(template_brain(grid).t1, SMOOTHING / grid.spacing, truncate=3.0)
