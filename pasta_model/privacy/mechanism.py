# SPDX-License-Identifier: Apache-2.0
"""The mechanism (DP-SGD, Abadi et al. 1607.00133, algorithm 1), with a subject as the unit.

    g_i <- g_i min(1, C / ||g_i||);   g <- (sum_i g_i + N(0, sigma^2 C^2)) / expected subjects

A subject's gradient is that of an ordinary backward pass over its slabs, so Opacus's optimizer is given it
as a batch of one, with its skip signal until all subjects of the step are in. Nothing hooks into the network:
attention, arms that are used four times, autocast and compilation work as ever, and the memory is that of one
subject however many are in a step.

What comes after is post-processing of the noisy gradient and costs nothing: AdamW and its moments, weight
decay, the schedule of the learning rate, FedProx's pull, what is rounded for the wire, and the server's
averages. bfloat16 comes before: gradients are float32 when they are clipped.
"""

from collections.abc import Callable, Sequence

import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from pasta_model.errors import PrivacyError, Problems
from pasta_model.privacy.noise import rekey, secure_generator
from pasta_model.privacy.normals import on_grid, secure_normals

LEAST_CLIP = 1e-6  # far from where float32 loses digits and clipping would not be exact
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Mechanism:
    """Clips and sums the gradients of subjects, and lets go of them with noise.

    Parameters
    ----------
    optimizer
        Over everything that is trained.
    noise_multiplier, max_grad_norm
        sigma and C.
    expected_subjects
        The divisor; never the number drawn, which is secret.
    generator
        Of the noise, for tests and audits only. By default a stream cipher's under the operating system's key
        on a CPU; PyTorch's own with such a key, anew at every step, on a GPU.
    on_release
        Is shown the averaged noisy gradients, before the optimizer's step.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_subjects: float,
        generator: torch.Generator | None = None,
        on_release: Callable[[Sequence[Tensor]], None] = lambda gradients: None,
    ) -> None:
        if not LEAST_CLIP <= max_grad_norm <= 1 / LEAST_CLIP:
            raise PrivacyError(f"clip norm {max_grad_norm:g}, wanted {LEAST_CLIP:g} to {1 / LEAST_CLIP:g}")
        self.parameters: list[nn.Parameter] = [p for group in optimizer.param_groups for p in group["params"]]
        self._generator = generator or secure_generator(str(self.parameters[0].device))
        self._on_release = on_release
        on_cpu = self._generator.device.type == "cpu"
        self._rekeyed = generator is None and not on_cpu
        kind = _Unpredictable if generator is None and on_cpu else DPOptimizer
        self._optimizer = kind(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_subjects,
            generator=self._generator,
            secure_mode=True,  # the sum of four draws: no rounding of one gives it away (2107.10138)
        )

    def add(self) -> bool:
        """Take what lies in `grad` as the gradient of one subject: clip it, add it, clear it.

        Returns
        -------
        bool
            Whether it was a finite number. Otherwise it counts as none: to stop would tell whoever sent the
            weights that this very subject is here.
        """
        found = [p.grad for p in self.parameters if p.grad is not None]
        if not nn.utils.get_total_norm(found).isfinite():
            self._optimizer.original_optimizer.zero_grad(set_to_none=True)
            return False
        for parameter in self.parameters:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            _give(parameter, gradient.detach()[None])
        self._pass_on(last=False)
        return True

    def step(self, before: Callable[[], None] = lambda: None) -> None:
        """Add the noise, divide, and take the optimizer's step; a step without subjects is one, too.

        Parameters
        ----------
        before
            Called between the two, to add what does not come from data to the gradients.
        """
        if self._rekeyed:
            rekey(self._generator)
        for parameter in self.parameters:  # an empty batch: everybody has been added before
            _give(parameter, parameter.detach().new_zeros((0, *parameter.shape)))
        self._pass_on(last=True)
        before()
        self._optimizer.original_optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _pass_on(self, *, last: bool) -> None:
        self._optimizer.signal_skip_step(do_skip=not last)
        if self._optimizer.pre_step():
            for parameter in self.parameters:
                assert parameter.grad is not None, "Opacus gives every parameter its noise"
                # The fused AdamW walks raw memory: a gradient must lie as its parameter does.
                parameter.grad = torch.empty_like(parameter, requires_grad=False).copy_(parameter.grad)
            self._on_release([p.grad for p in self.parameters if p.grad is not None])
        else:
            self._optimizer.zero_grad(set_to_none=True)


class _Unpredictable(DPOptimizer):  # type: ignore[misc] # Opacus has no types
    """Opacus's optimizer with noise from a stream cipher, on a CPU.

    Where nobody's gradient reaches a weight, the noise itself is what is released; a Mersenne twister's other
    draws could be computed from it.
    """

    def add_noise(self) -> None:
        """Add the noise, and round the sum to a grid."""
        spread = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            total = parameter.summed_grad
            if spread:
                noisy = total.double().numpy() + spread * secure_normals(total.numel()).reshape(total.shape)
                total = torch.from_numpy(on_grid(noisy, spread=spread))
            parameter.grad = total


def _give(parameter: nn.Parameter, gradients: Tensor) -> None:
    """Hand Opacus the gradients of so many subjects, (subjects, *shape)."""
    parameter.grad_sample = gradients  # type: ignore[attr-defined]


def refuse_batch_statistics(network: nn.Module) -> None:
    """Refuse a network in which one subject changes the gradient of another, or leaves statistics behind.

    Opacus's validator would pass by layers without weights that are trained; these keep statistics, too.

    Raises
    ------
    PrivacyError
        With a line for every layer.
    """
    problems = Problems("the network keeps statistics of subjects, which no noise protects")
    for name, layer in network.named_modules():
        if isinstance(layer, BATCH_NORMS) or getattr(layer, "track_running_stats", False):
            problems.add(f"{name or 'itself'} is {type(layer).__name__}, wanted group normalisation")
    problems.raise_if_any(PrivacyError)
