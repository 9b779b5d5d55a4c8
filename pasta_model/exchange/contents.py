# SPDX-License-Identifier: Apache-2.0
"""THE list of what may leave a hospital, and of what a hospital is sent.

Everything that crosses the line between a site and the server is one of the types below, and
nothing else: no scan, no row of a table, no subject's name. A test compares real replies with it.

=================  ==========  =======================================================
type               direction   content
=================  ==========  =======================================================
`NodeReport`       site out    names of the sites that a node serves
`Invitation`       site in     the site that is asked to join
`SiteReport`       site out    site's name, subjects a split, sums of clinical columns,
                               digest of the shared weights that it holds
`TrainTask`        site in     site, round, standardisation, steps to the global weights;
                               in a run that starts from a model, once, the parts of it
                               that are not exchanged
`TrainReport`      site out    difference of the weights after local steps, subjects,
                               and of three metrics those that the site lets go
`ReferenceTask`    site in     the site, and which sums over its persons are asked for
`ReferenceReport`  site out    only in a run whose settings ask for it, once, where the
                               site's policy lets it: sums over at least five persons
                               who train; of SUVR voxel by voxel and of age, of those
                               who are cognitively normal; or of features of their MRIs
`Refusal`          site out    a code and a reference; the text stays in the site's log
=================  ==========  =======================================================

`ReferenceTask` and `ReferenceReport` stand in `exchange/reference.py`, all others here.
"""

from dataclasses import dataclass
from typing import Self

from pasta_model.data.clinical import Moments, Standardisation
from pasta_model.errors import ExchangeError
from pasta_model.exchange.fields import count, digest, finite, floats, number, text
from pasta_model.exchange.packing import Buffers
from pasta_model.exchange.steps import Step

SITES = "query.sites"  # Flower message types
JOIN = "query.join"
TRAIN = "train"
EVALUATE = "evaluate"
REFERENCE = "query.reference"

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
        exactly(parcel, {"sites"}, set())
        names = parcel.values["sites"]
        if not isinstance(names, list):
            raise ExchangeError(f"found {names!r} in a message, wanted a list of names")
        return cls(tuple(text(name) for name in names))


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
        exactly(parcel, {"site"}, set())
        return cls(text(parcel.values["site"]))


@dataclass(frozen=True)
class SiteReport:
    """A site's answer to an invitation.

    Attributes
    ----------
    moments
        Counts, sums and sums of squares of the clinical columns of the training subjects.
    holds
        SHA-256 of the shared weights that the site has; they need not be sent.
    """

    site: str
    train_subjects: int
    valid_subjects: int
    moments: Moments
    holds: str = ""

    def parcel(self) -> Parcel:
        """Pack for the wire."""
        values: dict[str, Value] = {
            "site": self.site,
            "train-subjects": self.train_subjects,
            "valid-subjects": self.valid_subjects,
            "holds": self.holds,
        }
        m = self.moments
        return Parcel(values, {"count": m.count, "total": m.total, "squares": m.squares})

    @classmethod
    def of(cls, parcel: Parcel) -> Self:
        """Unpack and check."""
        exactly(parcel, {"site", "train-subjects", "valid-subjects", "holds"}, {"count", "total", "squares"})
        v, a = parcel.values, parcel.arrays
        finite(a)
        if any(sums.dtype.kind not in "iuf" for sums in a.values()):
            raise ExchangeError("clinical sums are no numbers")
        return cls(
            text(v["site"]),
            count(v["train-subjects"]),
            count(v["valid-subjects"]),
            Moments(a["count"], a["total"], a["squares"]),
            digest(v["holds"]),
        )


