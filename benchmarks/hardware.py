# SPDX-License-Identifier: Apache-2.0
"""What a benchmark ran on, by name, and how fast that can multiply at most."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pasta_model.placement import has_bfloat16


def describe(device: str) -> str:
    """Name processor, units, threads and PyTorch."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    units = [u for u in ("avx2", "avx512_bf16", "amx_bf16") if torch.cpu.get_capabilities().get(u)]
    return (
        f"{os.cpu_count()} cores of {_processor()} ({', '.join(units)};"
        f" {'with' if has_bfloat16(device) else 'no'} bfloat16 units), {torch.get_num_threads()} threads,"
        f" torch {torch.__version__}"
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    told = dict(reversed([part.strip() for part in line.split(":", 1)]) for line in lines if ":" in line)
    names = {key: value for value, key in told.items()}
    return f"{names.get('model name', platform.machine())}, model {names.get('model', '?')}"


def wait(device: str) -> None:
    """Wait until the device has done all that it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def seconds(run: Callable[[], object], *, device: str, repeats: int, warm_up: int = 1) -> float:
    """Least wall time of a few runs."""
    times = []
    for _ in range(warm_up):
        run()
    for _ in range(repeats):
        wait(device)
        start = time.perf_counter()
        run()
        wait(device)
        times.append(time.perf_counter() - start)
    return min(times)


def peak(dtype: torch.dtype, *, device: str) -> float:
    """FLOP a second of a large matrix product, the machine's measured peak."""
    n = 8192 if device.startswith("cuda") else 2048
    a, b = (torch.rand(n, n, device=device).to(dtype) for _ in range(2))
    with torch.inference_mode():
        return 2 * n**3 / seconds(lambda: a @ b, device=device, repeats=5)
