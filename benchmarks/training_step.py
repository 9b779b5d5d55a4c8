# SPDX-License-Identifier: Apache-2.0
"""A CycleEx training step, before and after: ratios within one run, in process time of one thread.

Run: python -m benchmarks.training_step
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pasta_model.checkpoint import new_translator
from pasta_model.config import settings_from_flat
from pasta_model.data.slabs import Batch
from pasta_model.diffusion import cycle, losses
from pasta_model.training import make_optimizer


def convolved_ssim(target: Tensor, prediction: Tensor) -> Tensor:
    """SSIM with the window as a one-channel convolution, the usual way."""
    h, w = target.shape[-2:]
    offset = torch.arange(11.0) - 5
    window = torch.exp(-(offset**2) / 4.5)
    window = window / window.sum()
    x, y = (s.float().reshape(-1, 1, h, w) for s in (target, prediction))
    moments = F.conv2d(torch.cat([x, y, x * x, y * y, x * y]), window[None, None, :, None])
    mx, my, xx, yy, xy = F.conv2d(moments, window[None, None, None, :]).chunk(5)
    c1, c2 = 0.02**2, 0.06**2
    top = (2 * mx * my + c1) * (2 * (xy - mx * my) + c2)
    return (top / ((mx**2 + my**2 + c1) * (xx - mx**2 + yy - my**2 + c2))).mean()


def step(dtype: str, *, channels_last: bool, batch_size: int = 4) -> Callable[[], None]:
    """Return one training step of the tiny network on random slabs."""
    settings = settings_from_flat({"training.dtype": dtype, "training.channels-last": channels_last})
    translator = new_translator(settings)
    optimizer = make_optimizer(translator.network, settings.training)
    generator = torch.Generator().manual_seed(0)
    slabs = [torch.rand(batch_size, settings.network.slab_slices, 48, 56) for _ in range(3)]
    batch = Batch(slabs[0], slabs[1], slabs[2], torch.randn(batch_size, 9))
    batch = batch.to("cpu", channels_last=channels_last)

    def run() -> None:
        optimizer.zero_grad()
        cycle.step_loss(translator, batch, settings=settings.loss, generator=generator).backward()
        optimizer.step()

    return run


def seconds(run: Callable[[], None], repeats: int = 5) -> float:
    """Least process time of a few runs, after two to warm up."""
    run()
    run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Print each variant's time as a ratio to plain float32."""
    torch.set_num_threads(1)
    ours, usual = losses.ssim, convolved_ssim
    results = {}
    for name, ssim, dtype, channels_last in (
        ("float32, contiguous, SSIM by convolution", usual, "float32", False),
        ("float32, contiguous", ours, "float32", False),
        ("float32, channels-last", ours, "float32", True),
        ("bfloat16, channels-last (default)", ours, "bfloat16", True),
    ):
        losses.ssim = ssim
        results[name] = seconds(step(dtype, channels_last=channels_last))
    first = next(iter(results.values()))
    for name, value in results.items():
        print(f"{name:45s} {value * 1e3:7.0f} ms a step of 4 slabs   {first / value:5.2f} x")


if __name__ == "__main__":
    main()