@dataclass(frozen=True)
class TrainTask:
    """What a site is asked to do in a round: evaluate the weights, and train them on.

    Attributes
    ----------
    base
        SHA-256 of the weights that the steps start from; empty: from zero, the weights are sent whole.
    target
        SHA-256 of the weights that the steps lead to.
    start
        SHA-256 of what is not exchanged, as a run has it that starts from a model; empty where a site can
        make it from the seed, or all is exchanged.
    rest
        What is not exchanged, for a site that does not have it.
    """

    site: str
    round: int
    standardisation: Standardisation
    base: str
    target: str
    steps: tuple[Step, ...]
    start: str = ""
    rest: Step | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the weights on the wire."""
        return sum(step.nbytes for step in (*self.steps, *([self.rest] if self.rest else [])))

    def parcel(self) -> Parcel:
        """Pack for the wire; tasks with the same steps share their arrays."""
        values: dict[str, Value] = {
            "site": self.site,
            "round": self.round,
            "mean": list(self.standardisation.mean),
            "spread": list(self.standardisation.spread),
            "base": self.base,
            "target": self.target,
            "start": self.start,
            "codecs": [step.codec for step in self.steps],
        }
        arrays = {f"{i:02d}/{n}": a for i, step in enumerate(self.steps) for n, a in step.arrays.items()}
        if self.rest is not None:
            arrays |= {f"rest/{n}": a for n, a in self.rest.arrays.items()}
        return Parcel(values, arrays)

    @classmethod
    def of(cls, parcel: Parcel) -> Self:
        """Unpack and check; the steps are checked against the network's layout when they are decoded."""
        exactly(parcel, {"site", "round", "mean", "spread", "base", "target", "start", "codecs"}, None)
        v = parcel.values
        standardisation = Standardisation(floats(v["mean"]), floats(v["spread"]))
        if not isinstance(v["codecs"], list) or not v["target"]:
            raise ExchangeError("a task names no codecs or no target")
        steps, rest = tuple(Step(text(name), {}) for name in v["codecs"]), Step("float32", {})
        for name, array in parcel.arrays.items():
            step, _, buffer = name.partition("/")
            if step == "rest":
                rest.arrays[buffer] = array
            elif not step.isdecimal() or int(step) >= len(steps):
                raise ExchangeError(f"a task holds an array {name!r} of no step")
            else:
                steps[int(step)].arrays[buffer] = array
        base, target, start = (digest(v[name]) for name in ("base", "target", "start"))
        if rest.arrays and not start:
            raise ExchangeError("a task holds parts that are not exchanged, without their SHA-256")
        return cls(
            text(v["site"]),
            count(v["round"]),
            standardisation,
            base,
            target,
            steps,
            start,
            rest if rest.arrays else None,
        )


METRICS = ("train-loss", "valid-mae", "seconds")
"""What a site's policy may keep back; a metric that is kept back is not in the message at all."""


@dataclass(frozen=True)
class TrainReport:
    """A site's answer: the difference that its training made, and how it went.

    Attributes
    ----------
    subjects
        Who trained; where the site was only asked to evaluate, who validated.
    valid_mae
        SUVR, of the *received* model on the site's validation slabs.
    train_loss
        Mean loss of the local steps.
    update
        The weights after training minus those received; None where it was only asked to evaluate.
    """

    site: str
    round: int
    subjects: int
    train_loss: float | None
    valid_mae: float | None
    seconds: float | None
    update: Step | None

    def parcel(self) -> Parcel:
        """Pack for the wire."""
        values: dict[str, Value] = {"site": self.site, "round": self.round, "subjects": self.subjects}
        metrics = zip(METRICS, (self.train_loss, self.valid_mae, self.seconds), strict=True)
        values.update({name: value for name, value in metrics if value is not None})
        if self.update is None:
            return Parcel(values, {})
        return Parcel(values | {"codec": self.update.codec}, self.update.arrays)

    @classmethod
    def of(cls, parcel: Parcel) -> Self:
        """Unpack and check: exact names, finite numbers."""
        optional = parcel.values.keys() & {*METRICS, "codec"}
        exactly(parcel, {"site", "round", "subjects"} | optional, None)
        finite(parcel.arrays)
        v = parcel.values
        if ("codec" in v) != bool(parcel.arrays):
            raise ExchangeError("an answer holds weights without their codec, or a codec without weights")
        loss, mae, seconds = (number(v[name]) if name in v else None for name in METRICS)
        if min(mae or 0.0, seconds or 0.0) < 0:
            raise ExchangeError("an answer holds a negative error or time; wanted at least 0")
        update = Step(text(v["codec"]), parcel.arrays) if "codec" in v else None
        return cls(text(v["site"]), count(v["round"]), count(v["subjects"]), loss, mae, seconds, update)


@dataclass(frozen=True)
class Refusal:
    """Why a site did not do what it was asked: a kind of error and a reference to its local log."""

    code: str
    reference: str

    @property
    def text(self) -> str:
        """The one line that leaves the site."""
        return f"{self.code} (reference {self.reference} in the site's log)"


def exactly(parcel: Parcel, values: set[str], arrays: set[str] | None) -> None:
    """Refuse a message that holds other values than these, or, where they are named, other arrays.

    Raises
    ------
    ExchangeError
        With the names that were found and wanted.
    """
    found = set(parcel.values)
    if found != values:
        raise ExchangeError(f"a message holds {sorted(found)}, wanted {sorted(values)}")
    if arrays is not None and set(parcel.arrays) != arrays:
        raise ExchangeError(f"a message holds arrays {sorted(parcel.arrays)}, wanted {sorted(arrays)}")
