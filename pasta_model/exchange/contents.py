# SPDX-License-Identifier: Apache-2.0
"""THE list of what may leave a hospital, and of what a hospital is sent.

Everything that crosses the line between a site and the server is one of the types below, and
nothing else: no scan, no row of a table, no subject's name. A test compares real replies with it.

=============  ==========  =======================================================
type           direction   content
=============  ==========  =======================================================
`NodeReport`   site out    names of the sites that a node serves
`Invitation`   site in     the site that is asked to join
`SiteReport`   site out    site's name, subjects a split, sums of clinical columns
`TrainTask`    site in     site, round, weights, standardisation
`TrainReport`  site out    weights after local steps, subjects, three metrics
`Refusal`      site out    a code and a reference; the text stays in the site's log
=============  ==========  =======================================================
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pasta_model.data.clinical import Moments, Standardisation
from pasta_model.errors import ExchangeError
from pasta_model.exchange.packing import Buffers

SITES = "query.sites"  # Flower message types
JOIN = "query.join"
TRAIN = "train"
EVALUATE = "evaluate"

Value = bool | int | float | str | list[float] | list[str]


@dataclass(frozen=True)
class Parcel:
    """A message without its transport: named arrays and named plain values."""

    values: dict[str, Value]
    arrays: Buffers


@dataclass(frozen=True)
class NodeReport:
    """Which sites a node serves: one in a deployment, several in a simulation."""

    sites: tuple[str, ...]

    def parcel(self) -> Parcel:
        """Pack for the wire."""
        return Parcel({"sites": list(self.sites)}, {})

    @classmethod
    def of(cls, parcel: Parcel) -> Self:
        """Unpack and check."""
        _exactly(parcel, {"sites"}, set())
        names = parcel.values["sites"]
        if not isinstance(names, list):
            raise ExchangeError(f"found {names!r} in a message, wanted a list of names")
        return cls(tuple(_text(name) for name in names))


@dataclass(frozen=True)
class Invitation:
    """A site is asked to join."""

    site: str

    def parcel(self) -> Parcel:
        """Pack for the wire."""
        return Parcel({"site": self.site}, {})

    @classmethod
    def of(cls, parcel: Parcel) -> Self:
        """Unpack and check."""
        _exactly(parcel, {"site"}, set())
        return cls(_text(parcel.values["site"]))


@dataclass(frozen=True)
class SiteReport:
    """A site's answer to an invitation.

    Attributes
    ----------
    moments
        Counts, sums and sums of squares of the clinical columns of the training subjects.
    """

    site: str
    train_subjects: int
    valid_subjects: int
    moments: Moments

    def parcel(self) -> Parcel:
        """Pack for the wire."""
        values: dict[str, Value] = {
            "site": self.site,
            "train-subjects": self.train_subjects,
            "valid-subjects": self.valid_subjects,
        }
        m = self.moments
        return Parcel(values, {"count": m.count, "total": m.total, "squares": m.squares})

    @classmethod
    def of(cls, parcel: Parcel) -> Self:
        """Unpack and check."""
        _exactly(parcel, {"site", "train-subjects", "valid-subjects"}, {"count", "total", "squares"})
        v, a = parcel.values, parcel.arrays
        _finite(a)
        return cls(
            _text(v["site"]),
            _count(v["train-subjects"]),
            _count(v["valid-subjects"]),
            Moments(a["count"], a["total"], a["squares"]),
        )


@dataclass(frozen=True)
class TrainTask:
    """What a site is asked to do in a round: evaluate the weights, and train them on."""

    site: str
    round: int
    standardisation: Standardisation
    weights: Buffers

    def parcel(self) -> Parcel:
        """Pack for the wire."""
        values: dict[str, Value] = {
            "site": self.site,
            "round": self.round,
            "mean": list(self.standardisation.mean),
            "spread": list(self.standardisation.spread),
        }
        return Parcel(values, self.weights)

    @classmethod
    def of(cls, parcel: Parcel) -> Self:
        """Unpack and check; the weights are checked against the network's layout later."""
        _exactly(parcel, {"site", "round", "mean", "spread"}, None)
        v = parcel.values
        standardisation = Standardisation(_floats(v["mean"]), _floats(v["spread"]))
        return cls(_text(v["site"]), _count(v["round"]), standardisation, parcel.arrays)


@dataclass(frozen=True)
class TrainReport:
    """A site's answer: its weights, and how it went.

    Attributes
    ----------
    valid_mae
        SUVR, of the *received* model on the site's validation slabs.
    train_loss
        Mean loss of the local steps; 0 when it was only asked to evaluate.
    """

    site: str
    round: int
    subjects: int
    train_loss: float
    valid_mae: float
    seconds: float
    weights: Buffers

    def parcel(self) -> Parcel:
        """Pack for the wire."""
        values: dict[str, Value] = {
            "site": self.site,
            "round": self.round,
            "subjects": self.subjects,
            "train-loss": self.train_loss,
            "valid-mae": self.valid_mae,
            "seconds": self.seconds,
        }
        return Parcel(values, self.weights)

    @classmethod
    def of(cls, parcel: Parcel) -> Self:
        """Unpack and check: exact names, finite numbers."""
        names = {"site", "round", "subjects", "train-loss", "valid-mae", "seconds"}
        _exactly(parcel, names, None)
        _finite(parcel.arrays)
        v = parcel.values
        return cls(
            _text(v["site"]),
            _count(v["round"]),
            _count(v["subjects"]),
            _number(v["train-loss"]),
            _number(v["valid-mae"]),
            _number(v["seconds"]),
            parcel.arrays,
        )


@dataclass(frozen=True)
class Refusal:
    """Why a site did not do what it was asked: a kind of error and a reference to its local log."""

    code: str
    reference: str

    @property
    def text(self) -> str:
        """The one line that leaves the site."""
        return f"{self.code} (reference {self.reference} in the site's log)"


def _exactly(parcel: Parcel, values: set[str], arrays: set[str] | None) -> None:
    found = set(parcel.values)
    if found != values:
        raise ExchangeError(f"a message holds {sorted(found)}, wanted {sorted(values)}")
    if arrays is not None and set(parcel.arrays) != arrays:
        raise ExchangeError(f"a message holds arrays {sorted(parcel.arrays)}, wanted {sorted(arrays)}")


def _finite(arrays: dict[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ExchangeError(f"array {name!r} holds NaN or infinity; wanted finite numbers")


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ExchangeError(f"found {value!r} in a message, wanted a name")
    return value


def _count(value: Value) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ExchangeError(f"found {value!r} in a message, wanted a count")
    return value


def _number(value: Value) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise ExchangeError(f"found {value!r} in a message, wanted a finite number")
    return float(value)


def _floats(value: Value) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise ExchangeError(f"found {value!r} in a message, wanted a list of numbers")
    return tuple(_number(v) for v in value)
