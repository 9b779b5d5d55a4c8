# SPDX-License-Identifier: Apache-2.0
"""Base anatomies: public templates of the healthy brain, from which every twin is deformed.

`icbm152` comes with nilearn and is always there; `ixi` comes with the optional package deepmriprep.
A further anatomy is one loader and one line of `_SOURCES`. Which are used is the user's choice, never
what happens to be installed: the same seed must give the same bytes.

Shapes: voxel arrays (x, y, z); channels last; lattice vector fields (i, j, k, 3) in mm.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pasta_model.data.grid import Grid, template
from pasta_model.errors import ConfigError
from simulation.twins import regions
from simulation.twins.fields import LATTICE, Floats, blur, to_grid

CHANNELS = (
    "t1",
    "grey",
    "white",
    "csf",
    "nuclei",
    "glucose",
    "hypometabolism",
    "atrophy",
    "brainstem",
    "ventricles",
    "hippocampus",
)
FLUID_T1, WHITE_T1 = 0.15, 1.0  # T1 is scaled so that fluid and white matter have these values
_VENTRICLE_DEPTH = 22.0  # mm below the surface of the brain


class Tissues(NamedTuple):
    """A template on a grid: T1 in any unit, grey and white matter as fractions; (x, y, z) each."""

    t1: Floats
    grey: Floats
    white: Floats


class Source(NamedTuple):
    """Where an anatomy comes from: a Python package and how to read it from its folder."""

    package: str
    install: str
    load: Callable[[Path, Grid], Tissues]


@dataclass(frozen=True)
class Anatomy:
    """A base anatomy, ready to be deformed.

    Attributes
    ----------
    maps
        (x, y, z, C) float32 in the order of `CHANNELS`.
    grey_t1
        T1 value of grey matter, with fluid 0.15 and white matter 1.
    domain
        Flat indices of the voxels that may hold brain after a deformation, (N,).
    ventricle_push
        Velocity that widens the ventricles at unit gain, mm, (i, j, k, 3).
    hippocampus_pull
        Velocity that shrinks the left and the right hippocampus at unit gain, mm, 2 x (i, j, k, 3).
    """

    name: str
    grid: Grid
    maps: Floats
    grey_t1: float
    domain: NDArray[np.int64]
    ventricle_push: Floats
    hippocampus_pull: tuple[Floats, Floats]


def _resample(path: Path, grid: Grid, *, channel: int | None = None) -> Floats:
    """Read a NIfTI file and bring it to `grid` with trilinear interpolation, blurred against aliasing."""
    image = nib.as_closest_canonical(nib.load(path))
    data = np.asarray(image.dataobj, dtype=np.float32)
    if channel is not None:
        data = data[..., channel]
    voxel = float(image.affine[0, 0])
    lost = max(grid.spacing**2 - voxel**2, 0.0) ** 0.5
    if lost:
        data = ndimage.gaussian_filter(data, 0.35 * lost / voxel, truncate=3.0)
    offset = (np.asarray(grid.origin) - image.affine[:3, 3]) / voxel
    out: Floats = ndimage.affine_transform(
        data, np.diag(np.full(3, grid.spacing / voxel)), offset, output_shape=grid.shape, order=1
    )
    return out


def _icbm152(package: Path, grid: Grid) -> Tissues:
    """ICBM152 2009a symmetric: skull-stripped T1, grey and white matter as bytes 0..255."""
    folder = package / "datasets" / "data"
    t1, grey, white = (
        _resample(folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz", grid)
        for kind in ("t1", "gm", "wm")
    )
    return Tissues(t1, grey / 255.0, white / 255.0)


def _ixi(package: Path, grid: Grid) -> Tissues:
    """CAT12's geodesic-shooting template of the IXI cohort, with its skull-stripped mean T1."""
    folder = package / "data" / "templates"
    grey, white = (_resample(folder / "Template_4_GS.nii.gz", grid, channel=k) for k in (0, 1))
    return Tissues(_resample(folder / "Template_05mm_bet.nii.gz", grid), grey, white)


