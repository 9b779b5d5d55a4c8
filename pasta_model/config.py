# SPDX-License-Identifier: Apache-2.0
"""Settings: frozen sections, read once at the edge from flat key-values or from a TOML file.

A setting's outside name is `section.kebab-case` ("training.learning-rate"), the same in Flower's
flat run configuration, in a TOML file and in an error message.
"""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from pasta_model.errors import ConfigError, Problems

Scalar: TypeAlias = bool | int | float | str
Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def _known_spacing(spacing: float) -> float:
    if spacing not in (1.5, 3.0):
        raise ValueError("1.5 or 3.0 (mm)")
    return spacing


class Section(BaseModel):
    """A frozen section: unknown names and wrong types are refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        alias_generator=_kebab,
        populate_by_name=True,
    )


class RunSettings(Section):
    """What the run is called and where its files go."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] = "pasta"
    output: str = "outputs/flwr"
    seed: Annotated[int, Field(ge=0)] = 2026
    resume: bool = False


class DataSettings(Section):
    """Where sites keep their prepared data, and what of it the network sees."""

    sites: str = "outputs/demo/sites"
    spacing: Annotated[float, AfterValidator(_known_spacing)] = 3.0
    clinical: Literal["adni", "demographics", "none"] = "adni"


class NetworkSettings(Section):
    """The shape of an arm; `size` is the dial, everything else follows from it.

    `base` is the published network: slabs of 15 slices, width 64, multipliers (1, 2, 3, 4).
    """

    size: Literal["tiny", "small", "base"] = "tiny"
    clinical_both_directions: bool = False

    @property
    def slab_slices(self) -> int:
        """Slices of a slab, the channels of the network."""
        return {"tiny": 15, "small": 15, "base": 15}[self.size]

    @property
    def base_width(self) -> int:
        """Channels at full resolution."""
        return {"tiny": 48, "small": 32, "base": 64}[self.size]

    @property
    def patch(self) -> int:
        """Pixels of a side folded into channels before the stem; the published network folds none."""
        return {"tiny": 2, "small": 1, "base": 1}[self.size]

    @property
    def multipliers(self) -> tuple[int, ...]:
        """Width of each level in units of the base width."""
        return {"tiny": (1, 1), "small": (1, 2, 3), "base": (1, 2, 3, 4)}[self.size]

    @property
    def blocks(self) -> int:
        """Residual blocks a level on the way down; one more on the way up."""
        return {"tiny": 1, "small": 2, "base": 4}[self.size]

    @property
    def attention_factors(self) -> tuple[int, ...]:
        """Downsampling factors whose blocks have attention."""
        return {"tiny": (), "small": (4,), "base": (4, 8)}[self.size]

    @property
    def heads(self) -> int:
        """Attention heads."""
        return {"tiny": 1, "small": 4, "base": 4}[self.size]

    @property
    def groups(self) -> int:
        """Groups of the normalisation; small widths need fewer than the published 32."""
        return {"tiny": 8, "small": 16, "base": 32}[self.size]


class DiffusionSettings(Section):
    """The noise schedule and its one table of timesteps."""

    num_train_timesteps: Positive = 1000
    timestep_stride: Positive = 10

    @model_validator(mode="after")
    def _stride_fits(self) -> Self:
        if self.timestep_stride > self.num_train_timesteps:
            raise ValueError("timestep-stride is larger than num-train-timesteps")
        return self


class LossSettings(Section):
    """Weights of the loss, and whether both directions are trained as a cycle."""

    metaroi_strength: Annotated[float, Field(ge=0)] = 9.0
    task_weight: Annotated[float, Field(ge=0)] = 0.1
    cycle: bool = True


class TrainingSettings(Section):
    """The loop at a site."""

    local_steps: Positive = 10
    batch_size: Positive = 4
    accumulation: Positive = 1
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    device: Annotated[str, Field(pattern=r"^(cpu|mps|cuda(:\d+)?)$")] = "cpu"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    channels_last: bool = True
    threads: Annotated[int, Field(ge=0)] = 0


