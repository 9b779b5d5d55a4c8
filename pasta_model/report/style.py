# SPDX-License-Identifier: Apache-2.0
"""One look for every figure: colours that colour-blind readers can tell apart, sizes, PNG bytes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito 2008.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C6D31", "#7F7F7F")
DIAGNOSES = {"CN": ("#0072B2", "o"), "MCI": ("#E69F00", "s"), "Dementia": ("#D55E00", "^")}
METHODS = {"federated": "#0072B2", "alone": "#E69F00", "mean PET": "#9AA5B1"}
NIGHT = "#101418"
INK = "#1f2933"
DPI = 130

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "text.parse_math": False,  # a "$" in a name is a dollar
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#7b8794",
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw and save inside this block; Matplotlib's settings are as before after it."""
    with rc_context(_STYLE):
        yield


def colour(index: int) -> str:
    """Colour of the series of that number; they repeat after eight."""
    return PALETTE[index % len(PALETTE)]


def method_colour(method: str, methods: Sequence[str]) -> str:
    """Colour of a method, the same in every figure; an unknown one gets the next free colour."""
    others = [m for m in methods if m not in METHODS]
    return METHODS[method] if method in METHODS else colour(2 + others.index(method))


def label_axes(axes: Axes, *, title: str, x: str, y: str) -> None:
    """Set title and axis labels of a chart."""
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def to_png(figure: Figure) -> bytes:
    """Render with Agg; the bytes hold no date or version, so equal figures are equal bytes."""
    FigureCanvasAgg(figure)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
