# SPDX-License-Identifier: Apache-2.0
"""The layers of the viewer: colours, limits and steps, the same for every case and every report."""

from dataclasses import dataclass

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
Z_SHOWN = 1.65  # one in twenty of a healthy voxel is below
COLOURS = 101  # control points of a colour map
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

    @property
    def key(self) -> str:
        """Of the volume in a case."""
        return self.shown.key


def _layer(
    key: str, label: str, unit: str, *, digits: int, colours: str | Colormap, step: float, words: str,
    limits: tuple[float, float] | None, clear: float = -1.0,
) -> Layer:  # fmt: skip
    """Make a layer; where a value is nearer to 0 than a share of its upper limit, the MRI is seen.

    NiiVue draws a colour of an overlay or it does not; half-clear ones it makes opaque.
    """
    places = np.linspace(0, 1, COLOURS)
    drawn = colormaps[colours] if isinstance(colours, str) else colours
    signed = limits is not None and limits[0] < 0
    distance = np.abs(2 * places - 1) if signed else places
    shown = ShownLayer(
        key=key, label=label, unit=unit, digits=digits, limits=limits, help=words,
        colours=[to_hex(drawn(place)) for place in places],
        opaque=[bool(value > clear) for value in distance],
    )  # fmt: skip
    return Layer(shown, step=step, signed=signed)


LAYERS = (
    _layer(
        MRI, "MRI", "", digits=0, colours="gray", step=0.0, limits=None,
        words="T1-weighted MRI without its skull: the base of all others",
    ),
    _layer(
        "real", "Real PET", "SUVR", digits=2, colours="inferno", step=0.01, limits=PET_LIMITS,
        words="The PET that was measured",
    ),
    _layer(
        "synthetic", "Synthetic PET", "SUVR", digits=2, colours="inferno", step=0.01, limits=PET_LIMITS,
        words="The PET that was made from the MRI",
    ),
    _layer(
        "difference", "Synthetic \u2212 real", "SUVR", digits=2, colours=DIFFERENCE, step=0.01,
        limits=(-DIFFERENCE_LIMIT, DIFFERENCE_LIMIT),
        words="Blue: the synthetic PET is too low; red: too high; black: they agree",
    ),
    _layer(
        "z_real", "z, real", "SD", digits=1, colours=Z_COLOURS, step=0.05, limits=(-Z_LIMIT, Z_LIMIT),
        clear=Z_SHOWN / Z_LIMIT, words="The real PET against healthy people of that age; bright: low",
    ),
    _layer(
        "z_synthetic", "z, synthetic", "SD", digits=1, colours=Z_COLOURS, step=0.05,
        limits=(-Z_LIMIT, Z_LIMIT), clear=Z_SHOWN / Z_LIMIT, words="The synthetic PET against the same norms",
    ),
    _layer(
        "uncertainty", "Uncertainty", "SUVR", digits=3, colours="viridis", step=0.002,
        limits=(0.0, UNCERTAINTY_LIMIT), clear=0.0, words="Spread (SD) of several synthetic PETs",
    ),
)  # fmt: skip
BY_KEY = {layer.key: layer for layer in LAYERS}
