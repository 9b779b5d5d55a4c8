# SPDX-License-Identifier: Apache-2.0
"""The three planes in which slabs are cut out of a volume that lies as (z, x, y), axial slices first."""

from pasta_model.sections import Planes

# Which axis of (z, x, y) counts the slices of a slab; the other two stay in their order.
SLICE_AXIS = {"axial": 0, "sagittal": 1, "coronal": 2}


def each_plane(planes: Planes) -> tuple[str, ...]:
    """Return the planes that a setting names."""
    return tuple(SLICE_AXIS) if planes == "all" else (planes,)
