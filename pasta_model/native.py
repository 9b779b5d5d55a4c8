# SPDX-License-Identifier: Apache-2.0
"""Back to the patient: a synthetic PET in the raw scan's own space, with its regions.

The scan is prepared in memory; nothing of it is kept but what the synthetic PET needs.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from pasta_model.data.grid import template_of
from pasta_model.data.metaroi import region_masks
from pasta_model.data.tables import write_table
from pasta_model.data.volume import Volume, write_volume
from pasta_model.prepare.records import RawScan
from pasta_model.prepare.scans import read_mri
from pasta_model.prepare.session import Prepared, prepare_scans
from pasta_model.prepare.settings import PrepareSettings
from pasta_model.prepare.transforms import grid_volume, resample
from pasta_model.synthesis import SyntheticPet

MNI, NATIVE = "space-MNI152", "space-T1w"


@contextmanager
def prepared_mri(path: Path, settings: PrepareSettings) -> Iterator[Prepared]:
    """Yield a raw T1 prepared for synthesis; its transforms live as long as the block.

    Raises
    ------
    VolumeError
        When the scan cannot be used (see `prepare.scans` and `prepare.session`).
    """
    with tempfile.TemporaryDirectory(prefix="pasta-") as folder:
        yield prepare_scans(read_mri(RawScan(path, "")), None, Path(folder), settings=settings)


def to_native(volume: Volume, prepared: Prepared) -> Volume:
    """Bring a volume from MNI space to the raw MRI's own voxels, in one interpolation."""
    return resample(volume, onto=prepared.native, transforms=prepared.alignment.from_mri)


def region_rows(made: SyntheticPet, prepared: Prepared) -> list[tuple[str, float, float | None]]:
    """Return name, mean SUVR and mean spread of each MetaROI region, the atlas fitted to this head.

    The last row is the mean of the regions.
    """
    grid = template_of(made.mean.data.shape, made.mean.affine).head
    fitted = [_on_atlas(v, prepared) if v else None for v in (made.mean, made.spread)]
    rows = []
    for name, mask in region_masks(grid).items():
        mean, spread = (None if v is None else float(v.data[mask].mean(dtype=np.float64)) for v in fitted)
        assert mean is not None
        rows.append((name, mean, spread))
    spreads = [spread for _, _, spread in rows if spread is not None]
    whole = float(np.mean([mean for _, mean, _ in rows]))
    return [*rows, ("metaroi", whole, float(np.mean(spreads)) if spreads else None)]


def _on_atlas(volume: Volume, prepared: Prepared) -> Volume:
    """Bring a volume in MNI space onto the atlas, structure on structure."""
    if prepared.alignment.bent:
        return volume
    onto = grid_volume(template_of(volume.data.shape, volume.affine).head)
    return resample(to_native(volume, prepared), onto=onto, transforms=prepared.alignment.atlas_to_mri)


def write_native(
    pet_path: Path, made: SyntheticPet, prepared: Prepared, *, words: tuple[str, str]
) -> list[Path]:
    """Write the PET and its spread in the scan's own space, and the table of regions; return the files.

    Parameters
    ----------
    pet_path
        Of the PET in MNI space; the others stand beside it.
    words
        NIfTI descriptions of the PET and of the spread.
    """
    files = []
    for volume, name, description in zip(
        (made.mean, made.spread), ("desc-synthetic_pet", "desc-syntheticSpread_pet"), words, strict=True
    ):
        if volume is not None:
            path = pet_path.with_name(native_name(pet_path.name).replace("desc-synthetic_pet", name))
            back = replace(to_native(volume, prepared), unit="SUVR")
            write_volume(path, back, description=description, space="scanner")
            files.append(path)
    table = pet_path.with_name(native_name(pet_path.name).replace("_pet.nii.gz", "_metaroi.tsv"))
    write_table(
        table,
        ("region", "synthetic_suvr", "spread"),
        [
            (name, f"{mean:.4f}", "n/a" if spread is None else f"{spread:.4f}")
            for name, mean, spread in region_rows(made, prepared)
        ],
    )
    return [*files, table]


def native_name(name: str) -> str:
    """Return the name in the scan's own space of a file in MNI space."""
    return name.replace(MNI, NATIVE)
