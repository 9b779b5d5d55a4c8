# SPDX-License-Identifier: Apache-2.0
"""Which of the three ways in an input takes."""

from collections.abc import Sequence
from pathlib import Path

from pasta_model.errors import ManifestError
from pasta_model.prepare.adni import read_table
from pasta_model.prepare.bids import read_bids
from pasta_model.prepare.published_hdf5 import read_published
from pasta_model.prepare.records import Visit

HDF5 = (".h5", ".hdf5")


def read_source(paths: Sequence[Path], *, site: str | None = None) -> tuple[Visit, ...]:
    """Read the visits of a BIDS folder, of a table, or of HDF5 files.

    Raises
    ------
    ManifestError
        When the input is none of these, or holds no visit.
    """
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise ManifestError(f"{', '.join(missing)}: no such file or folder; check the path")
    if all(path.suffix in HDF5 for path in paths):
        return read_published(paths, site=site)
    if len(paths) == 1 and paths[0].is_dir():
        return read_bids(paths[0], site=site)
    if len(paths) == 1 and paths[0].suffix in (".csv", ".tsv"):
        return read_table(paths[0], site=site)
    raise ManifestError(
        f"found {', '.join(str(p) for p in paths)};"
        " wanted one BIDS folder, one table (.csv, .tsv), or HDF5 files"
    )
