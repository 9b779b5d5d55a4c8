# SPDX-License-Identifier: Apache-2.0
"""What a federation is measured against: the mean PET, and each site training alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pasta_model.config import Settings
from pasta_model.data.grid import Template
from pasta_model.data.scaling import PET_SCALE
from pasta_model.data.store import SiteStore
from pasta_model.data.volume import Volume
from pasta_model.federated_sections import AggregationSettings
from server.rounds import Federation
from simulation.direct import DirectPost


def mean_pet(stores: Sequence[SiteStore]) -> Volume:
    """Return the mean SUVR volume of all training sessions of all sites, on the head grid."""
    total: NDArray[np.float64] = np.zeros(1)
    count = 0
    for store in stores:
        for index in store.indices("train"):
            total = total + store.slab(index, 0, store.slices)[1]
            count += 1
    grid: Template = stores[0].template
    suvr = PET_SCALE.to_file((total / count).astype(np.float32)).clip(min=0)
    return Volume(grid.to_head(suvr), grid.head.affine, "SUVR")


def alone_settings(settings: Settings, store: Path, output: Path) -> Settings:
    """Return the settings of a site that trains alone: the same steps, a federation of one.

    With nobody to share with, nothing is compressed, personal or averaged.
    """
    changes = {
        "run": {"name": "alone", "output": str(output), "resume": True},
        "data": {"sites": str(store.parent)},
        "federation": {
            "min_sites": 1,
            "patience": 0.0,
            "invited": "",
            "held_out": "",
            "cross_evaluation": False,
            "reference": "none",
        },
        "aggregation": AggregationSettings().model_dump(),
        "exchange": {"uplink": "float32", "downlink": "float32", "personal": ""},
    }
    own = {name: getattr(settings, name).model_copy(update=update) for name, update in changes.items()}
    return settings.model_copy(update=own)


def train_alone(store: Path, settings: Settings, output: Path) -> None:
    """Train one site alone for as many steps as in the federation, resuming if it was stopped.

    Standardisation, initial weights, steps and the choice of the best round follow the federation's
    rules, with this site's data only. Writes what a federation writes, into `output`.
    """
    own = alone_settings(settings, store, output)
    Federation(DirectPost(own, {"site-store": str(store)}), own).run()
