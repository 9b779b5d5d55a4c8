# SPDX-License-Identifier: Apache-2.0
"""Cost of a prepared store: bytes a subject, and time a random slab against loading the volume.

Run: python -m benchmarks.store [SPACING]
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pasta_model.data.grid import template
from pasta_model.data.manifest import Session
from pasta_model.data.store import prepare_store
from pasta_model.data.volume import Volume, read_volume, write_volume


def main(spacing: float, sessions: int = 8, slab: int = 15) -> None:
    """Make a store of random volumes and time reading from it."""
    grid = template(spacing).head
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for i in range(sessions):
            paths = [Path(folder) / f"{i}-{kind}.nii.gz" for kind in ("mri", "pet")]
            for path in paths:
                write_volume(path, Volume(rng.random(grid.shape, dtype=np.float32), grid.affine))
            made.append(Session(f"sub-{i}", "ses-1", "north", "CN", paths[0], paths[1], split="train"))
        store = prepare_store(Path(folder) / "store", made, spacing=spacing)
        size = sum(f.stat().st_size for f in (Path(folder) / "store").iterdir())
        repeats = 400
        start = time.perf_counter()
        for _ in range(repeats):
            store.slab(int(rng.integers(sessions)), int(rng.integers(store.slices - slab)), slab)
        slab_ms = (time.perf_counter() - start) / repeats * 1e3
        start = time.perf_counter()
        for session in made:
            read_volume(session.mri)
            read_volume(session.pet)
        volume_ms = (time.perf_counter() - start) / sessions * 1e3
    print(f"{spacing} mm: {size / sessions / 1e6:.2f} MB a subject; slab of {slab}: {slab_ms:.3f} ms;")
    print(f"loading the pair of volumes instead: {volume_ms:.1f} ms, {volume_ms / slab_ms:.0f} times longer")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.5)
