# SPDX-License-Identifier: Apache-2.0
"""What a study is made of, as its TOML file says it.

seeds = [1, 2, 3]
methods = ["mean PET", "alone", "pooled", "fedavg", "fedprox", "personalised", "private"]

[cohort.twins]                # or: manifests = ["adni/participants.tsv"] under [cohort]
seed = 7

[partition]
by = "diagnosis"              # or site, phase, vendor, size
alpha = 0.5
held-out = ["site-4"]

[settings.training]           # any setting of a run, for all methods
local-steps = 20

[method."fedprox, strong"]    # a method of one's own: like another, with other settings
like = "fedprox"
settings = { "aggregation.proximal-mu" = 1.0 }
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pasta_model.checkpoint import file_digest
from pasta_model.config import Scalar, Settings, read_toml, settings_from_flat
from pasta_model.data.manifest import Session
from pasta_model.data.store import spacing_of
from pasta_model.errors import ConfigError, Problems
from simulation.study.methods import METHODS, Method, resolve
from simulation.twins.cohort import CohortSettings

RESERVED = ("MRI", "real PET")
Scheme = Literal["site", "phase", "site-phase", "vendor", "diagnosis", "size"]


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class Part(BaseModel):
    """A table of the file: frozen, nothing unknown, names with hyphens."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=_kebab, populate_by_name=True)


class CohortPart(Part):
    """Who takes part: digital twins, or the tables of prepared scans.

    Attributes
    ----------
    twins
        A cohort to grow (`simulation.twins.cohort`).
    manifests
        Tables that `pasta prepare` wrote, or any manifests; relative to the study's file.
    """

    twins: CohortSettings | None = None
    manifests: tuple[Path, ...] = ()

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.twins is None) == (not self.manifests):
            raise ValueError("wanted either twins or manifests")
        return self


class PartitionPart(Part):
    """Who is at which site.

    Attributes
    ----------
    by
        The tables' own sites, phases of the study, both, the scanners' vendors; or, of one cohort, sites that
        differ in their diagnoses (Dirichlet, Hsu et al. 2019, arXiv 1909.06335) or in size only.
    sites
        How many to make, where `by` is "diagnosis" or "size".
    alpha
        Of the Dirichlet distribution: 0.1 gives sites of nearly one diagnosis, 100 equal ones.
    ratio
        Each site has so many times the persons of the next one, where `by` is "size".
    smallest
        Sites of fewer persons are pooled, but for those that are held out.
    held_out
        Sites that never train: all their persons are measured on. Names are those of `by`, or that of a pool
        ("pooled").
    """

    by: Scheme = "site"
    sites: Annotated[int, Field(ge=2, le=100)] = 4
    alpha: Annotated[float, Field(gt=0)] = 0.5
    ratio: Annotated[float, Field(ge=1)] = 2.0
    smallest: Annotated[int, Field(ge=0)] = 0
    held_out: tuple[str, ...] = ()


class SplitPart(Part):
    """Shares of the persons of each site that validate and that are measured on."""

    valid: Annotated[float, Field(ge=0, lt=1)] = 0.1
    test: Annotated[float, Field(gt=0, lt=1)] = 0.3


class MethodPart(Part):
    """A method of one's own: like another, with other settings."""

    like: str
    settings: dict[str, Scalar] = {}


class MeasurePart(Part):
    """What is measured beyond similarity.

    Attributes
    ----------
    main
        The method of pictures, viewer and comparisons.
    samples
        PETs a subject for the uncertainty of the main method; 1: not measured.
    diagnosis
        Methods whose PETs are read by classifiers, besides MRI and real PET; empty: none are trained.
    folds, reader_steps
        Of the classifiers; 0 steps: as they are by default.
    abnormality
        Whether z maps against the training sites' norms are made.
    smallest_group
        Groups of fewer subjects are not shown.
    """

    main: str = "fedavg"
    samples: Annotated[int, Field(ge=1, le=64)] = 4
    diagnosis: tuple[str, ...] = ()
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    reader_steps: Annotated[int, Field(ge=0)] = 0
    abnormality: bool = True
    smallest_group: Annotated[int, Field(ge=0)] = 5


