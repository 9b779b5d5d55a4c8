# SPDX-License-Identifier: Apache-2.0
"""The columns of every table of scores: name, heading, unit, direction, and what each family measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pasta_model.data.metaroi import METAROI_REGIONS
from pasta_model.evaluation.estimates import NOT_AVAILABLE, Estimate


class Row(Protocol):
    """A score of one session, or the means of a group."""

    @property
    def values(self) -> Mapping[str, float | None] | Mapping[str, Estimate]:
        """By metric name."""


@dataclass(frozen=True)
class Metric:
    """A column of the tables.

    Attributes
    ----------
    higher_is_better
        None where neither is: a signed bias, a property of the real PET.
    digits
        After the point, in a table.
    family
        Where and on which scale it is measured; a key of `FAMILIES`.
    """

    name: str
    label: str
    unit: str
    higher_is_better: bool | None
    digits: int
    family: str

    @property
    def heading(self) -> str:
        """Label with unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def of(self, row: Row) -> float | None:
        """Value of this metric in a row; None where it is not available."""
        value = row.values.get(self.name)
        return value.value if isinstance(value, Estimate) else value

    def estimate(self, row: Row) -> Estimate:
        """Value of this metric in a row, with its interval or its reason."""
        value = row.values.get(self.name)
        if isinstance(value, Estimate):
            return value
        return Estimate(value, why="" if value is not None else "not measured")

    def text(self, value: float | None) -> str:
        """Value as it is shown in a table."""
        return NOT_AVAILABLE if value is None else f"{value:.{self.digits}f}"


FAMILIES: Mapping[str, str] = {
    "brain": "3D, inside the brain, in SUVR (SSIM and PSNR: of the range 0 to 3)",
    "volume": "3D, over the whole volume with its background, in SUVR",
    "slices": "mean over the axial slices that contain brain (PSNR: and differ), with background, in SUVR",
    "published": "the same slices, each volume min-max scaled to [0, 1] by its own range, as published",
    "scaled": "3D, each volume min-max scaled to [0, 1] by its own range",
    "metaroi": "mean SUVR of the MetaROI: five regions that Alzheimer's disease makes hypometabolic",
    "roughness": "second difference across neighbouring slices in the brain, in SUVR",
}
PLANES = ("axial", "coronal", "sagittal")
REGIONS = tuple(region.name for region in METAROI_REGIONS)
WHOLE = "metaroi"
"""The mean of the five regions, beside them."""

_KINDS = (  # name, label, unit in SUVR, unit on [0, 1], direction, digits
    ("mae", "MAE", "SUVR", "of [0, 1]", False, 4),
    ("mse", "MSE", "SUVR²", "of [0, 1]", False, 4),
    ("psnr", "PSNR", "dB", "dB", True, 2),
    ("ssim", "SSIM", "", "", True, 4),
)


def _similarity(suffix: str, words: str, family: str, *, scaled: bool = False) -> tuple[Metric, ...]:
    return tuple(
        Metric(name + suffix, label + words, unit_scaled if scaled else unit, higher, digits, family)
        for name, label, unit, unit_scaled, higher, digits in _KINDS
    )


def _regions() -> tuple[Metric, ...]:
    return tuple(
        Metric(f"{kind}_{name}", f"{name.replace('_', ' ')}, {kind} PET", "SUVR", None, 4, "metaroi")
        for name in REGIONS
        for kind in ("real", "synthetic")
    )


def _roughness() -> tuple[Metric, ...]:
    kinds = (("real", "real PET", "SUVR"), ("synthetic", "synthetic PET", "SUVR"), ("ratio", "ratio", ""))
    return tuple(
        Metric(f"roughness_{plane}_{kind}", f"roughness {plane}, {words}", unit, None, 4, "roughness")
        for plane in PLANES
        for kind, words, unit in kinds
    )


_BRAIN = _similarity("", "", "brain")
_ERROR = Metric("metaroi_error", "MetaROI error", "SUVR", higher_is_better=False, digits=4, family="metaroi")
METRICS = (_BRAIN[0], _BRAIN[2], _BRAIN[3], _ERROR)
"""The four of every headline table."""
ALL_METRICS = (
    *_BRAIN,
    *_similarity("_volume", ", volume", "volume"),
    *_similarity("_slices", ", slices", "slices"),
    *_similarity("_published", ", as published", "published", scaled=True),
    *_similarity("_scaled", ", brain, scaled", "scaled", scaled=True),
    *_similarity("_volume_scaled", ", volume, scaled", "scaled", scaled=True),
    _ERROR,
    Metric("metaroi_real", "MetaROI, real PET", "SUVR", None, 4, "metaroi"),
    Metric("metaroi_synthetic", "MetaROI, synthetic PET", "SUVR", None, 4, "metaroi"),
    Metric("metaroi_bias", "MetaROI bias", "SUVR", None, 4, "metaroi"),
    *_regions(),
    *_roughness(),
)
PAPER: Mapping[str, float] = {"mae_published": 0.0345, "psnr_published": 24.59, "ssim_published": 0.8629}
"""What the paper reports of its whole model on ADNI (Li et al. 2026; there MAE and SSIM in percent)."""
BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in ALL_METRICS}
