# SPDX-License-Identifier: Apache-2.0
"""JSON beside a scan: tracer, units, frame lengths and scanner, collected by BIDS's inheritance."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FDG = {"fdg", "18fdg", "fluorodeoxyglucose", "fluorodeoxydglucose", "fludeoxyglucose"}


@dataclass(frozen=True)
class Sidecar:
    """What the metadata of a scan say; empty where they say nothing.

    Attributes
    ----------
    problems
        Files that cannot be read, each one clear sentence.
    """

    tracer: str = ""
    units: str = ""
    frame_seconds: tuple[float, ...] = ()
    manufacturer: str = ""
    problems: tuple[str, ...] = ()


def entities(name: str) -> dict[str, str]:
    """Return the entities of a BIDS file name: sub-01_ses-M00_T1w.nii is sub 01 and ses M00."""
    return dict(part.split("-", 1) for part in name.split("_") if "-" in part)


def is_fdg(tracer: str) -> bool:
    """Tell FDG, however it is spelt: 18FFDG, [18F]FDG, fluorodeoxyglucose; FDGal is another tracer."""
    plain = re.sub(r"[^a-z0-9]", "", tracer.lower())
    return plain in _FDG or re.sub(r"\d", "", re.sub(r"18f|f18", "", plain, count=1)) in _FDG


def contradiction(scan: Path, about: Sidecar) -> list[str]:
    """Name a PET that is given as FDG while its metadata say another tracer."""
    if not about.tracer or re.search("fdg|gluc", about.tracer.lower()):
        return []
    return [f"{scan.name} is given as FDG, its JSON says {about.tracer!r}: find out which, and mend it"]


def read_sidecar(paths: Iterable[Path]) -> Sidecar:
    """Merge JSON files, the farthest first: a nearer one overrides it."""
    merged: dict[str, Any] = {}
    problems = []
    for path in paths:
        try:
            found = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            problems.append(f"{path.name} is no readable JSON ({error}); mend or remove it")
            continue
        merged |= found if isinstance(found, dict) else {}
    frames = merged.get("FrameDuration")
    seconds = tuple(_seconds(s) for s in frames) if isinstance(frames, list) else ()
    tracer, units, maker = (_word(merged, key) for key in ("TracerName", "Units", "Manufacturer"))
    return Sidecar(tracer, units, seconds, maker, tuple(problems))


def inherited(root: Path, scan: Path) -> Iterator[Path]:
    """Yield the sidecars that apply, farthest first: of the scan's suffix, their entities among its own."""
    own, suffix = entities(scan.name).items(), scan.name.split(".")[0].rsplit("_", 1)[-1]
    folders = [root, *(root / p for p in reversed(scan.parent.relative_to(root).parents) if p != Path())]
    for folder in dict.fromkeys([*folders, scan.parent]):
        fitting = [p for p in folder.glob(f"*{suffix}.json") if entities(p.name).items() <= own]
        yield from sorted(fitting, key=lambda p: len(entities(p.name)))


def beside(scan: Path) -> list[Path]:
    """Return the sidecar of a scan outside a BIDS dataset: the same name, ending in .json."""
    path = scan.with_name(re.sub(r"\.nii(\.gz)?$", "", scan.name) + ".json")
    return [path] if path.is_file() else []


def _word(merged: Mapping[str, Any], key: str) -> str:
    found = merged.get(key)
    return found.strip() if isinstance(found, str) else ""


def _seconds(length: object) -> float:
    """Return a frame's length; NaN, which no PET is read with, of what is no number."""
    return float(length) if isinstance(length, int | float) else math.nan
