# SPDX-License-Identifier: Apache-2.0
"""The layers of the viewer: colours, limits and steps, the same for every case and every report."""

from dataclasses import dataclass, field

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_hex

from pasta_model.report.page import ShownLayer
from pasta_model.report.panels import DIFFERENCE, DIFFERENCE_LIMIT, PET_LIMITS

# Of `report.surfaces`: the strongest hypometabolism is the brightest; here, what is above the norm is blue.
_BELOW = ("#fff7c9", "#ffd75e", "#ff9a2e", "#ee4e2b", "#b3163e", "#5f0f55")
_ABOVE = ("#14365c", "#3aa0ff", "#b8f3ff")
Z_COLOURS = LinearSegmentedColormap.from_list(
    "z", [*zip(np.linspace(0, 0.335, 6), _BELOW, strict=True), *zip((0.665, 0.8, 1), _ABOVE, strict=True)]
)
COLOURS = 33  # control points of a colour map
Z_LIMIT = 5.0
UNCERTAINTY_LIMIT = 0.25  # SUVR
MRI = "mri"


@dataclass(frozen=True)
class Layer:
    """A layer, and how finely its values are kept.

    Attributes
    ----------
    step
        Between two neighbouring values of a volume, in `unit`; wider where 256 steps do not span the volume.
    signed
        Whether values lie on both sides of 0.
    """

    shown: ShownLayer
    step: float
    signed: bool = False
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.shown.key)


def _layer(
    key: str, label: str, unit: str, *, digits: int, colours: str | Colormap, step: float,
    limits: tuple[float, float] | None, clear: float = 0.0, words: str = "",
) -> Layer:  # fmt: skip
    """Make a layer; values nearer to 0 than `clear`, a share of the upper limit, let the MRI through."""
    places = np.linspace(0, 1, COLOURS)
    drawn = colormaps[colours] if isinstance(colours, str) else colours
    signed = limits is not None and limits[0] < 0
    distance = np.abs(2 * places - 1) if signed else places
    # Clear below `clear`, opaque from twice of it on; a limit of the MRI's own is left to NiiVue.
    opacities = np.clip(distance / clear - 1, 0, 1) if clear else np.ones_like(places)
    shown = ShownLayer(
        key=key, label=label, unit=unit, digits=digits, limits=limits, help=words,
        colours=[to_hex(drawn(place)) for place in places],
        opacities=[round(float(value), 3) for value in opacities],
    )  # fmt: skip
    return Layer(shown, step=step, signed=signed)


LAYERS = (
    _layer(
        MRI, "MRI", "", digits=0, colours="gray", step=0.0, limits=None,
        words="T1-weighted MRI without its skull: the base of all others",
    ),
    _layer(
        "real", "Real PET", "SUVR", digits=2, colours="inferno", step=0.01, limits=PET_LIMITS, clear=0.02,
        words="The PET that was measured",
    ),
    _layer(
        "synthetic", "Synthetic PET", "SUVR", digits=2, colours="inferno", step=0.01, limits=PET_LIMITS,
        clear=0.02, words="The PET that was made from the MRI",
    ),
    _layer(
        "difference", "Synthetic \u2212 real", "SUVR", digits=2, colours=DIFFERENCE, step=0.01,
        limits=(-DIFFERENCE_LIMIT, DIFFERENCE_LIMIT), clear=0.1,
        words="Blue: the synthetic PET is too low; red: too high; clear: they agree within 0.04 to 0.08",
    ),
    _layer(
        "z_real", "z, real", "z", digits=1, colours=Z_COLOURS, step=0.05, limits=(-Z_LIMIT, Z_LIMIT),
        clear=0.25, words="The real PET against healthy subjects of this age; bright: hypometabolism",
    ),
    _layer(
        "z_synthetic", "z, synthetic", "z", digits=1, colours=Z_COLOURS, step=0.05,
        limits=(-Z_LIMIT, Z_LIMIT), clear=0.25, words="The synthetic PET against the same norms",
    ),
    _layer(
        "uncertainty", "Uncertainty", "SUVR", digits=3, colours="viridis", step=0.002,
        limits=(0.0, UNCERTAINTY_LIMIT), clear=0.08, words="Standard deviation of several synthetic PETs",
    ),
)  # fmt: skip
BY_KEY = {layer.key: layer for layer in LAYERS}