class StudySettings(Part):
    """A whole study; `settings` holds what all methods have in common, by section."""

    name: str = "study"
    notice: str = ""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (2026,)
    methods: Annotated[tuple[str, ...], Field(min_length=1)] = ("mean PET", "alone", "pooled", "fedavg")
    cohort: CohortPart
    partition: PartitionPart = PartitionPart()
    split: SplitPart = SplitPart()
    measure: MeasurePart = MeasurePart()
    settings: dict[str, dict[str, Scalar]] = {}
    method: dict[str, MethodPart] = {}

    @field_validator("seeds", "methods")
    @classmethod
    def _distinct(cls, found: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(found)) < len(found):
            raise ValueError(f"found {list(found)}, wanted each once")
        return found

    @model_validator(mode="after")
    def _possible(self) -> Self:
        lines = list(self._misfits())
        if lines:
            raise ValueError("\n".join(lines))
        return self

    @property
    def common(self) -> dict[str, Scalar]:
        """Settings of all methods, as `section.name`."""
        return {f"{section}.{name}": v for section, own in self.settings.items() for name, v in own.items()}

    def at_spacing(self, session: Session) -> Self:
        """Return the study with `data.spacing` as the scans have it, unless the file names one."""
        if "data.spacing" in self.common:
            return self
        data = {**self.settings.get("data", {}), "spacing": spacing_of(session)}
        return self.model_copy(update={"settings": {**self.settings, "data": data}})

    def chosen(self) -> dict[str, Method]:
        """Return the methods of the study by name, in its order."""
        own = {name: (part.like, part.settings) for name, part in self.method.items()}
        return {name: resolve(name, own) for name in self.methods}

    def settings_of(self, method: Method, **places: Scalar) -> Settings:
        """Return the settings of a run of a method; `places` such as run_seed stand for `run.seed`."""
        named = {name.replace("_", ".", 1).replace("_", "-"): value for name, value in places.items()}
        return settings_from_flat({**self.common, **method.changes, **named})

    def _misfits(self) -> Iterator[str]:
        known = {*METHODS, *self.method}
        for name in self.methods:
            if name not in known:
                yield f"methods: {name!r} is no method; wanted some of {', '.join(sorted(known))}"
        yield from self._own_misfits()
        absent = [n for n in (self.measure.main, *self.measure.diagnosis) if n not in self.methods]
        if absent:
            yield f"measure names {', '.join(dict.fromkeys(absent))}, which the study's methods lack"
        if not (set(self.methods) - known) and all(part.like in METHODS for part in self.method.values()):
            yield from self._shared_folders()
            yield from self._settings_misfits()

    def _own_misfits(self) -> Iterator[str]:
        for name, part in self.method.items():
            if name in RESERVED or not name.strip():
                yield f"method.{name}: is the name of another input; choose another"
            if name in METHODS:
                yield f"method.{name}: is one already; give yours another name"
            if part.like not in METHODS:
                yield f"method.{name}.like: {part.like!r} is no method; wanted one of {', '.join(METHODS)}"

    def _shared_folders(self) -> Iterator[str]:
        """Say which methods would write into one folder, also on a disk that does not know upper case."""
        folders: dict[str, list[str]] = {}
        for name, method in self.chosen().items():
            folders.setdefault(method.folder.casefold(), []).append(repr(name))
        for folder, names in folders.items():
            if len(names) > 1:
                yield f"methods: {' and '.join(names)} would share the folder '{folder}'; rename all but one"

    def _settings_misfits(self) -> Iterator[str]:
        for name, method in self.chosen().items():
            try:
                self.settings_of(method)
            except ConfigError as error:
                yield f"settings of {name}: {error}"
            if method.after and method.after not in self.methods:
                yield f"methods: {name!r} uses the model of {method.after!r}, which the study's methods lack"


def read_study(path: Path) -> StudySettings:
    """Read a study's TOML file.

    Raises
    ------
    ConfigError
        When it cannot be read, or with a line for everything in it that cannot be.
    """
    found = read_toml(path)
    try:
        study = StudySettings.model_validate(found)
    except ValidationError as error:
        problems = Problems(f"{path}: describes no study")
        for detail in error.errors():
            name = ".".join(str(part) for part in detail["loc"])
            for line in str(detail["msg"]).removeprefix("Value error, ").split("\n"):
                problems.add(f"{name}: {line}" if name else line)
        problems.raise_if_any(ConfigError)
        raise
    return _rooted(study, path.parent)


def _rooted(study: StudySettings, folder: Path) -> StudySettings:
    """Make the paths of a study absolute: they are relative to its file."""
    paths = tuple((folder / path).resolve() for path in study.cohort.manifests)
    return study.model_copy(update={"cohort": study.cohort.model_copy(update={"manifests": paths})})


def shaping(study: StudySettings) -> Mapping[str, Any]:
    """Return what a study's folder must be of to go on in it.

    Methods and seeds may be added, and measures may change; the first seed draws sites and splits. A table of
    people that has changed is another study: who trained here would be measured there.
    """
    told = study.model_dump(mode="json", by_alias=True)
    people = {name: told[name] for name in ("cohort", "partition", "split", "settings")}
    tables = {str(path): file_digest(path) for path in study.cohort.manifests if path.is_file()}
    return {"seed": study.seeds[0], "tables": tables, **people}