_SOURCES = {
    "icbm152": Source("nilearn", "pip install nilearn", _icbm152),
    "ixi": Source("deepmriprep", "pip install --no-deps deepmriprep==0.3.0", _ixi),
}


def check_anatomies(names: tuple[str, ...]) -> None:
    """Find out before any work whether every named anatomy can be loaded.

    Raises
    ------
    ConfigError
        When a name is unknown or its package is not installed; the message says what to install.
    """
    for name in names:
        _package_folder(name)


def _package_folder(name: str) -> Path:
    """Folder of the package of an anatomy, found without importing the package."""
    if name not in _SOURCES:
        raise ConfigError(f"no base anatomy {name!r}; choose from {sorted(_SOURCES)}")
    source = _SOURCES[name]
    spec = importlib.util.find_spec(source.package)
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"the base anatomy {name!r} needs the package {source.package!r}, which is not installed:"
            f" {source.install}, or leave {name!r} out of the anatomies"
        )
    return Path(spec.origin).parent


@lru_cache(maxsize=4)
def load_anatomy(name: str, *, spacing: float) -> Anatomy:
    """Load a base anatomy at `spacing` mm; a second call is free.

    Raises
    ------
    ConfigError
        When the name is unknown or its package is not installed.
    """
    folder = _package_folder(name)
    grid = template(spacing).head
    t1, grey, white = _SOURCES[name].load(folder, grid)
    inside = _brain_mask(t1, grey + white, spacing=spacing)
    grey, white = _fractions(grey, white, inside)
    csf = np.clip(inside - grey - white, 0, 1)
    ventricles = _ventricles(csf, inside, grid)
    t1, grey_t1 = _normalise(t1, grey, white, csf, ventricles=ventricles)
    nuclei, fields = _region_maps(grid, grey, white)
    stem = regions.brainstem_map(grid)
    sides = [regions.hippocampus_map(grid, side=side) for side in (-1, 1)]
    maps = (t1 * inside, grey, white, csf, nuclei, *np.moveaxis(fields, -1, 0), stem, ventricles, sum(sides))
    reach = ndimage.binary_dilation(inside, iterations=round(12.0 / spacing))
    return Anatomy(
        name=name,
        grid=grid,
        maps=np.ascontiguousarray(np.stack(maps, axis=-1), dtype=np.float32),
        grey_t1=grey_t1,
        domain=np.flatnonzero(reach),
        ventricle_push=_ventricle_push(ventricles, grid),
        hippocampus_pull=(_hippocampus_pull(side=-1), _hippocampus_pull(side=1)),
    )


def _brain_mask(t1: Floats, tissue: Floats, *, spacing: float) -> NDArray[np.bool_]:
    """Brain with its inner fluid: close the tissue over the sulci and fill the ventricles."""
    solid = ndimage.gaussian_filter(tissue, 1.5 / spacing) > 0.35
    closed = ndimage.binary_closing(solid, iterations=round(6.0 / spacing))
    filled = ndimage.binary_fill_holes(closed)
    mask: NDArray[np.bool_] = filled & (t1 > 0.02 * np.percentile(t1[filled], 95))
    return mask


