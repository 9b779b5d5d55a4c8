# SPDX-License-Identifier: Apache-2.0
"""What a benchmark ran on, by name, and how fast that can multiply at most."""

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pasta_model.files import write_json
from pasta_model.placement import has_bfloat16


def describe(device: str) -> str:
    """Name processor, units, threads and PyTorch."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    able = getattr(torch.cpu, "get_capabilities", dict)()
    units = [u for u in ("avx2", "avx512_bf16", "amx_bf16") if able.get(u)]
    return (
        f"{os.cpu_count()} cores of {_processor()} ({', '.join(units)};"
        f" {'with' if has_bfloat16(device) else 'no'} bfloat16 units), {torch.get_num_threads()} threads,"
        f" torch {torch.__version__}"
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = dict(tuple(part.strip() for part in line.split(":", 1)) for line in lines if ":" in line)
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


class Rows:
    """What a benchmark measured so far, kept after every row: it goes on where it was stopped."""

    def __init__(self, output: Path | None, about: dict[str, Any]) -> None:
        self.output = output
        self.found: dict[str, Any] = {**about, "rows": []}
        if output and output.is_file():
            earlier = json.loads(output.read_text(encoding="utf-8"))
            if all(earlier.get(key) == value for key, value in about.items()):
                self.found = earlier

    def __contains__(self, name: str) -> bool:
        return any(row["name"] == name for row in self.found["rows"])

    def add(self, name: str, **values: Any) -> None:
        """Keep a row."""
        self.found["rows"].append({"name": name, **values})
        print(f"{name}: {values}", flush=True)
        if self.output:
            write_json(self.output, self.found)


def float32_alone() -> None:
    """Let float32 be float32 on a GPU too, whose convolutions would round it to TF32."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
