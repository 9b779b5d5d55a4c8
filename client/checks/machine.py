# SPDX-License-Identifier: Apache-2.0
"""The machine: the prepared scans, room on the disk, the device and its memory."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from client.checks.finding import Finding, cross, gigabytes, tick
from pasta_model.config import Settings, settings_from_flat

STORE, DISK, DEVICE, MEMORY = "prepared scans", "disk", "device", "memory"
ROUNDS_ON_DISK = 3  # two are remembered, a third is being written
# A round leaves the received weights, two moments, the codec's rest, personal parts and the answer.
WEIGHTS_A_ROUND = 6
PROGRAM = 1e9  # bytes of Python, PyTorch and Flower before the first weight
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def check_store(path: Path, *, site: str, min_subjects: int | None) -> Iterator[Finding]:
    """Look whether the prepared store can be read, is this site's, and has subjects enough."""
    from pasta_model.data.store import SiteStore

    store = SiteStore(path)
    subjects = {
        split: len({store.entries[i].person for i in store.indices(split)})
        for split in ("train", "valid", "test")
    }
    found = ", ".join(f"{number} {split}" for split, number in subjects.items())
    if store.site != site:
        yield cross(
            STORE,
            f"it is site {store.site!r}, the kit is for {site!r}",
            f"prepare it with --site {site}, or set [site] store in site.toml",
        )
    elif not subjects["train"]:
        yield cross(STORE, found, "no subject trains: prepare more scans, or other splits")
    elif min_subjects is not None and subjects["train"] < min_subjects:
        yield cross(
            STORE,
            f"{found}; the site's policy wants at least {min_subjects} to train",
            "prepare more scans, or lower min-subjects in policy.toml if that is meant",
        )
    else:
        later = "" if subjects["valid"] else "without validation subjects the training ones are measured"
        yield tick(STORE, f"subjects: {found}; {store.template.head.spacing:g} mm", later)


def check_disk(path: Path, *, size: str) -> Iterator[Finding]:
    """Look whether there is room for what the site remembers of a run."""
    from pasta_model.costs import wire_bytes

    there = next(place for place in (path, *path.parents) if place.exists())
    free = shutil.disk_usage(there).free
    needed = ROUNDS_ON_DISK * WEIGHTS_A_ROUND * wire_bytes(_settings(size))
    found = f"{gigabytes(free)} free, a run of size {size} keeps up to {gigabytes(needed)}"
    if free < needed:
        yield cross(DISK, found, f"free {gigabytes(needed - free)} beside {path}, or move the store")
    else:
        yield tick(DISK, found)


def check_device(device: str) -> Iterator[Finding]:
    """Look whether the device is there."""
    import torch

    from pasta_model.placement import check_device as refuse_missing_device

    refuse_missing_device(device)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{os.cpu_count()} cores"
    yield tick(DEVICE, f"{device}: {name}")


def check_memory(device: str, *, size: str, spacing: float) -> Iterator[Finding]:
    """Look whether a training step of the size, on scans of this spacing, fits into the device's memory."""
    from pasta_model.costs import training_memory

    settings = _settings(size, data__spacing=spacing)
    available = memory_of(device)
    needed = PROGRAM + training_memory(settings, batch_size=settings.training.batch_size).total
    found = f"{gigabytes(available)} available, a training step of size {size} takes {gigabytes(needed)}"
    if needed <= available:
        yield tick(MEMORY, found)
        return
    frugal = {"training__batch_size": 1, "training__checkpointing": True}
    small = _settings(size, data__spacing=spacing, **frugal)
    least = PROGRAM + training_memory(small, batch_size=1).total
    way_out = f"ask the coordinator for training.checkpointing and batches of one ({gigabytes(least)})"
    bigger = "use a machine with more memory, or agree on a smaller size"
    yield cross(MEMORY, found, way_out if least <= available else bigger)


def memory_of(device: str) -> float:
    """Bytes that are available on a device, or may be used of this machine; a container's limit holds."""
    import torch

    if device.startswith("cuda"):
        return float(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        rows = dict(line.split(":", 1) for line in meminfo.read_text(encoding="utf-8").splitlines())
        available = 1024.0 * float(rows["MemAvailable"].split()[0])
    else:
        available = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limits = [Path(limit) for limit in _CGROUP_LIMITS]
    told = [limit.read_text(encoding="utf-8").strip() for limit in limits if limit.is_file()]
    return min([available, *(float(text) for text in told if text.isdecimal())])


def _settings(size: str, **changes: bool | float) -> Settings:
    flat = {name.replace("__", ".").replace("_", "-"): value for name, value in changes.items()}
    return settings_from_flat({"network.size": size, **flat})
