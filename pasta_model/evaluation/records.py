# SPDX-License-Identifier: Apache-2.0
"""An evaluation on disk: one folder of tables with its provenance, whole or not at all."""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pasta_model.checkpoint import PACKAGES, file_digest
from pasta_model.errors import ConfigError
from pasta_model.evaluation.columns import FAMILIES, METRICS
from pasta_model.evaluation.comparison import EvaluationResult
from pasta_model.evaluation.estimates import LEVEL, RESAMPLES
from pasta_model.evaluation.tables import write_groups, write_regions, write_scores
from pasta_model.evaluation.unseen import Measured
from pasta_model.files import atomic_directory, refuse_irreplaceable, write_json

SCORES, GROUPS, REGIONS, ABOUT = "scores.tsv", "groups.tsv", "regions.tsv", "evaluation.json"
FILES = (SCORES, GROUPS, REGIONS, ABOUT, "overlaps.tsv", "report.html", "MODEL_CARD.md")
"""All that an evaluation's folder may hold; a new evaluation replaces it."""


def refuse_other_folder(output: Path) -> None:
    """Refuse a place for an evaluation before any work is done for it.

    Raises
    ------
    ConfigError
        When it is the name of a table, cannot be written, or holds files of others.
    """
    if output.suffix in {".tsv", ".csv"}:
        raise ConfigError(
            f"{output}: is the name of a table, wanted a folder: an evaluation is four files, and {SCORES}"
            f" is one of them; write --output {output.with_suffix('')}"
        )
    refuse_irreplaceable(output)
    strangers = sorted({p.name for p in output.iterdir()} - {*FILES}) if output.is_dir() else []
    if strangers:
        raise ConfigError(f"{output}: holds other files ({', '.join(strangers[:3])}); choose a new folder")


def write_evaluation(
    output: Path,
    result: EvaluationResult,
    *,
    who: Measured,
    manifest: Path,
    folders: Mapping[str, Path],
    settings: Mapping[str, Any],
    more: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Write `scores.tsv`, `groups.tsv`, `regions.tsv` and `evaluation.json` into a folder.

    Parameters
    ----------
    who
        Who was measured.
    more
        Writes what else belongs there (`FILES`) into the folder that it is given.

    Notes
    -----
    `scores.tsv` and `evaluation.json` name persons and their files, and stay where the PETs are; the other
    two hold groups.
    """
    with atomic_directory(output) as work:
        write_scores(work / SCORES, result.scores)
        write_groups(work / GROUPS, result.groups)
        write_regions(work / REGIONS, result.regions)
        write_json(work / ABOUT, _provenance(result, who, manifest, folders, settings))
        more(work)


def _provenance(
    result: EvaluationResult,
    who: Measured,
    manifest: Path,
    folders: Mapping[str, Path],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "Description": "Synthetic FDG-PET beside real FDG-PET; research software, not a medical device",
        "Settings": {name: str(v) if isinstance(v, Path) else v for name, v in settings.items()},
        "Intervals": f"{LEVEL:.0%}, percentiles of {RESAMPLES} resamples of persons",
        "Headline": [metric.name for metric in METRICS],
        "Families": dict(FAMILIES),
        "Manifest": _file(manifest),
        "HeldOut": {
            "basis": str(who.basis),
            "splits": _file(who.splits) if who.splits else None,
            "left_out": list(who.left_out),
        },
        "Methods": {name: str(folder.resolve()) for name, folder in folders.items()},
        "LeftOut": {name: list(sessions) for name, sessions in result.missing.items()},
        "Inputs": [
            {"method": method, "session": session, "path": str(path), "sha256": file_digest(path)}
            for method, session, path in result.files
        ],
        "Versions": {name: version(name) for name in PACKAGES},
    }


def _file(path: Path) -> dict[str, str]:
    return {"path": str(path.resolve()), "sha256": file_digest(path)}