def _fractions(grey: Floats, white: Floats, inside: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Tissue fractions inside the brain, together at most 1."""
    total = np.maximum(grey + white, 1.0)
    return np.clip(grey / total, 0, 1) * inside, np.clip(white / total, 0, 1) * inside


def _normalise(
    t1: Floats, grey: Floats, white: Floats, csf: Floats, *, ventricles: Floats
) -> tuple[Floats, float]:
    """Scale T1 to fluid 0.15 and white matter 1; return it with the value of grey matter."""
    pure_white = float(np.median(t1[white > 0.95]))
    pure_grey = float(np.median(t1[grey > 0.9]))
    fluid = float(np.percentile(t1[ventricles > 0.9], 25))
    gain = (WHITE_T1 - FLUID_T1) / (pure_white - fluid)
    scaled = np.clip((t1 - fluid) * gain + FLUID_T1, 0, 1.35)
    grey_t1 = (pure_grey - fluid) * gain + FLUID_T1
    # A mean over many people is soft in the sulci: its tissue maps give some contrast back.
    crisp = FLUID_T1 * csf + grey_t1 * grey + WHITE_T1 * white
    return 0.5 * (scaled + crisp), grey_t1


def _region_maps(grid: Grid, grey: Floats, white: Floats) -> tuple[Floats, Floats]:
    """White matter that deep nuclei really are, (x, y, z), and the three weights, (x, y, z, 3)."""
    nodes = LATTICE.coordinates().reshape(-1, 3)
    fields = to_grid(regions.cortex_fields(nodes).reshape(*LATTICE.shape, 3), grid)
    nuclei = np.zeros(grid.shape, dtype=np.float32)
    for nucleus in regions.NUCLEI:
        member = regions.nucleus_map(grid, nucleus.region)
        fields += member[..., None] * (np.asarray(nucleus.weights, np.float32) - fields)
        nuclei = np.maximum(nuclei, member * np.clip(nucleus.grey - grey, 0, white))
    for side in (-1, 1):
        member = regions.hippocampus_map(grid, side=side, edge=2.0)
        fields += member[..., None] * (np.asarray(regions.HIPPOCAMPUS, np.float32) - fields)
    return nuclei, fields


def _ventricles(csf: Floats, inside: NDArray[np.bool_], grid: Grid) -> Floats:
    """Fluid of the lateral and third ventricles: deep, central and in the largest pieces; (x, y, z)."""
    central = _ventricle_space(grid)
    depth = ndimage.distance_transform_edt(inside) * grid.spacing
    pieces, count = ndimage.label((csf > 0.35) & central & (depth > _VENTRICLE_DEPTH))
    sizes = ndimage.sum_labels(np.ones(grid.shape), pieces, index=np.arange(1, count + 1))
    large = 1 + np.flatnonzero(sizes * grid.spacing**3 > 1000.0)
    body = ndimage.binary_dilation(np.isin(pieces, large))
    return (csf * body).astype(np.float32)


def _ventricle_space(grid: Grid) -> NDArray[np.bool_]:
    """Where a ventricle may lie; the cisterns and the fissure between the hemispheres are left out."""
    x, y, z = np.moveaxis(grid.coordinates(), -1, 0)
    side = np.abs(x)
    box = (side < 45) & (y > -62) & (y < 42) & (z < 38)
    above_cisterns = z > np.where(side < 25, -8, -22)
    third_or_lateral = (side > 3) | ((z < 12) & (y < 5))
    before_cistern = (side > 10) | (y > -32)
    space: NDArray[np.bool_] = box & above_cisterns & third_or_lateral & before_cistern
    return space


def _ventricle_push(ventricles: Floats, grid: Grid) -> Floats:
    """Gradient of the blurred ventricles: sampling along it widens them; (i, j, k, 3)."""
    soft = blur(ventricles, fwhm=20.0, spacing=grid.spacing)
    slope = np.stack(np.gradient(soft, grid.spacing), axis=-1)
    nodes = (LATTICE.coordinates() - np.asarray(grid.origin, np.float32)) / grid.spacing
    index = np.moveaxis(nodes, -1, 0)
    sampled = [ndimage.map_coordinates(slope[..., c], index, order=1, mode="constant") for c in range(3)]
    return np.stack(sampled, axis=-1).astype(np.float32)


def _hippocampus_pull(*, side: int) -> Floats:
    """Velocity away from the middle of a hippocampus, within and around it; (i, j, k, 3)."""
    weight = regions.hippocampus_map(LATTICE, side=side, edge=2.4)
    offset = LATTICE.coordinates() - regions.hippocampus_centre(side=side)
    return blur(weight, fwhm=10.0, spacing=LATTICE.spacing)[..., None] * offset
