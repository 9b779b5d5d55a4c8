# SPDX-License-Identifier: Apache-2.0
"""Clip and sum by hand, what the optimizer gets of it, and what must never happen."""

import gc
import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pasta_model.privacy.mechanism import Mechanism
from tests.support.mechanisms import give, mechanism, weights


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
