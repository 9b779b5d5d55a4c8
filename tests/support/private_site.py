# SPDX-License-Identifier: Apache-2.0
"""A private run at one small site, its ledger, and what tests ask about both."""

import json
from pathlib import Path

import numpy as np

from client.ledger import Ledger
from client.people import default_ledger, open_ledger
from client.policy import Policy
from client.private import TRAINING
from client.site import Site
from client.spending import Limit, Spending
from pasta_model.config import Settings
from pasta_model.data.store import SiteStore
from pasta_model.exchange.contents import Parcel
from pasta_model.privacy.accounting import Release
from tests.support.accounting import remembered
from tests.support.tasks import SMALL

PRIVATE: dict[str, bool | float | str] = {
    **SMALL,
    "privacy__unit": "subject",
    "privacy__epsilon": 50.0,
    "privacy__delta": 1e-3,
    "privacy__noise_multiplier": 3.0,
    "privacy__subjects_per_step": 2,
    "privacy__slabs_per_subject": 1,
    "privacy__accountant": "rdp",
}
METRICS = {"train-loss", "valid-mae", "seconds"}
BARE = {"site", "round", "subjects"}


def site(settings: Settings, policy: Policy | None = None) -> Site:
    """A new process at the site."""
    return Site(Path(settings.data.sites) / "A", settings, policy)


def ledger_of(settings: Settings) -> Ledger:
    store = SiteStore(Path(settings.data.sites) / "A")
    return open_ledger(default_ledger(store.path), store)


def lines(settings: Settings, mechanism: str = TRAINING) -> list[Spending]:
    return [line for line in ledger_of(settings).spendings if line.mechanism == mechanism]


def content(settings: Settings) -> bytes:
    """Every byte of the ledger; empty where there is none."""
    path = default_ledger(Path(settings.data.sites) / "A")
    return path.read_bytes() if path.exists() else b""


def spent(settings: Settings, split: str = "train") -> float:
    ledger = ledger_of(settings)
    people = SiteStore(Path(settings.data.sites) / "A").persons(split)
    return ledger.spent(people, Limit(0.0, settings.privacy.delta, accountant="rdp"))


def cost(settings: Settings, *, rounds: int) -> float:
    """What so many rounds of these settings cost, straight from the accountant."""
    rate = settings.privacy.subjects_per_step / 3
    steps = rounds * settings.training.local_steps
    one = Release(settings.privacy.noise_multiplier, rate, steps)
    return remembered([one], delta=settings.privacy.delta, accountant="rdp")


def move(settings: Settings, subject: str, *, to: str) -> None:
    """Put a subject into another split, as preparing the data anew would."""
    path = Path(settings.data.sites) / "A" / "index.json"
    index = json.loads(path.read_text())
    for entry in index["entries"]:
        if entry["subject"] == subject:
            entry["split"] = to
    path.write_text(json.dumps(index))


def same(one: Parcel, other: Parcel) -> bool:
    return one.values == other.values and all(
        np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays.keys() | other.arrays
    )


def settings_of(settings: Settings, *, name: str) -> Settings:
    """The same run under another name."""
    return settings.model_copy(update={"run": settings.run.model_copy(update={"name": name})})


def with_epsilon(settings: Settings, value: float) -> Settings:
    privacy = settings.privacy.model_copy(update={"epsilon": value})
    return settings.model_copy(update={"privacy": privacy})


def with_noise(settings: Settings, value: float) -> Settings:
    privacy = settings.privacy.model_copy(update={"noise_multiplier": value})
    return settings.model_copy(update={"privacy": privacy})
