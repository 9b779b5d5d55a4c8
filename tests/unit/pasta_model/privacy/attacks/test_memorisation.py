# SPDX-License-Identifier: Apache-2.0
"""Copies of training PETs are found; honest synthetic PETs, however smooth, are not accused."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pasta_model.errors import PrivacyError
from pasta_model.privacy.attacks.memorisation import directions, leaning, memorisation, neighbours

VOXELS = 400


def cohort(seed: int, *, training: int = 40, held_out: int = 20):
    """PETs that share a mean and differ by a few patterns and by noise."""
    rng = np.random.default_rng(seed)
    patterns, mean = rng.normal(0, 1, (4, VOXELS)), rng.normal(5, 1, VOXELS)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        smooth = mean + rng.normal(0, 1, (n, 4)) @ patterns
        return smooth, smooth + rng.normal(0, 0.5, (n, VOXELS))

    (_, train), (clean, real) = draw(training), draw(held_out)
    return rng, train, real, clean


def judge(train, real, synthetic, persons=None, trained=None):
    mean = np.concatenate([train, real]).mean(axis=0)
    found = neighbours(
        directions(synthetic, mean),
        directions(real, mean),
        persons=persons or [f"sub-{i}" for i in range(len(real))],
        training=np.array_split(directions(train, mean), 3),
        trained=trained or [f"train-{i:03}" for i in range(len(train))],
    )
    return found, memorisation(found)


@pytest.mark.parametrize("seed", range(5))
def test_smooth_pets_of_the_right_person_are_not_accused(seed) -> None:
    rng, train, real, clean = cohort(seed)
    _, all_of_it = judge(train, real, clean + rng.normal(0, 0.3, clean.shape))
    assert all_of_it.p_value > 0.05
    assert all_of_it.near_training <= 0.25
    assert all_of_it.own < all_of_it.training
    assert (all_of_it.persons, all_of_it.sessions) == (20, 20)


@pytest.mark.parametrize("seed", range(5))
def test_a_model_that_recites_is_caught(seed) -> None:
    """Instead of the person, it gives the training PET that is most alike, with some noise."""
    rng, train, real, _ = cohort(seed)
    nearest = np.linalg.norm(train[None] - real[:, None], axis=2).argmin(axis=1)
    found, all_of_it = judge(train, real, train[nearest] + rng.normal(0, 0.3, real.shape))
    assert all_of_it.p_value < 1e-4
    assert all_of_it.auc < 0.2
    assert all_of_it.near_training == 1.0
    assert [n.nearest for n in found] == [f"train-{i:03}" for i in nearest]


def test_a_poor_model_is_near_anybody_but_copies_nobody() -> None:
    rng, train, real, clean = cohort(0)
    _, all_of_it = judge(train, real, clean[rng.permutation(len(clean))])
    assert all_of_it.near_held_out > 0.8
    assert all_of_it.p_value > 0.01


@pytest.mark.parametrize(("training", "held_out"), [(4, 30), (30, 6)])
def test_noise_is_no_leaning_however_many_there_are_on_either_side(training, held_out) -> None:
    """PETs with nothing in common: a noisy copy of the own PET must not be accused."""
    p_values = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        train, real = rng.normal(5, 1, (training, VOXELS)), rng.normal(5, 1, (held_out, VOXELS))
        _, all_of_it = judge(train, real, real + rng.normal(0, 1, real.shape))
        p_values.append(all_of_it.p_value)
    assert sum(p < 0.05 for p in p_values) <= 3
    assert 0.3 < np.mean(p_values) < 0.7


def test_by_hand() -> None:
    train = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    real = np.array([[0.0, 2.0, 0.0], [0.0, -2.0, 0.0]])  # the mean of all is 0
    found, all_of_it = judge(train, real, np.array([[1.0, 1.0, 0.0], [0.0, -1.0, 1.0]]))
    root = 1 - math.sqrt(0.5)
    first, second = found
    assert (first.training, first.own, first.held_out) == pytest.approx((root, root, 2 - root))
    assert (second.training, second.own, second.held_out) == pytest.approx((1.0, root, 2 - root))
    assert first.nearest == "train-000"
    # one of two training persons is drawn beside the one other held-out person
    assert first.leaning == pytest.approx(
        (math.log(root) + math.log(2 - root)) / 2 - math.log(2 - root), abs=1e-5
    )
    assert first.real_leaning == pytest.approx(-math.log(2), abs=1e-5)
    assert all_of_it.own == pytest.approx(root)


@given(
    st.lists(st.floats(0.01, 2), min_size=1, max_size=7), st.lists(st.floats(0.01, 2), min_size=1, max_size=4)
)
def test_leaning_is_a_mean_over_all_ways_to_draw(training, held_out) -> None:
    drawn = min(len(training), len(held_out))
    usual = [np.mean([math.log(min(c)) for c in combinations(s, drawn)]) for s in (training, held_out)]
    assert leaning(np.array(training), np.array(held_out)) == pytest.approx(usual[0] - usual[1], abs=1e-9)


def test_visits_of_one_person_are_no_other_person() -> None:
    _, train, real, clean = cohort(2, held_out=6)
    real[1] = real[0] + 1e-3
    apart, _ = judge(train, real, clean)
    together, all_of_it = judge(train, real, clean, persons=["a", "a", "b", "c", "d", "e"])
    assert apart[0].real_leaning > together[0].real_leaning + 0.5  # the twin is no longer somebody else
    assert (all_of_it.persons, all_of_it.sessions) == (5, 6)


@given(st.floats(0.1, 10), st.integers(0, 5))
def test_contrast_and_mean_do_not_matter(gain, seed) -> None:
    _, train, real, clean = cohort(seed, training=8, held_out=4)
    mean = np.concatenate([train, real]).mean(axis=0)
    louder = mean + gain * (clean - mean)
    usual, loud = (judge(train, real, s)[0] for s in (clean, louder))
    assert [n.training for n in usual] == pytest.approx([n.training for n in loud], abs=1e-4)


def test_what_cannot_be_compared_is_refused() -> None:
    _, train, real, clean = cohort(0, held_out=3)
    mean = train.mean(axis=0)
    clean[1, 7] = np.nan
    with pytest.raises(PrivacyError, match="1 of 3 PETs are not finite"):
        directions(clean, mean)
    with pytest.raises(PrivacyError, match=r"found 1 held-out person\(s\)"):
        neighbours(real[:1], real[:1], persons=["a"], training=[train], trained=["t"] * len(train))
    with pytest.raises(PrivacyError, match="and 0 in training"):
        neighbours(real[:2], real[:2], persons=["a", "b"], training=[], trained=[])
