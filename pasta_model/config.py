# SPDX-License-Identifier: Apache-2.0
"""All settings together: frozen, read once at the edge from flat key-values or from a TOML file.

A setting's outside name is `section.kebab-case` ("training.learning-rate"), the same in Flower's
flat run configuration, in a TOML file and in an error message.
"""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias

from pydantic import ValidationError, model_validator

from pasta_model.errors import ConfigError, Problems
from pasta_model.federated_sections import (
    AggregationSettings,
    ExchangeSettings,
    FederationSettings,
    PrivacySettings,
)
from pasta_model.sections import (
    DataSettings,
    DiffusionSettings,
    LossSettings,
    NetworkSettings,
    RunSettings,
    SamplingSettings,
    Section,
    TrainingSettings,
)

Scalar: TypeAlias = bool | int | float | str
MEANS = ("fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad")  # rules that take the sites' mean


class Settings(Section):
    """All settings of a run."""

    run: RunSettings = RunSettings()
    data: DataSettings = DataSettings()
    network: NetworkSettings = NetworkSettings()
    diffusion: DiffusionSettings = DiffusionSettings()
    loss: LossSettings = LossSettings()
    training: TrainingSettings = TrainingSettings()
    federation: FederationSettings = FederationSettings()
    aggregation: AggregationSettings = AggregationSettings()
    exchange: ExchangeSettings = ExchangeSettings()
    privacy: PrivacySettings = PrivacySettings()
    sampling: SamplingSettings = SamplingSettings()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        privacy = (*_subject_privacy_misfits(self), *_site_privacy_misfits(self))
        lines = [*_sampling_misfits(self), *_exchange_misfits(self), *privacy, *_reference_misfits(self)]
        if lines:
            raise ValueError("\n".join(lines))
        return self

    @property
    def total_steps(self) -> int:
        """Optimizer steps of a site over the whole run."""
        return self.federation.rounds * self.training.local_steps

    @property
    def title(self) -> str:
        """What is trained: the size and every ablation of the method."""
        ablations = {
            "without CycleEx": not self.loss.cycle,
            "with a detached cycle": self.loss.cycle and self.loss.detach_cycle,
            "without MetaROI weighting": self.loss.metaroi_strength == 0,
            "without clinical data": self.data.clinical == "none",
        }
        said = ", ".join(name for name, holds in ablations.items() if holds)
        shape = f" ({self.network.shape})" if self.network.shape else ""
        return f"PASTA {self.network.size}{shape}" + (f", {said}" if said else "")

    def flat(self) -> dict[str, Scalar]:
        """All settings as `section.name` -> scalar, Flower's form."""
        nested = self.model_dump(by_alias=True)
        return {f"{s}.{k}": v for s, section in nested.items() for k, v in section.items()}

    def digest(self) -> str:
        """SHA-256 of everything that shapes the weights: all but name and place of the run."""
        shaping = {
            k: v for k, v in self.flat().items() if k not in _NOT_SHAPING and not k.startswith("sampling.")
        }
        return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


def _sampling_misfits(s: Settings) -> Iterator[str]:
    table = range(0, s.diffusion.num_train_timesteps, s.diffusion.timestep_stride)
    if s.sampling.steps > len(table):
        yield "sampling.steps is larger than the table of trained timesteps"
    if s.sampling.start and s.sampling.start not in table:
        yield "sampling.start is not one of the trained timesteps"
    elif s.sampling.start and table.index(s.sampling.start) + 1 < s.sampling.steps:
        yield "sampling.steps is larger than the trained timesteps up to sampling.start"
    if s.sampling.hop > s.network.slab_slices:
        yield "sampling.hop is larger than a slab: slices would be left out"


def _exchange_misfits(s: Settings) -> Iterator[str]:
    named = {*s.exchange.personal_parts, *s.exchange.frozen_parts, *s.exchange.trained_parts}
    if "adapters" in named and not s.network.adapter_rank:
        yield "exchange names adapters, and network.adapter-rank is 0: there are none"


