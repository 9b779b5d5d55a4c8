# SPDX-License-Identifier: Apache-2.0
"""Whom `benchmarks.privacy` trains on, and the ways to train that it compares."""

import math
from dataclasses import dataclass
from pathlib import Path

from benchmarks.privacy_table import ORDINARILY
from pasta_model.config import Scalar, Settings, settings_from_flat
from simulation.twins.cohort import SiteSettings

MIX = (0.4, 0.2, 0.4)
PUBLIC = tuple(SiteSettings(name=f"public-{letter}", subjects=80, mix=MIX) for letter in "ab")
# The third public site has a scanner unlike all others: where learning rates are chosen.
STRANGE = (SiteSettings(name="strange", subjects=120, mix=MIX, contrast=1.3, pet_resolution=8.5),)
HOSPITALS = (
    SiteSettings(
        name="alder", subjects=120, mix=MIX, vendor="Siemens", field="3 T", contrast=0.7, pet_resolution=4.0
    ),
    SiteSettings(
        name="birch", subjects=120, mix=MIX, vendor="GE", field="1.5 T", contrast=1.0, pet_resolution=6.5
    ),
    SiteSettings(
        name="cedar", subjects=120, mix=MIX, vendor="Philips", field="1.5 T", contrast=1.6, pet_resolution=10
    ),
)
COMMON: dict[str, Scalar] = {
    "network.shape": "width 32, groups 8, patch 4",
    "data.clinical": "demographics",  # with the scores of tests, a classifier would read those
    "loss.cycle": False,  # a quarter of the time; what is measured is MRI to PET
    "training.dtype": "float32",
    "training.threads": 1,
    "federation.min-sites": 1,
}
PRE_TRAINING: dict[str, Scalar] = {
    "federation.rounds": 10,
    "training.local-steps": 60,
    "training.batch-size": 8,
}
ORDINARY: dict[str, Scalar] = {
    "federation.rounds": 12,
    "training.local-steps": 10,
    "training.batch-size": 4,
    "training.warmup-steps": 10,
}
PRIVATE: dict[str, Scalar] = {
    "federation.rounds": 4,
    "training.local-steps": 4,
    "training.warmup-steps": 2,
    "privacy.unit": "subject",
    "privacy.delta": 1e-3,
    "privacy.subjects-per-step": 16,
    "privacy.slabs-per-subject": 1,
    "privacy.max-grad-norm": 0.01,
}
ADAPTERS: dict[str, Scalar] = {"exchange.trained": "norms, adapters", "network.adapter-rank": 4}
WAYS: dict[str, dict[str, Scalar]] = {
    "scratch": {},
    "all": {},
    "norms": {"exchange.trained": "norms"},
    "norms, adapters": ADAPTERS,
}
RATES = {  # learning rates: private, ordinary; see `--tune`
    "scratch": (3e-3, 3e-3),
    "all": (1e-3, 1e-3),
    "norms": (3e-2, 3e-2),
    "norms, adapters": (1e-2, 1e-2),
}
TRIED: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {  # private, ordinary
    "all": ((3e-4, 1e-3, 3e-3), (1e-3,)),
    "norms": ((3e-3, 1e-2, 3e-2), ()),
    "norms, adapters": ((1e-3, 3e-3, 1e-2), ()),
    "scratch": ((3e-3, 1e-2), ()),
}
SAMPLING: dict[str, Scalar] = {"steps": 2, "hop": 10, "antithetic": False}
UNTOUCHED = "pre-trained, untouched"
NOISELESS = math.inf  # an epsilon: the steps, draws and clipping of a private run, and no noise
LEAST_NOISE = 8.0  # epsilon of the plan whose noise is left out


@dataclass(frozen=True)
class Method:
    """A way to train: what is trained, from where, at what epsilon, together or not."""

    way: str
    epsilon: float = ORDINARILY
    slabs: int = 1
    alone: bool = False

    @property
    def name(self) -> str:
        """As in the table."""
        way = "from scratch" if self.way == "scratch" else f"pre-trained, {self.way}"
        several = f", {self.slabs} slabs a subject" if self.slabs > 1 else ""
        if self.alone:
            return f"alone, {way}"
        if self.epsilon == ORDINARILY:
            return f"{way}, ordinary training"
        return f"{way}, epsilon {'infinity' if self.noiseless else f'{self.epsilon:g}'}{several}"

    @property
    def noiseless(self) -> bool:
        """Whether only the noise is missing, and nothing else of a private run."""
        return self.epsilon == NOISELESS

    def settings(self, folder: Path, seed: int) -> Settings:
        """Return the settings of its run."""
        output = folder / "runs" / f"{self.name}-{seed}".replace(" ", "-").replace(",", "")
        own: dict[str, Scalar] = {"run.name": output.name, "run.output": str(output), "run.resume": True}
        own |= {"run.seed": seed, "data.sites": str(folder / "sites"), "federation.min-sites": 3}
        own |= {"training.learning-rate": RATES[self.way][0 if self.epsilon else 1]}
        if self.way != "scratch":
            own["run.initial"] = str(public_model(folder, seed))
        if self.epsilon:
            planned = LEAST_NOISE if self.noiseless else self.epsilon
            own |= PRIVATE | {"privacy.epsilon": planned, "privacy.slabs-per-subject": self.slabs}
        else:
            own |= ORDINARY
        return settings_from_flat(COMMON | WAYS[self.way] | own)


# The most telling first: what is cut off is the least.
METHODS = (
    *(Method(way, 3.0) for way in WAYS),
    *(Method(way, alone=True) for way in ("scratch", "all")),
    *(Method(way) for way in ("all", "norms")),
    *(Method("norms", epsilon) for epsilon in (8.0, 1.0)),
    Method("norms", 3.0, slabs=4),
    Method("all", 8.0),
    Method("scratch"),
    Method("all", 1.0),
    *(Method(way, NOISELESS) for way in WAYS),
    *(Method("norms, adapters", epsilon) for epsilon in (8.0, 1.0, ORDINARILY)),
    *(Method("scratch", epsilon) for epsilon in (8.0, 1.0)),
)


def public_model(folder: Path, seed: int) -> Path:
    """Where the model of the public twins lies."""
    return folder / "runs" / f"public-{seed}" / "last.safetensors"
