# SPDX-License-Identifier: Apache-2.0
"""What the demo runs with: the defaults of the settings, in the demo's own folder."""

from pathlib import Path

from pydantic import ValidationError

from pasta_model.config import Scalar, Settings, read_toml, settings_from_flat, settings_from_toml
from pasta_model.errors import ConfigError, Problems
from simulation.twins.cohort import CohortSettings


def demo_settings(output: Path, *, seed: int | None = None, config: Path | None = None) -> Settings:
    """Return the settings of a demo in `output` (absolute), from a TOML file where one is given."""
    base = settings_from_toml(config) if config else Settings()
    own: dict[str, Scalar] = {
        "run.name": "demo",
        "run.seed": base.run.seed if seed is None else seed,
        "run.output": str(output / "federated"),
        "run.resume": True,
        "data.sites": str(output / "sites"),
    }
    return settings_from_flat({**base.flat(), **own})


def demo_cohort(*, seed: int, spacing: float = 3.0, sites: Path | None = None) -> CohortSettings:
    """Return the cohort of a seed: the default sites, or those of a TOML file.

    Raises
    ------
    ConfigError
        When there is no template of that spacing, or the file describes no cohort; one line a problem.
    """
    if spacing not in (1.5, 3.0):
        raise ConfigError(f"spacing: found {spacing}, wanted 1.5 or 3.0 mm")
    described = read_toml(sites) if sites else {}
    try:
        return CohortSettings.model_validate({**described, "seed": seed, "spacing": spacing})
    except ValidationError as error:
        problems = Problems(f"{sites}: describes no cohort")
        for detail in error.errors():
            name = ".".join(str(part) for part in detail["loc"])
            problems.add(f"{name}: found {detail['input']!r}: {detail['msg']}")
        problems.raise_if_any(ConfigError)
        raise
