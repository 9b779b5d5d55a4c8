# SPDX-License-Identifier: Apache-2.0
"""What a hospital's scanners do to a brain: contrast, shading, resolution, noise and scale.

Shapes: (x, y, z) on the head grid of the twin.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pasta_model.data.grid import Grid
from simulation.twins.fields import FWHM, Floats, blur, smooth_noise, to_grid

Vendor = Literal["Siemens", "GE", "Philips"]
FieldStrength = Literal["1.5 T", "3 T"]
FIELDS: tuple[FieldStrength, ...] = get_args(FieldStrength)
VENDORS: tuple[Vendor, ...] = get_args(Vendor)
# Lowest and highest PET resolution of a vendor's models, FWHM in mm; ADNI spans about 4 to 8.5 mm.
_RESOLUTION: dict[Vendor, tuple[float, float]] = {
    "Siemens": (4.0, 6.5),
    "GE": (5.0, 7.5),
    "Philips": (6.0, 8.5),
}


@dataclass(frozen=True)
class Scanner:
    """The MRI and PET scanners of a site, and the habits of its staff.

    Attributes
    ----------
    contrast
        Exponent of the T1 intensities.
    mri_blur
        FWHM in mm.
    shading
        Standard deviation of the log of the MRI's bias field.
    mri_snr
        White matter over noise.
    mri_scale
        Value of white matter, scanner units.
    resolution
        FWHM of the PET along x, y, z in mm.
    pet_noise
        Relative to the mean uptake in the brain.
    pet_grain
        FWHM of the PET's noise in mm.
    pet_gain_error
        Standard deviation of the log of a smooth error of gain.
    """

    vendor: Vendor
    field: FieldStrength
    contrast: float
    mri_blur: float
    shading: float
    mri_snr: float
    mri_scale: float
    resolution: tuple[float, float, float]
    pet_noise: float
    pet_grain: float
    pet_gain_error: float

    @property
    def label(self) -> str:
        """Short words for a table."""
        return f"{self.vendor} {self.field} MRI, PET {np.mean(self.resolution):.1f} mm"


def sample_scanner(
    rng: np.random.Generator, *, vendor: Vendor | None = None, field: FieldStrength | None = None
) -> Scanner:
    """Draw the scanners of a site; `vendor` and `field` hold one of their choices fixed."""
    drawn_vendor: Vendor = VENDORS[int(rng.choice(3, p=[0.5, 0.3, 0.2]))]
    drawn_field: FieldStrength = FIELDS[int(rng.choice(2, p=[0.35, 0.65]))]
    vendor, field = vendor or drawn_vendor, field or drawn_field
    width = rng.uniform(*_RESOLUTION[vendor]) * rng.normal((1.0, 1.0, 1.05), 0.03)
    x, y, z = (round(float(w), 3) for w in np.clip(width, 4.0, 8.5))
    return Scanner(
        vendor=vendor,
        field=field,
        contrast=float(rng.normal(1.0, 0.10)),
        mri_blur=float(rng.uniform(0.0, 1.6)),
        shading=float(abs(rng.normal(0.06, 0.03))),
        mri_snr=float(rng.uniform(22, 45) * (1.0 if field == "3 T" else 0.75)),
        mri_scale=float(np.exp(rng.normal(5.5, 0.6))),
        resolution=(x, y, z),
        pet_noise=float(rng.uniform(0.02, 0.06)),
        pet_grain=float(rng.uniform(4.0, 6.5)),
        pet_gain_error=float(np.clip(rng.normal(0.02, 0.008), 0.005, 0.04)),
    )


def acquire_mri(
    rng: np.random.Generator, t1: Floats, *, brain: NDArray[np.bool_], scanner: Scanner, grid: Grid
) -> Floats:
    """Scan a T1 map (white matter 1) and strip the skull; (x, y, z) in scanner units."""
    signal = np.clip(t1, 0, None) ** np.float32(scanner.contrast)
    signal = blur(signal, fwhm=scanner.mri_blur, spacing=grid.spacing)
    signal *= np.exp(scanner.shading * to_grid(smooth_noise(rng, fwhm=60.0), grid))
    sigma = np.float32(1.0 / scanner.mri_snr)
    real, imaginary = (sigma * rng.standard_normal(grid.shape, dtype=np.float32) for _ in range(2))
    magnitude = np.hypot(signal + real, imaginary)  # Rician noise
    scan: Floats = (magnitude * brain * np.float32(scanner.mri_scale)).astype(np.float32)
    return scan


def acquire_pet(
    rng: np.random.Generator, uptake: Floats, *, brain: NDArray[np.bool_], scanner: Scanner, grid: Grid
) -> Floats:
    """Scan a map of uptake: resolution, correlated noise, gain error; (x, y, z) in its unit."""
    sigma = [width / FWHM / grid.spacing for width in scanner.resolution]
    pet = np.clip(ndimage.gaussian_filter(uptake, sigma, mode="constant", truncate=3.0), 0, None)
    white = rng.standard_normal(grid.shape, dtype=np.float32) * np.sqrt(pet + np.float32(0.03))
    noise = blur(white, fwhm=scanner.pet_grain, spacing=grid.spacing)
    noise *= scanner.pet_noise * pet[brain].mean() / noise[brain].std()
    gain = np.exp(scanner.pet_gain_error * to_grid(smooth_noise(rng, fwhm=80.0), grid))
    scan: Floats = (np.clip(pet + noise, 0, None) * gain).astype(np.float32)
    return scan
