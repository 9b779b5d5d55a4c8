# SPDX-License-Identifier: Apache-2.0
"""Clip, sum, noise: by hand, against Opacus's own hooks, and what must never happen."""

import gc
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from pasta_model.data.slabs import Batch
from pasta_model.diffusion.cycle import Translator, step_loss
from pasta_model.diffusion.schedule import Schedule
from pasta_model.errors import PrivacyError
from pasta_model.network.dual_arm import DualArm
from pasta_model.privacy import mechanism as privacy_mechanism
from pasta_model.privacy.mechanism import Mechanism, refuse_batch_statistics
from pasta_model.privacy.normals import GRID_BITS
from pasta_model.sections import DiffusionSettings, LossSettings, NetworkSettings

SMALLEST = "slices 3, width 8, multipliers 1, blocks 1, attention 1, heads 2, groups 4, patch 2"
SUBJECTS = 5


def weights(*values: list[float]) -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor(value)) for value in values]


def mechanism(parameters: list[nn.Parameter], *, rate: float = 1.0, **changes) -> Mechanism:
    """One without noise and of plain gradient descent, if nothing else is said."""
    usual = {"noise_multiplier": 0.0, "max_grad_norm": 1.0, "expected_subjects": 1.0}
    return Mechanism(torch.optim.SGD(parameters, lr=rate), **usual | changes)


def give(found: Mechanism, *gradients: list[float] | Tensor | None) -> None:
    """Add one subject."""
    for parameter, gradient in zip(found.parameters, gradients, strict=True):
        parameter.grad = None if gradient is None else torch.as_tensor(gradient).clone()
    found.add()


class TestByHand:
    def test_three_subjects(self) -> None:
        # The clip norm is 5. Norms over both weights: 13, 3, 10; so factors 5/13, 1, 1/2.
        two = weights([0.0, 0.0], [0.0])
        found = mechanism(two, max_grad_norm=5.0, expected_subjects=2.0)
        give(found, [3.0, 4.0], [12.0])
        give(found, [1.0, 2.0], [2.0])
        give(found, [6.0, 0.0], [-8.0])
        found.step()
        wanted = [15 / 13 + 1 + 3, 20 / 13 + 2 + 0, 60 / 13 + 2 - 4]
        moved = torch.cat([p.detach() for p in two])
        torch.testing.assert_close(moved, -torch.tensor(wanted) / 2, rtol=1e-6, atol=0)

    def test_the_divisor_is_what_is_expected_not_who_came(self) -> None:
        for subjects in (1, 2, 4):
            (one,) = weights([0.0])
            found = mechanism([one], expected_subjects=2.5)
            for _ in range(subjects):
                give(found, [0.5])
            found.step()
            assert one.item() == pytest.approx(-0.5 * subjects / 2.5)

    def test_a_step_begins_with_nothing(self) -> None:
        (one,) = weights([0.0])
        found = mechanism([one])
        give(found, [1.0])
        found.step()
        found.step()
        give(found, [0.5])
        found.step()
        assert one.item() == pytest.approx(-1.5)

    def test_a_gradient_is_used_once(self) -> None:
        (one,) = weights([0.0])
        found = mechanism([one])
        give(found, [0.25])
        assert one.grad is None
        found.add()  # of a subject that left no gradient
        found.step()
        assert one.item() == pytest.approx(-0.25)
        assert one.grad is None

    def test_what_comes_before_the_step_comes_after_the_clip(self) -> None:
        (one,) = weights([0.0])
        seen: list[float] = []
        found = mechanism([one], on_release=lambda gradients: seen.append(gradients[0].item()))
        give(found, [100.0])
        found.step(before=lambda: one.grad.add_(7.0))
        assert one.item() == pytest.approx(-8.0)
        assert seen == pytest.approx([1.0])


@hypothesis_settings(max_examples=60)
@given(
    gradients=st.lists(
        st.tuples(
            st.lists(st.floats(-(2.0**20), 2.0**20, width=32), min_size=3, max_size=3),
            st.lists(st.floats(-(2.0**-10), 2.0**-10, width=32), min_size=2, max_size=2),
        ),
        min_size=1,
        max_size=6,
    ),
    clip=st.floats(0.01, 100),
)
def test_a_subject_changes_the_sum_by_the_clip_norm_at_most(gradients, clip: float) -> None:
    def summed(subjects) -> Tensor:
        seen: list[Tensor] = []
        found = mechanism(
            weights([0.0] * 3, [0.0] * 2),
            max_grad_norm=clip,
            on_release=lambda g: seen.append(torch.cat([x.double() for x in g])),
        )
        for one in subjects:
            give(found, *one)
        found.step()
        return seen[0]

    whole = summed(gradients)
    for number in range(len(gradients)):
        without = summed(gradients[:number] + gradients[number + 1 :])
        # Sums of a few float32 numbers, each at most the clip norm.
        assert (whole - without).norm() <= clip * (1 + 1e-5)
        alone = summed([gradients[number]])
        torch.testing.assert_close(whole - without, alone, rtol=0, atol=1e-5 * clip)