class FederationSettings(Section):
    """The rounds: how many, with whom, how weighted."""

    rounds: Positive = 32
    min_sites: Annotated[int, Field(ge=1)] = 2
    weight_cap: Annotated[float, Field(gt=0, le=1)] = 0.5
    join_deadline: Annotated[float, Field(gt=0)] = 30.0
    round_deadline: Annotated[float, Field(gt=0)] = 3600.0
    validation_slabs: Annotated[int, Field(ge=1)] = 8


class SamplingSettings(Section):
    """How a volume is synthesised."""

    steps: Positive = 5
    hop: Positive = 4
    batch_slabs: Positive = 16


class Settings(Section):
    """All settings of a run."""

    run: RunSettings = RunSettings()
    data: DataSettings = DataSettings()
    network: NetworkSettings = NetworkSettings()
    diffusion: DiffusionSettings = DiffusionSettings()
    loss: LossSettings = LossSettings()
    training: TrainingSettings = TrainingSettings()
    federation: FederationSettings = FederationSettings()
    sampling: SamplingSettings = SamplingSettings()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        table = range(0, self.diffusion.num_train_timesteps, self.diffusion.timestep_stride)
        if self.sampling.steps > len(table):
            raise ValueError("sampling.steps is larger than the table of trained timesteps")
        if self.sampling.hop > self.network.slab_slices:
            raise ValueError("sampling.hop is larger than a slab: slices would be left out")
        return self

    @property
    def total_steps(self) -> int:
        """Optimizer steps of a site over the whole run."""
        return self.federation.rounds * self.training.local_steps

    def flat(self) -> dict[str, Scalar]:
        """All settings as `section.name` -> scalar, Flower's form."""
        nested = self.model_dump(by_alias=True)
        return {f"{s}.{k}": v for s, section in nested.items() for k, v in section.items()}

    def digest(self) -> str:
        """SHA-256 of everything that shapes the weights: all but name and place of the run."""
        shaping = {k: v for k, v in self.flat().items() if k not in _NOT_SHAPING}
        return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


_NOT_SHAPING = {
    "run.name",
    "run.output",
    "run.resume",
    "data.sites",
    "federation.join-deadline",
    "federation.round-deadline",
    "federation.min-sites",
    "training.threads",
    "sampling.steps",
    "sampling.hop",
    "sampling.batch-slabs",
}


def settings_from_flat(values: Mapping[str, Scalar]) -> Settings:
    """Read settings from flat `section.name` keys, such as Flower's run configuration.

    Raises
    ------
    ConfigError
        One line for every unknown name, wrong type or impossible value.
    """
    nested: dict[str, dict[str, Any]] = {}
    problems = Problems("the settings cannot be used")
    for key, value in values.items():
        section, _, name = key.partition(".")
        if not name:
            problems.add(_unknown(key))
            continue
        nested.setdefault(section, {})[name] = value
    return _validated(nested, problems)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    ConfigError
        When the file is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error


def settings_from_toml(path: Path) -> Settings:
    """Read settings from a TOML file with one table a section.

    Raises
    ------
    ConfigError
        When the file is missing, not TOML, or holds settings that cannot be used.
    """
    return _validated(read_toml(path), Problems(f"{path}: the settings cannot be used"))


def _validated(nested: Mapping[str, Any], problems: Problems) -> Settings:
    try:
        settings = Settings.model_validate(nested)
    except ValidationError as error:
        for detail in error.errors():
            problems.add(_line(detail))
        settings = None
    problems.raise_if_any(ConfigError)
    assert settings is not None, "a failed validation has at least one problem"
    return settings


def _line(detail: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return _unknown(name)
    wanted = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    found = detail["input"]
    return f"{name}: found {found!r}, wanted {wanted}" if name else wanted


def _unknown(name: str) -> str:
    known = list(Settings().flat())
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{name}: no such setting{hint}"
