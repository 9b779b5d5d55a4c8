# SPDX-License-Identifier: Apache-2.0
"""Gradient inversion: what an update is, the slope of the attack, and that it gets nearer to the PET."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from pasta_model.checkpoint import new_network, new_translator
from pasta_model.config import Settings
from pasta_model.data.clinical import SCHEMES, Standardisation
from pasta_model.data.grid import template
from pasta_model.data.slabs import SlabLoader
from pasta_model.data.store import prepare_store
from pasta_model.diffusion.cycle import Translator
from pasta_model.errors import PrivacyError
from pasta_model.privacy.attacks.inversion import (
    Lesson,
    _Attack,
    _RoundedAbs,
    correlation,
    gradient,
    psnr,
    total_variation,
)
from pasta_model.privacy.attacks.reconstruction import Case, draw_lessons, reconstruct
from pasta_model.privacy.attacks.updates import plain_update, private_update

SHAPE = "slices 5, width 8, multipliers 1, blocks 1, attention none, heads 1, groups 4, patch 4"
HEAD = template(3.0).head


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(
        network__shape=SHAPE, sampling__hop=4, data__clinical="none", training__learning_rate=0.05
    )


@pytest.fixture
def translator(settings: Settings) -> Translator:
    generator = torch.Generator().manual_seed(0)
    state = {
        n: t + 0.05 * torch.randn(t.shape, generator=generator)
        for n, t in new_network(settings).state_dict().items()
    }
    return new_translator(settings, state)


@pytest.fixture
def loader(tmp_path: Path, make_session, write_scan) -> SlabLoader:
    """Four persons with smooth scans."""
    ball = np.linalg.norm(HEAD.coordinates() / np.float32([65, 80, 60]), axis=-1) < 1
    sessions = []
    for n in range(4):
        rng = np.random.default_rng(n)
        for kind in ("T1w", "pet"):
            tissue = 1.2 + 4 * ndimage.gaussian_filter(rng.normal(size=HEAD.shape), 3)
            write_scan(tmp_path / "scans" / f"sub-{n}_{kind}.nii", data=np.where(ball, tissue, 0).clip(0))
        sessions.append(make_session(f"sub-{n}"))
    store = prepare_store(tmp_path / "A", sessions, spacing=3.0)
    nothing = Standardisation((), ())
    return SlabLoader(store, split="train", slab_slices=5, scheme=SCHEMES["none"], standardisation=nothing)


@pytest.fixture
def lessons(loader: SlabLoader) -> list[Lesson]:
    return draw_lessons(loader, 2, rng=np.random.default_rng(0), device="cpu")[0]


def values(translator: Translator) -> list[torch.Tensor]:
    return [p.detach().clone() for p in translator.network.parameters()]


def flat(tensors) -> torch.Tensor:
    return torch.cat([t.flatten() for t in tensors])


def test_an_update_is_the_sum_of_clipped_gradients(translator, lessons, settings) -> None:
    start = values(translator)
    update = plain_update(translator, lessons, settings=settings)
    assert all(map(torch.equal, values(translator), start))  # as before
    rate, expected = settings.training.learning_rate, 0
    for lesson in lessons:
        own = flat(gradient(translator, lesson.batch, seed=lesson.seed, settings=settings.loss))
        own = own * min(1.0, update.clip / own.norm())
        expected = expected + own
        with torch.no_grad():
            position = 0
            for p in translator.network.parameters():
                p.sub_(rate * own[position : position + p.numel()].view_as(p))
                position += p.numel()
    found = flat([(b - a) / rate for b, a in zip(update.before, update.after, strict=True)])
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(flat(values(translator)), flat(update.after), atol=1e-6)


def test_a_private_update_is_clipped_and_noised(translator, lessons, settings) -> None:
    own = settings.model_copy(update={"privacy": settings.privacy.model_copy(update={"max_grad_norm": 0.02})})
    rate = settings.training.learning_rate

    def sent(sigma: float) -> torch.Tensor:
        update = private_update(
            translator,
            lessons[:1],
            settings=own,
            noise_multiplier=sigma,
            generator=torch.Generator().manual_seed(0),
        )
        return flat([(b - a) / rate for b, a in zip(update.before, update.after, strict=True)])

    clipped, noised = sent(0.0), sent(50.0)
    assert clipped.norm() == pytest.approx(0.02, rel=1e-3)
    assert (noised - clipped).std() == pytest.approx(50 * 0.02, rel=0.02)


@pytest.mark.parametrize("count", [1, 2])
def test_the_slope_is_that_of_the_cosine(translator, lessons, settings, count) -> None:
    """Against a difference of two cosines along a random direction."""
    chosen = lessons[:count]
    update = plain_update(translator, chosen, settings=settings)
    attack = _Attack(translator, update, chosen, settings.loss)
    generator = torch.Generator().manual_seed(1)
    slabs = [
        (lesson.batch.pet + 0.2 * torch.randn(lesson.batch.pet.shape, generator=generator)).requires_grad_()
        for lesson in chosen
    ]
    ways = [torch.randn(slab.shape, generator=generator) for slab in slabs]
    wanted = flat([b - a for b, a in zip(update.before, update.after, strict=True)]).double()

    def cosine(step: float) -> float:
        total = 0
        for number, (slab, way) in enumerate(zip(slabs, ways, strict=True)):
            total = total + flat(attack._clipped(number, slab.detach() + step * way)).double()
        return float((total @ wanted) / (total.norm() * wanted.norm()))

    slopes = attack.slopes(slabs, corner=0.1)
    with _RoundedAbs(0.1):
        found = sum(float((slope * way).sum()) for slope, way in zip(slopes, ways, strict=True))
        difference = (cosine(-1e-2) - cosine(1e-2)) / 2e-2
    assert found == pytest.approx(difference, rel=0.05)


def test_at_the_truth_nothing_pulls_away(translator, lessons, settings) -> None:
    update = plain_update(translator, lessons[:1], settings=settings)
    attack = _Attack(translator, update, lessons[:1], settings.loss)
    true, pet = [], lessons[0].batch.pet
    for slab in (pet, pet + 0.1):
        (slope,) = attack.slopes([slab.clone().requires_grad_()], corner=1e-3)
        true.append(float(slope.norm()))
    assert true[0] < 0.05 * true[1]


def test_the_attack_gets_nearer_and_noise_stops_it(translator, loader, settings) -> None:
    def attacked(sigma: float | None):
        case = Case(1, sigma)
        return reconstruct(translator, loader, case, settings=settings, seed=1, trials=1, iterations=30)

    before = values(translator)
    plain, noised = attacked(None), attacked(1.0)
    assert plain.correlation > plain.known_correlation + 0.03
    assert noised.correlation < plain.correlation
    assert (plain.known_correlation, plain.slabs) == (noised.known_correlation, 1)
    assert all(map(torch.equal, values(translator), before))


def test_steps_are_about_different_persons_and_one_alone_is_refused(loader) -> None:
    lessons, guesses = draw_lessons(loader, 4, rng=np.random.default_rng(0), device="cpu")
    assert len({lesson.batch.pet.numpy().tobytes() for lesson in lessons}) == 4
    assert len({lesson.seed for lesson in lessons}) == 4
    assert all(guess.shape == lesson.batch.pet.shape for guess, lesson in zip(guesses, lessons, strict=True))
    assert all((lesson.batch.mri > -1).float().mean() > 0.02 for lesson in lessons)
    loader.store.entries = tuple(replace(e, person="one") for e in loader.store.entries)
    with pytest.raises(PrivacyError, match="site A has one person"):
        draw_lessons(loader, 1, rng=np.random.default_rng(0), device="cpu")


def test_the_guess_is_the_mean_of_other_persons(loader) -> None:
    (lesson,), (guess,) = draw_lessons(loader, 1, rng=np.random.default_rng(3), device="cpu")
    volumes = [loader.store.slab(i, 0, loader.store.slices)[1] for i in range(4)]
    for start in range(loader.store.slices - 4):
        slabs = [v[start : start + 5] for v in volumes]
        own = [np.array_equal(s, lesson.batch.pet[0].numpy()) for s in slabs]
        if any(own):
            others = [s for s, mine in zip(slabs, own, strict=True) if not mine]
            assert np.allclose(guess[0], np.mean(others, axis=0), atol=1e-6)
            return
    raise AssertionError("the slab is none of the store's")


def test_figures_by_hand() -> None:
    brain = torch.tensor([True, True, True, False])
    real, found = torch.tensor([0.0, 1.0, 2.0, 9.0]), torch.tensor([0.2, 1.0, 2.2, -9.0])
    assert psnr(real, found, brain=brain) == pytest.approx(10 * np.log10(4 / (0.08 / 3)), abs=1e-4)
    assert correlation(real, found, brain=brain) == pytest.approx(
        np.corrcoef([0, 1, 2], [0.2, 1.0, 2.2])[0, 1]
    )
    step = torch.zeros(1, 2, 3, 4)
    step[0, 1] = 3.0  # only from slice to slice
    assert total_variation(step) == 3.0
    with _RoundedAbs(0.5):
        assert torch.tensor([0.0, 1.2]).abs().tolist() == pytest.approx([0.5, 1.3])
    assert torch.tensor([-1.0]).abs() == 1.0
    assert [Case(1, s).words for s in (None, 0.0, 0.5)] == ["nothing", "clip", "noise 0.5"]
