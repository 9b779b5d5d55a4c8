# SPDX-License-Identifier: Apache-2.0
"""All that is measured on one pair of volumes: values by metric name, or the reason why there is none."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from pasta_model.data.grid import Grid
from pasta_model.errors import VolumeError
from pasta_model.evaluation.columns import ALL_METRICS, PLANES, REGIONS, WHOLE
from pasta_model.metrics import regions, similarity
from pasta_model.metrics.scaling import own_range_scaled
from pasta_model.metrics.similarity import Array, Mask
from pasta_model.metrics.slices import slice_errors, slice_ssim
from pasta_model.metrics.texture import ACROSS, roughness


class Measured:
    """What was measured so far: `values` by metric name, None where the reason stands in `why`.

    Parameters
    ----------
    equal
        Whether the two volumes are, voxel by voxel.
    """

    def __init__(self, *, equal: bool) -> None:
        self._equal = equal
        self._found: dict[str, float | None] = {}
        self._why: dict[str, str] = {}

    def measure(
        self, names: Iterable[str], measure: Callable[[], Mapping[str, float]], *, where: str = ""
    ) -> None:
        """Note what a function finds; when it cannot, or a value is not finite, note the reason.

        A PSNR is infinite where two volumes are equal: altogether, or `where` they are measured.
        """
        equal = "the volumes are equal" + ("" if self._equal else where)
        try:
            found = measure()
        except VolumeError as error:
            self.refuse(names, str(error))
            return
        for name, value in found.items():
            if math.isfinite(value):
                self._found[name] = value
                self._why.pop(name, None)
            else:
                self.refuse([name], equal if name.startswith("psnr") else "not finite")

    def refuse(self, names: Iterable[str], reason: str) -> None:
        """Note why these are not available."""
        for name in names:
            self._found[name] = None
            self._why[name] = " ".join(reason.split())

    @property
    def values(self) -> dict[str, float | None]:
        """In the order of the tables."""
        return {metric.name: self._found[metric.name] for metric in ALL_METRICS if metric.name in self._found}

    @property
    def why(self) -> dict[str, str]:
        """In the order of the tables."""
        return {metric.name: self._why[metric.name] for metric in ALL_METRICS if metric.name in self._why}


@dataclass(frozen=True)
class Pair:
    """A real and a synthetic PET, (x, y, z) on one scale of width `data_range`; where the brain is.

    Attributes
    ----------
    scale
        What a reason says of the scale; empty: SUVR.
    """

    real: Array
    synthetic: Array
    mask: Mask
    data_range: float
    scale: str = ""


def measure_pair(pair: Pair, *, grid: Grid) -> Measured:
    """Measure everything on one pair.

    Parameters
    ----------
    pair
        In SUVR.
    grid
        Where its voxels lie, in MNI mm.

    Raises
    ------
    VolumeError
        When the pair cannot be compared at all.
    """
    similarity.check_pair(pair.real, pair.synthetic, pair.mask)
    sheet = Measured(equal=np.array_equal(pair.real, pair.synthetic))
    _in_3d(sheet, "", pair, pair.mask)
    _in_3d(sheet, "_volume", pair, None)
    _by_slice(sheet, "_slices", pair)
    _scaled(sheet, pair)
    _metaroi(sheet, pair, grid)
    for plane in PLANES:
        _roughness(sheet, pair, plane)
    return sheet


def _in_3d(sheet: Measured, suffix: str, pair: Pair, mask: Mask | None) -> None:
    def errors() -> Mapping[str, float]:
        return {
            f"mae{suffix}": similarity.mae(pair.real, pair.synthetic, mask=mask),
            f"mse{suffix}": similarity.mse(pair.real, pair.synthetic, mask=mask),
            f"psnr{suffix}": similarity.psnr(
                pair.real, pair.synthetic, mask=mask, data_range=pair.data_range
            ),
        }

    def structure() -> Mapping[str, float]:
        found = similarity.ssim(pair.real, pair.synthetic, mask=mask, data_range=pair.data_range)
        return {f"ssim{suffix}": found}

    where = " in the brain" if mask is not None else ""
    sheet.measure(_errors(suffix), errors, where=where + pair.scale)
    sheet.measure([f"ssim{suffix}"], structure)


def _by_slice(sheet: Measured, suffix: str, pair: Pair) -> None:
    def errors() -> Mapping[str, float]:
        found = slice_errors(pair.real, pair.synthetic, mask=pair.mask, data_range=pair.data_range)
        return {kind + suffix: value for kind, value in found.items()}

    def structure() -> Mapping[str, float]:
        found = slice_ssim(pair.real, pair.synthetic, mask=pair.mask, data_range=pair.data_range)
        return {f"ssim{suffix}": found}

    sheet.measure(_errors(suffix), errors, where=f" in every slice of the brain{pair.scale}")
    sheet.measure([f"ssim{suffix}"], structure)


def _scaled(sheet: Measured, pair: Pair) -> None:
    """Measure on the published scale: as published, in the brain, over the volume."""
    suffixes = ("_published", "_scaled", "_volume_scaled")
    try:
        real = own_range_scaled(pair.real, name="real PET")
        synthetic = own_range_scaled(pair.synthetic, name="synthetic PET")
    except VolumeError as error:
        for suffix in suffixes:
            sheet.refuse([*_errors(suffix), f"ssim{suffix}"], str(error))
        return
    scale = " once each is scaled by its own range"
    scaled = replace(pair, real=real, synthetic=synthetic, data_range=1.0, scale=scale)
    _by_slice(sheet, suffixes[0], scaled)
    _in_3d(sheet, suffixes[1], scaled, pair.mask)
    _in_3d(sheet, suffixes[2], scaled, None)


def _errors(suffix: str) -> list[str]:
    return [kind + suffix for kind in ("mae", "mse", "psnr")]


def _metaroi(sheet: Measured, pair: Pair, grid: Grid) -> None:
    def means() -> Mapping[str, float]:
        real, made = (regions.metaroi_suvr(volume, grid=grid) for volume in (pair.real, pair.synthetic))
        first, second = regions.composite(real), regions.composite(made)
        by_region = {f"real_{name}": value for name, value in real.items()}
        by_region |= {f"synthetic_{name}": value for name, value in made.items()}
        bias = second - first
        return by_region | dict(zip(whole, (abs(bias), first, second, bias), strict=True))

    whole = [f"{WHOLE}_{kind}" for kind in ("error", "real", "synthetic", "bias")]
    sheet.measure([*whole, *(f"{kind}_{name}" for name in REGIONS for kind in ("real", "synthetic"))], means)


def _roughness(sheet: Measured, pair: Pair, plane: str) -> None:
    real, synthetic, ratio = (f"roughness_{plane}_{kind}" for kind in ("real", "synthetic", "ratio"))

    def measure() -> Mapping[str, float]:
        axis = ACROSS[plane]
        found = [roughness(volume, mask=pair.mask, axis=axis) for volume in (pair.real, pair.synthetic)]
        whole = {real: found[0], synthetic: found[1]}
        return whole | ({ratio: found[1] / found[0]} if found[0] else {})

    sheet.refuse([ratio], f"the real PET is flat across {plane} slices")  # unless measured now
    sheet.measure([real, synthetic, ratio], measure)