class FixedNoise(Schedule):
    """A schedule with timesteps and noises of each subject, pass by pass, whoever else is in the batch."""

    def __init__(self, rows: list[int]) -> None:
        super().__init__(DiffusionSettings())
        drawn = torch.Generator().manual_seed(3)
        self.steps = torch.randint(0, 1000, (4, SUBJECTS), generator=drawn)[:, rows]
        self.noises = torch.randn((4, SUBJECTS, 3, 16, 16), generator=drawn)[:, rows]
        self.turn = 0

    def sample_timesteps(self, count: int, *, generator: torch.Generator) -> Tensor:
        return self.steps[self.turn]

    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        self.turn += 1
        return super().add_noise(x0, self.noises[self.turn - 1], timesteps)


def dual_arm() -> DualArm:
    network = DualArm(NetworkSettings(shape=SMALLEST, clinical_both_directions=True), clinical_values=2)
    drawn = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            values = torch.randn(parameter.shape, generator=drawn)
            parameter.copy_(0.2 * values + float(name.endswith("norm.weight")))
    return network


def loss_of(network: DualArm, rows: list[int]) -> Tensor:
    """Return the mean loss of these subjects, one slab each; four passes use each arm four times."""
    drawn = torch.Generator().manual_seed(2)
    mri, pet, roi = (torch.rand((SUBJECTS, 3, 16, 16), generator=drawn) for _ in range(3))
    clinical = torch.randn((SUBJECTS, 2), generator=drawn)
    # Subjects of different brightness have gradients of different length.
    bright = torch.arange(1, SUBJECTS + 1)[:, None, None, None] / SUBJECTS
    batch = Batch((2 * mri - 1)[rows], (pet * 2 * bright - 1)[rows], roi[rows], clinical[rows])
    translator = Translator(network, FixedNoise(rows))
    settings = LossSettings(metaroi_strength=2.0, cycle=True, detach_cycle=False)
    return step_loss(translator, batch, settings=settings, generator=torch.Generator())


class TestAgainstOpacusHooks:
    def by_hooks(self, clip: float) -> tuple[list[str], list[Tensor], Tensor]:
        network = dual_arm()
        hooked = GradSampleModule(network)
        hooked.train()
        optimizer = DPOptimizer(
            torch.optim.SGD(network.parameters(), lr=0.0),
            noise_multiplier=0.0,
            max_grad_norm=clip,
            expected_batch_size=SUBJECTS,
        )
        loss_of(network, list(range(SUBJECTS))).backward()
        samples = [p.grad_sample.flatten(1) for p in network.parameters()]
        norms = torch.cat(samples, dim=1).norm(dim=1)
        optimizer.pre_step()
        return [n for n, _ in network.named_parameters()], [p.grad for p in network.parameters()], norms

    def by_subject(self, clip: float) -> list[Tensor]:
        network, seen = dual_arm(), []
        found = mechanism(
            list(network.parameters()),
            max_grad_norm=clip,
            expected_subjects=SUBJECTS,
            on_release=lambda gradients: seen.extend(g.clone() for g in gradients),
        )
        for subject in range(SUBJECTS):
            loss_of(network, [subject]).backward()
            found.add()
        found.step()
        return seen

    @pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # the first layer's input is data
    def test_the_clipped_sums_are_the_same(self) -> None:
        norms = self.by_hooks(1.0)[2]
        middle = norms.median().item()
        assert norms.min() < 0.99 * middle < 1.01 * middle < norms.max(), "some are clipped, some are not"
        for clip in (middle, 1e6, 1e-3):
            names, wanted, _ = self.by_hooks(clip)
            found = self.by_subject(clip)
            assert len(found) == len(wanted) > 40
            scale = max(w.abs().max().item() for w in wanted)
            for name, mine, theirs in zip(names, found, wanted, strict=True):
                assert theirs.abs().max() > 0, name
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6 * scale, msg=name)


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


