# SPDX-License-Identifier: Apache-2.0
"""The mechanism's noise: its spread, where it comes from, and that it is always there."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from pasta_model.privacy import mechanism as privacy_mechanism
from pasta_model.privacy.normals import GRID_BITS
from tests.support.mechanisms import give, mechanism, weights


class TestNoise:
    @pytest.mark.parametrize("seeded", [False, True])
    def test_its_spread(self, seeded: bool) -> None:
        layers, seen = weights([[0.0] * 500] * 300, [0.0] * 50_000), []
        found = mechanism(
            layers,
            noise_multiplier=1.5,
            max_grad_norm=0.4,
            expected_subjects=8.0,
            generator=torch.Generator().manual_seed(0) if seeded else None,
            on_release=lambda gradients: seen.extend(g.flatten().clone() for g in gradients),
        )
        give(found, [[2.0] * 500] * 300, [0.0] * 50_000)
        found.step()
        spread = 1.5 * 0.4 / 8
        for noised, mean in zip(seen, (0.4 / math.sqrt(150_000) / 8, 0.0), strict=True):
            count = len(noised)
            assert abs(noised.mean().item() - mean) < 6 * spread / math.sqrt(count)
            assert abs(noised.std().item() / spread - 1) < 6 / math.sqrt(2 * count)
            beyond = (noised.abs() > 2 * spread).float().mean().item()
            assert abs(beyond - 0.0455) < 6 * math.sqrt(0.0455 / count)
        first, second = seen[0][:50_000], seen[1]
        assert abs((first * second).mean().item()) < 6 * spread**2 / math.sqrt(50_000)

    def test_an_empty_step_is_one(self) -> None:
        for noise, moved in ((0.0, False), (1.0, True)):
            (one,) = weights([0.0] * 20)
            mechanism([one], noise_multiplier=noise).step()
            assert one.detach().ne(0).all() == moved

    def test_a_weight_without_a_gradient_gets_noise_too(self) -> None:
        two = weights([0.0] * 20, [0.0] * 20)
        found = mechanism(two, noise_multiplier=1.0)
        give(found, [0.1] * 20, None)
        found.step()
        assert two[1].detach().ne(0).all()

    def test_it_is_fresh_at_every_step_and_in_every_run(self) -> None:
        seen = set()
        for _ in range(2):
            found = mechanism(
                weights([0.0] * 4), noise_multiplier=1.0, on_release=lambda g: seen.add(tuple(g[0].tolist()))
            )
            for _ in range(3):
                found.step()
        assert len(seen) == 6

    def test_a_seed_is_obeyed_where_a_test_asks_for_it(self) -> None:
        moved = []
        for seed in (1, 1, 2):
            (one,) = weights([0.0] * 4)
            generator = torch.Generator().manual_seed(seed)
            found = mechanism([one], noise_multiplier=1.0, generator=generator)
            found.step()
            found.step()
            moved.append(one.tolist())
        assert moved[0] == moved[1] != moved[2]

    def test_a_seeded_one_is_the_sum_of_four(self) -> None:
        # Holohan & Braghin, 2107.10138, section 5.1: one value is thrown away, and four are added.
        seen: list[Tensor] = []
        generator, oracle = (torch.Generator().manual_seed(6) for _ in range(2))
        one = weights([0.0] * 30)
        mechanism(one, noise_multiplier=2.0, generator=generator, on_release=seen.extend).step()
        torch.normal(0.0, 2.0, (1, 1), generator=oracle)
        wanted = sum(torch.normal(0.0, 2.0, (30,), generator=oracle) for _ in range(4)) / 2
        torch.testing.assert_close(seen[0], wanted)

    def test_a_secret_generator_has_a_new_key_at_every_step(self, monkeypatch) -> None:
        # On a GPU that is where the noise comes from; here a stand-in, which draws nothing at sigma 0.
        keyed: list[object] = []
        on_gpu = SimpleNamespace(device=torch.device("cuda"))
        monkeypatch.setattr(privacy_mechanism, "rekey", keyed.append)
        monkeypatch.setattr(privacy_mechanism, "secure_generator", lambda device: on_gpu)
        for generator, wanted in ((None, [on_gpu] * 3), (torch.Generator(), [on_gpu] * 3)):
            found = mechanism(weights([0.0]), noise_multiplier=0.0, generator=generator)
            for _ in range(3):
                found.step()
            assert keyed == wanted

    def test_the_global_seed_decides_nothing(self) -> None:
        state, moved = torch.get_rng_state(), []
        for _ in range(2):
            torch.set_rng_state(state)
            (one,) = weights([0.0] * 4)
            mechanism([one], noise_multiplier=1.0).step()
            moved.append(one.tolist())
        assert moved[0] != moved[1]

    def test_low_bits_of_gradients_do_not_show(self) -> None:
        seen: list[Tensor] = []
        found = mechanism(
            weights([0.0] * 200), noise_multiplier=1.0, max_grad_norm=0.75, on_release=seen.extend
        )
        give(found, torch.linspace(-1e-9, 1e-3, 200))
        found.step()
        grid = 0.5 * 2.0**-GRID_BITS  # 0.5 is the power of two below the noise's 0.75
        places = seen[0].double() / grid
        assert torch.equal(places, places.round())
        assert places.abs().max() > 2**GRID_BITS