def _reference_misfits(s: Settings) -> Iterator[str]:
    """Say why sums over persons leave no private run: nothing adds noise to them."""
    if s.federation.reference == "none" or s.privacy.unit == "none":
        return
    yield (
        f"federation.reference = {s.federation.reference!r} sends sums over persons without noise, and"
        f" privacy.unit = {s.privacy.unit!r} has no mechanism for them; leave it out, or make the norms in a"
        " run without privacy that the sites agree to"
    )


def _subject_privacy_misfits(s: Settings) -> Iterator[str]:
    private = s.privacy.unit == "subject" and s.privacy.metrics != "open"
    if private and s.federation.cross_evaluation:
        yield (
            "federation.cross-evaluation tells errors of every site's data, which privacy.metrics ="
            f" {s.privacy.metrics!r} withholds, or pays for one by one; leave it out"
        )


def _site_privacy_misfits(s: Settings) -> Iterator[str]:
    """Say what would break the promise that one site moves the result by no more than its clipped 1/n."""
    if s.privacy.unit != "site":
        return
    if s.aggregation.shares != "equal":
        yield (
            "privacy.unit = 'site' wants aggregation.shares = 'equal' (the equal-weights rule): a site of a"
            f" larger share would be protected less; found {s.aggregation.shares!r}"
        )
    if s.aggregation.rule not in MEANS:
        yield (
            f"privacy.unit = 'site' wants a mean as aggregation.rule ({', '.join(MEANS)}): clipping does not"
            f" bound how far one site moves a {s.aggregation.rule}"
        )
    if s.federation.cross_evaluation:
        yield (
            "privacy.unit = 'site' rules out federation.cross-evaluation: it sends every site's update,"
            " without noise, to all the others"
        )


_NOT_SHAPING = {
    "run.name",
    "run.output",
    "run.resume",
    "data.sites",
    "federation.join-deadline",
    "federation.round-deadline",
    "federation.patience",
    "federation.min-sites",
    "federation.invited",
    "federation.max-subjects",
    "federation.cross-evaluation",
    "federation.reference",
    "training.device",  # each site's own
    "training.threads",
    "training.compile",
    "training.checkpointing",
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


PUBLISHED_SAMPLING: Mapping[str, Scalar] = {
    "solver": "ddim",
    "steps": 100,
    "hop": 1,
    "fusion": "end",
    "noise": "slab",
    "planes": "axial",
    "start": 0,
    "clip-quantile": 0.0,
    "samples": 1,
    "antithetic": False,
    "published-timesteps": True,
}
"""How the published code samples, its fault of timesteps too; only the rims of slabs weigh more here."""


def sampling_of(
    settings: Settings, *, published: bool = False, changes: Mapping[str, Scalar | None]
) -> SamplingSettings:
    """Return the sampling of a model with changes; those that are None change nothing.

    Raises
    ------
    ConfigError
        When a change, or what they make together, is impossible.
    """
    own = {**(PUBLISHED_SAMPLING if published else {}), **{k: v for k, v in changes.items() if v is not None}}
    flat = {**settings.flat(), **{f"sampling.{name}": value for name, value in own.items()}}
    return settings_from_flat(flat).sampling


def changes_of(words: Sequence[str]) -> dict[str, Scalar]:
    """Read changes such as "start=500" from a command line.

    Raises
    ------
    ConfigError
        With a line for every word that is not name=value.
    """
    problems, changes = Problems("the settings cannot be used"), dict[str, Scalar]()
    for word in words:
        name, given, value = word.partition("=")
        if not given or not name:
            problems.add(f"found {word!r}, wanted name=value, as start=500")
            continue
        try:
            found = json.loads(value)
        except ValueError:
            found = value
        changes[name] = found if isinstance(found, bool | int | float) else value
    problems.raise_if_any(ConfigError)
    return changes


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
            for line in _line(detail).split("\n"):
                problems.add(line)
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