class TestTheOptimizer:
    @pytest.mark.parametrize("seeded", [True, False])
    def test_layout_does_not_matter(self, seeded: bool) -> None:
        # A fused AdamW that walked raw memory would mix the coordinates of channels-last weights.
        results = []
        for layout in (torch.contiguous_format, torch.channels_last):
            drawn = torch.Generator().manual_seed(0)
            weight = nn.Parameter(torch.randn(4, 3, 3, 3, generator=drawn).to(memory_format=layout))
            bias = nn.Parameter(torch.randn(4, generator=drawn))
            found = Mechanism(
                torch.optim.AdamW([weight, bias], lr=0.1, fused=True),
                noise_multiplier=float(seeded),
                max_grad_norm=1.0,
                expected_subjects=2.0,
                generator=torch.Generator().manual_seed(5) if seeded else None,
            )
            for _ in range(3):
                for _ in range(2):
                    weight.grad = torch.randn(4, 3, 3, 3, generator=drawn)  # as its maths, not its memory
                    bias.grad = torch.randn(4, generator=drawn)
                    found.add()
                found.step()
            assert weight.is_contiguous(memory_format=layout)
            results.append((weight.detach(), bias.detach()))
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("noise", [0.0, 1.0])
    def test_the_observer_sees_what_the_optimizer_gets(self, noise: float) -> None:
        two, seen = weights([[0.0] * 3] * 2, [0.0]), []
        found = mechanism(two, rate=0.5, noise_multiplier=noise, on_release=seen.append)
        give(found, [[0.1] * 3] * 2, [0.2])
        found.step()
        assert len(seen) == 1
        for parameter, gradient in zip(two, seen[0], strict=True):
            assert torch.equal(parameter.detach(), -0.5 * gradient)

    def test_the_first_moment_is_of_noisy_gradients(self) -> None:
        (one,) = weights([0.0] * 4)
        seen: list[Tensor] = []
        optimizer = torch.optim.AdamW([one], betas=(0.9, 0.99))
        found = Mechanism(
            optimizer, noise_multiplier=1.0, max_grad_norm=1.0, expected_subjects=1.0, on_release=seen.extend
        )
        give(found, [9.0, 0.0, 0.0, 0.0])
        found.step()
        torch.testing.assert_close(optimizer.state[one]["exp_avg"], 0.1 * seen[0])


class TestFinite:
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_what_is_no_number_counts_as_none(self, bad: float) -> None:
        """Stopping would tell that this subject is here: a step with it is a step without it."""
        one, other = weights([0.0, 0.0], [0.0])
        found = mechanism([one, other])
        for parameter, gradient in ((one, [0.3, 0.4]), (other, [0.0])):
            parameter.grad = torch.tensor(gradient)
        assert found.add()
        one.grad, other.grad = torch.tensor([1.0, 2.0]), torch.tensor([bad])
        assert not found.add()
        assert (one.grad, other.grad) == (None, None)
        found.step()
        with_bad = [parameter.detach().clone() for parameter in (one, other)]
        alone = weights([0.0, 0.0], [0.0])
        without = mechanism(alone)
        give(without, [0.3, 0.4], [0.0])
        without.step()
        assert all(torch.equal(a, b.detach()) for a, b in zip(with_bad, alone, strict=True))

    def test_a_new_mechanism_begins_with_nothing(self) -> None:
        (one,) = weights([0.0])
        broken = mechanism([one])
        give(broken, [math.nan])
        found = mechanism([one])
        give(found, [0.5])
        found.step()
        assert one.item() == pytest.approx(-0.5)


def test_memory_is_that_of_one_subject() -> None:
    (one,) = weights([0.0] * 1000)
    found = mechanism([one])

    def alive() -> int:
        gc.collect()
        tensors = [thing for thing in gc.get_objects() if type(thing) in (Tensor, nn.Parameter)]
        return sum(tensor.numel() >= 1000 for tensor in tensors)

    counts = []
    for subjects in (2, 40):
        for _ in range(subjects):
            give(found, [0.1] * 1000)
            assert one.grad is None
            assert one.grad_sample is None
        counts.append(alive())
    assert counts[0] == counts[1]


class TestBatchStatistics:
    @pytest.mark.parametrize(
        "layer",
        [
            nn.BatchNorm1d(4),
            nn.BatchNorm2d(4),
            nn.BatchNorm3d(4),
            nn.SyncBatchNorm(4),
            nn.LazyBatchNorm2d(),
            nn.BatchNorm2d(4, affine=False),  # no weights: Opacus's validator does not look
            nn.BatchNorm2d(4, track_running_stats=False),
            nn.BatchNorm2d(4).requires_grad_(False),
            nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        ],
    )
    def test_is_refused_in_one_message(self, layer: nn.Module) -> None:
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(layer, nn.ReLU()))
        with pytest.raises(PrivacyError) as caught:
            refuse_batch_statistics(network)
        said = str(caught.value)
        assert "1 problem(s)" in said
        assert f"1.0 is {type(layer).__name__}, wanted group normalisation" in said

    def test_every_layer_is_named_at_once(self) -> None:
        with pytest.raises(PrivacyError, match=r"(?s)2 problem.*\n  - 0 is .*\n  - 2 is "):
            refuse_batch_statistics(nn.Sequential(nn.BatchNorm1d(2), nn.ReLU(), nn.BatchNorm1d(2)))

    def test_our_network_has_none(self) -> None:
        refuse_batch_statistics(dual_arm())
        refuse_batch_statistics(nn.Sequential(nn.GroupNorm(1, 4), nn.LayerNorm(4), nn.InstanceNorm2d(4)))
        assert ModuleValidator.is_valid(dual_arm().train())
        assert not list(dual_arm().buffers()), "what is no weight gets no noise"
