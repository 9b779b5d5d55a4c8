# SPDX-License-Identifier: Apache-2.0
"""What the demo runs with: the defaults of the settings, in the demo's own folder."""

from pathlib import Path

from pasta_model.config import Scalar, Settings, settings_from_flat, settings_from_toml
from pasta_model.errors import ConfigError
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


def demo_cohort(*, seed: int, spacing: float = 3.0) -> CohortSettings:
    """Return the default cohort of a seed.

    Raises
    ------
    ConfigError
        When there is no template of that spacing.
    """
    if spacing not in (1.5, 3.0):
        raise ConfigError(f"spacing: found {spacing}, wanted 1.5 or 3.0 mm")
    return CohortSettings(seed=seed, spacing=spacing)
