# SPDX-License-Identifier: Apache-2.0
"""Sums over a site's persons, for norms and familiarity: once a run, over enough of them, or not at all.

The answer is kept beside what the site remembers of the run and given again when it is asked again: nobody
can ask before and after a person joined, and learn that person from the difference.
"""

import json
import logging
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from client.policy import Policy
from pasta_model.config import Settings
from pasta_model.data.store import SiteStore
from pasta_model.errors import CheckpointError, PolicyError, VolumeError
from pasta_model.exchange.contents import Parcel
from pasta_model.exchange.reference import (
    MIN_PERSONS,
    ReferenceReport,
    ReferenceTask,
    Sums,
    refuse_unasked,
)
from pasta_model.familiarity.features import COUNT, features_of_crop
from pasta_model.familiarity.sums import FeatureSums
from pasta_model.federated_sections import Reference
from pasta_model.files import atomic_directory, clear_partial, write_json
from pasta_model.norms.people import choose_entries, people_of_store
from pasta_model.norms.sums import NormSums

logger = logging.getLogger(__name__)


def contributors(store: SiteStore) -> dict[Reference, int]:
    """Count the persons who can be in a site's sums, by what the sums are for.

    Those who train; for norms, of them those who are cognitively normal and of a known age.
    """
    return {"norms": len(choose_entries(store).rows), "familiarity": len(store.persons("train"))}


def refuse_few(persons: int, policy: Policy | None) -> None:
    """Refuse sums over so few persons that they would tell of each.

    Raises
    ------
    PolicyError
        When they are fewer than five, or than the policy wants behind a metric.
    """
    wanted = max(MIN_PERSONS, policy.metrics_min_subjects if policy else 0)
    if persons < wanted:
        raise PolicyError(f"sums over {persons} person(s) would leave; wanted at least {wanted} behind them")


def reference_answer(
    store: SiteStore, task: ReferenceTask, *, settings: Settings, policy: Policy | None, folder: Path
) -> Parcel:
    """Return a site's sums, as they were told before in this run, or made now and kept.

    Parameters
    ----------
    folder
        Of what the site remembers of the run.

    Raises
    ------
    ExchangeError
        When the run does not ask for these.
    PolicyError
        When the policy does not let them leave, or they are over too few persons.
    """
    refuse_unasked(task, settings)
    if policy is not None:
        policy.refuse_reference()
    path = folder / f"reference-{task.what}" / "answer"
    answer = _kept(path) if path.is_dir() else None
    if answer is None:
        refuse_few(contributors(store)[task.what], policy)
        sums = _norm_sums(store) if task.what == "norms" else _feature_sums(store)
        answer = ReferenceReport(task.site, sums).parcel()
    refuse_few(int(str(answer.values["persons"])), policy)
    if not path.is_dir():
        _keep(path, answer)
    return answer


def _norm_sums(store: SiteStore) -> Sums:
    spacing, left_out = store.template.head.spacing, 0
    sums = NormSums.empty(spacing=spacing)
    for person in people_of_store(store):
        try:
            sums = sums + NormSums.of([person], spacing=spacing)
        except VolumeError:
            left_out += 1
    _say_left_out(left_out, "PET does not cover the brain")
    return sums


def _feature_sums(store: SiteStore) -> Sums:
    """Sum the features of each person's first MRI."""
    rows = {store.entries[i].person: i for i in reversed(store.indices("train"))}
    features, left_out = [np.empty((0, COUNT))], 0
    for _, row in sorted(rows.items()):
        mri, _ = store.slab(row, 0, store.slices)
        try:
            features.append(features_of_crop(mri, store.template)[None])
        except VolumeError:
            left_out += 1
    _say_left_out(left_out, "MRI shows no brain")
    return FeatureSums.of(np.concatenate(features))


def _say_left_out(persons: int, why: str) -> None:
    if persons:
        logger.warning("%d person(s) are not in the sums: the %s", persons, why)


def _keep(path: Path, answer: Parcel) -> None:
    """Keep an answer, whole or not at all."""
    path.parent.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # the site's own
    clear_partial(path.parent)
    with atomic_directory(path) as work:
        save_file(answer.arrays, work / "answer.safetensors")
        write_json(work / "answer.json", answer.values)


def _kept(path: Path) -> Parcel:
    try:
        values = json.loads((path / "answer.json").read_text(encoding="utf-8"))
        return Parcel(values, load_file(path / "answer.safetensors"))
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); remove this folder") from error
