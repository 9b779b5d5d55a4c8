# SPDX-License-Identifier: Apache-2.0
"""Are synthetic PETs copies of training PETs? Nearest neighbours, after Meehan et al. (2004.05675).

Volumes are compared inside the brain after the mean training PET is taken off: otherwise all brains are
alike. What is left is compared by its direction, 1 - cosine, so a smoother PET is no nearer to everybody.

Synthetic PETs are of held-out persons. Is one nearer to some training PET than to the PETs of other held-out
persons? There are more training PETs, so some are nearer by number alone; the real PET of the same person
is therefore asked the same, and only the difference counts::

    log(distance to the nearest training PET / distance to the nearest held-out PET of another person)

of synthetic PETs below that of real ones: copying (Mann and Whitney, one value a person).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
        Which training PET that is.
    real_training, real_held_out
        From the real PET.
    """

    person: str
    training: float
    nearest: int
    held_out: float
    own: float
    real_training: float
    real_held_out: float

    @property
    def leaning(self) -> float:
        """How much nearer training is than held-out, for the synthetic PET: negative is nearer."""
        return _leaning(self.training, self.held_out)

    @property
    def real_leaning(self) -> float:
        """The same for the real PET."""
        return _leaning(self.real_training, self.real_held_out)


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
    synthetic: Vectors, real: Vectors, *, persons: Sequence[str], training: Iterable[Vectors]
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

    Raises
    ------
    PrivacyError
        When fewer than two persons are held out, or nobody trains.
    """
    if len(set(persons)) < 2:
        raise PrivacyError(f"found {len(set(persons))} held-out person(s); wanted two or more to compare")
    both = np.concatenate([synthetic, real])
    portions = [1 - both @ portion.T for portion in training]
    if not portions:
        raise PrivacyError("found no training PET; wanted at least one")
    to_training = np.concatenate(portions, axis=1)
    names = np.asarray(persons)
    to_held_out = 1 - both @ real.T
    own = np.diagonal(to_held_out)[: len(real)].copy()
    to_held_out[np.tile(names, 2)[:, None] == names] = np.inf
    near, far = to_training.min(axis=1), to_held_out.min(axis=1)
    n = len(real)
    return [
        Neighbour(
            person=persons[i],
            training=float(near[i]),
            nearest=int(to_training[i].argmin()),
            held_out=float(far[i]),
            own=float(own[i]),
            real_training=float(near[n + i]),
            real_held_out=float(far[n + i]),
        )
        for i in range(n)
    ]


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


def _leaning(training: float, held_out: float) -> float:
    return float(np.log(max(training, NEAREST) / max(held_out, NEAREST)))
