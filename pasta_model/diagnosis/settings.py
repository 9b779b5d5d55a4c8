# SPDX-License-Identifier: Apache-2.0
"""The settings of a diagnosis run: tasks, readers, folds, and the budget that is the same for every input."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pasta_model.data.manifest import CLINICAL
from pasta_model.diagnosis.tasks import TASKS
from pasta_model.errors import ConfigError, Problems

READERS = ("network", "regions")


class DiagnosisSettings(BaseModel):
    """What is told apart, by whom, and with which effort.

    Attributes
    ----------
    tasks, readers
        Any of `TASKS` and of `READERS`.
    folds
        Each person is read by the one reader of so many that was trained without them.
    clinical
        Values beside the scan, where an input has " + clinical". MMSE and ADAS-Cog are not among them by
        default: the diagnosis is made with them, so a reader that sees them repeats the definition of the
        label and tells nothing of the scan. Age, sex, education and ApoE4 define no diagnosis.
    steps, batch_size, learning_rate, weight_decay
        Of the network's training (AdamW, cosine decay); equal for every input. The last weights are used:
        nothing is chosen by looking at held-out persons.
    width
        Channels of the network's first layer; they double from layer to layer.
    shift
        Training volumes are moved by up to so many mm along each axis, and half of them mirrored.
    penalty
        C of the logistic regression (inverse strength of L2), fixed: with few persons an inner choice of
        it is noise.
    resamples
        Of the bootstrap over persons.
    device, dtype
        Where the network computes, and in what; its weights are float32 in any case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[str, ...] = Field(default=tuple(TASKS), min_length=1)
    readers: tuple[Literal["network", "regions"], ...] = Field(default=("network", "regions"), min_length=1)
    folds: int = Field(default=5, ge=2)
    clinical: tuple[str, ...] = Field(default=("age", "sex", "education", "apoe4"), min_length=1)
    steps: int = Field(default=120, ge=1)
    batch_size: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    width: int = Field(default=8, ge=4, multiple_of=4)
    shift: float = Field(default=3.0, ge=0)
    penalty: float = Field(default=1.0, gt=0)
    resamples: int = Field(default=1000, ge=1)
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"

    @field_validator("tasks")
    @classmethod
    def _known_tasks(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        return _known(tasks, tuple(TASKS))

    @field_validator("clinical")
    @classmethod
    def _known_columns(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        return _known(columns, tuple(CLINICAL))

    @field_validator("readers")
    @classmethod
    def _once(cls, readers: tuple[str, ...]) -> tuple[str, ...]:
        return _known(readers, READERS)


def _known(found: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(found)) < len(found) or not set(found) <= set(wanted):
        raise ValueError(f"found {', '.join(found)}; wanted each once, of {', '.join(wanted)}")
    return found


def diagnosis_settings(**changes: Any) -> DiagnosisSettings:
    """Return the settings with some of them changed.

    Raises
    ------
    ConfigError
        With a line for every setting that is unknown or impossible.
    """
    try:
        return DiagnosisSettings(**changes)
    except ValidationError as error:
        problems = Problems("diagnosis settings that cannot be used")
        for each in error.errors():
            problems.add(f"{'.'.join(map(str, each['loc']))}: {each['msg']}, found {each['input']!r}")
        problems.raise_if_any(ConfigError)
        raise
