# SPDX-License-Identifier: Apache-2.0
"""Are synthetic PETs copies of training PETs? Nearest neighbours, after Meehan et al. (2004.05675).

Volumes are compared inside the brain after the mean PET is taken off: otherwise all brains are alike. It is
the mean of training and held-out PETs alike; that of training alone would push training PETs away. What is
left is compared by its direction, 1 - cosine, so a smoother PET is no nearer to everybody.

Synthetic PETs are of held-out persons. Does one lean to training, that is: is it nearer to a training PET
than to a PET of another held-out person? Of equally many persons, drawn in all ways from the larger side::

    E log(distance to the nearest training person) - E log(distance to the nearest other held-out person)

Where synthetic PETs lean more to training than the real PETs of the same persons, they are copied (Mann and
Whitney, one value a person).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from pasta_model.errors import PrivacyError

Vectors = NDArray[np.float32]  # (volumes, voxels)
NEAREST = 1e-6  # two volumes are never nearer: the logarithm stays finite


@dataclass(frozen=True)
class Neighbour:
    """What lies around the synthetic PET of a session; distances are 1 - cosine.

    Attributes
    ----------
    training, held_out, own
        From the synthetic PET to the nearest training PET, to the nearest PET of another held-out person, to
        the real PET.
    nearest
        Whose training PET that is.
    leaning, real_leaning
        Of the synthetic and of the real PET: negative is nearer to training.
    """

    person: str
    training: float
    nearest: str
    held_out: float
    own: float
    leaning: float
    real_leaning: float


@dataclass(frozen=True)
class Memorisation:
    """What all of them say together.

    Attributes
    ----------
    auc
        Probability that a synthetic PET leans less to training than a real PET does; below 1/2: more.
    p_value
        Of no difference, against leaning more to training.
    near_training
        Share of the persons with a synthetic PET nearer to a training PET than to their own.
    near_held_out
        The same for PETs of other held-out persons: what a poor model does anyway.
    training, held_out, own
        Median distances of the synthetic PETs.
    """

    persons: int
    sessions: int
    auc: float
    p_value: float
    near_training: float
    near_held_out: float
    training: float
    held_out: float
    own: float


def directions(volumes: Vectors, mean: NDArray[np.floating]) -> Vectors:
    """Take the mean off and bring every volume to length 1.

    Raises
    ------
    PrivacyError
        When a volume is not finite, or is the mean itself.
    """
    left = np.asarray(volumes, np.float32) - np.asarray(mean, np.float32)
    length = np.linalg.norm(left, axis=1, keepdims=True)
    if not (np.isfinite(length) & (length > 0)).all():
        raise PrivacyError(
            f"{int((~(length > 0)).sum())} of {len(left)} PETs are not finite, or nothing but the mean PET"
        )
    found: Vectors = left / length
    return found


def neighbours(
    synthetic: Vectors,
    real: Vectors,
    *,
    persons: Sequence[str],
    training: Iterable[Vectors],
    trained: Sequence[str],
) -> list[Neighbour]:
    """Look around the synthetic and the real PET of every held-out session.

    Parameters
    ----------
    synthetic, real
        `directions` of the same sessions in the same order.
    persons
        Whose they are.
    training
        `directions` of training PETs, in portions: they need not be in memory at once.
    trained
        Whose those are.

    Raises
    ------
    PrivacyError
        When fewer than two persons are held out, or nobody trains.
    """
    if len(set(persons)) < 2 or not trained:
        raise PrivacyError(
            f"found {len(set(persons))} held-out person(s) and {len(set(trained))} in training; wanted two or"
            " more, and one or more"
        )
    both = np.concatenate([synthetic, real])
    near = _by_person(np.concatenate([1 - both @ portion.T for portion in training], axis=1), trained)
    to_held_out = 1 - both @ real.T
    own = np.diagonal(to_held_out)
    far = _by_person(to_held_out, persons)
    found, names = [], sorted(set(trained))
    for i, person in enumerate(persons):
        others = far.columns != person
        pairs = [(near.values[row], far.values[row, others]) for row in (i, len(persons) + i)]
        found.append(
            Neighbour(
                person=person,
                training=float(pairs[0][0].min()),
                nearest=names[int(pairs[0][0].argmin())],
                held_out=float(pairs[0][1].min()),
                own=float(own[i]),
                leaning=leaning(*pairs[0]),
                real_leaning=leaning(*pairs[1]),
            )
        )
    return found


def leaning(training: NDArray[np.floating], held_out: NDArray[np.floating]) -> float:
    """Return how much nearer training is than held-out, among equally many of either; negative is nearer."""
    drawn = min(len(training), len(held_out))
    return _log_nearest(training, drawn) - _log_nearest(held_out, drawn)


def _log_nearest(distances: NDArray[np.floating], drawn: int) -> float:
    """Mean of the logarithm of the smallest of `drawn` distances, over all ways to draw them."""
    n = len(distances)
    left = np.arange(n, 0, -1)  # those not smaller than the i-th smallest, which is itself one of them
    # Drawn are `drawn` of n, and none of the i - 1 smaller ones.
    none_smaller = np.cumprod([1.0, *np.clip((left[:-1] - drawn) / left[:-1], 0, None)])
    logs = np.log(np.maximum(np.sort(distances), NEAREST))
    return float((none_smaller * np.minimum(drawn / left, 1.0) * logs).sum())


class _Distances(NamedTuple):
    values: NDArray[np.floating]  # (PETs, persons), from a PET to a person's nearest PET
    columns: NDArray[np.str_]  # (persons,)


def _by_person(distances: NDArray[np.floating], persons: Sequence[str]) -> _Distances:
    names = np.array(sorted(set(persons)))
    owner = np.asarray(persons)
    return _Distances(np.stack([distances[:, owner == n].min(axis=1) for n in names], axis=1), names)


def memorisation(found: Sequence[Neighbour]) -> Memorisation:
    """Judge what was found, with all visits of a person as one."""
    by_person: dict[str, list[Neighbour]] = {}
    for neighbour in found:
        by_person.setdefault(neighbour.person, []).append(neighbour)
    visits = list(by_person.values())
    synthetic = [float(np.mean([v.leaning for v in own])) for own in visits]
    real = [float(np.mean([v.real_leaning for v in own])) for own in visits]
    test = mannwhitneyu(synthetic, real, alternative="less")
    return Memorisation(
        persons=len(visits),
        sessions=len(found),
        auc=float(test.statistic) / len(visits) ** 2,
        p_value=float(test.pvalue),
        near_training=float(np.mean([any(v.training < v.own for v in own) for own in visits])),
        near_held_out=float(np.mean([any(v.held_out < v.own for v in own) for own in visits])),
        training=float(np.median([v.training for v in found])),
        held_out=float(np.median([v.held_out for v in found])),
        own=float(np.median([v.own for v in found])),
    )
