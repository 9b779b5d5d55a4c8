# SPDX-License-Identifier: Apache-2.0
"""The sections of the settings: what each setting means, its limits and its default."""

from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pasta_model.network.parts import part_names
from pasta_model.network.shape import SHAPES, Shape

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Planes = Literal["axial", "coronal", "sagittal", "all"]


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def known_spacing(spacing: float) -> float:
    """Let 1.5 and 3 mm pass; raise ValueError at another voxel size."""
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
    spacing: Annotated[float, AfterValidator(known_spacing)] = 3.0
    clinical: Literal["adni", "demographics", "none"] = "adni"
    planes: Planes = "axial"


class NetworkSettings(Section):
    """The shape of an arm; `size` is the dial, `shape` overrides parts of it ("width 32, blocks 2").

    `base` is the published network: slabs of 15 slices, width 64, multipliers (1, 2, 3, 4).
    """

    size: Literal["tiny", "small", "base"] = "tiny"
    shape: str = ""
    clinical_both_directions: bool = False

    @model_validator(mode="after")
    def _possible(self) -> Self:
        _ = self.resolved
        return self

    @cached_property
    def resolved(self) -> Shape:
        """The shape of the size, with what `shape` says instead."""
        return SHAPES[self.size].overridden(self.shape)

    @property
    def slab_slices(self) -> int:
        """Slices of a slab, the channels of the network."""
        return self.resolved.slices

    @property
    def base_width(self) -> int:
        """Channels at full resolution."""
        return self.resolved.width


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
    detach_cycle: bool = False


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
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    channels_last: bool = True
    compile: bool = False
    checkpointing: bool = False
    threads: Annotated[int, Field(ge=0)] = 0


class FederationSettings(Section):
    """The rounds: how many, with whom, and how long to wait.

    Attributes
    ----------
    invited
        A file of the coordinator's with the public keys of the invited sites (`pasta-server provision`
        writes it). Empty only where no node has a key: in a simulation.
    held_out
        Sites, by comma, that never train; the last model is measured on them.
    min_sites
        A round with fewer usable answers is repeated, not averaged.
    join_deadline, round_deadline, patience
        Seconds: for sites to appear at the start; for the answers of a round; for a round that came to too
        few answers, until the run gives up.
    max_subjects
        A site that claims more is refused, where `invited` names no number of its own.
    cross_evaluation
        At the end, measure every site's last update on every other site: updates then reach other sites.
    """

    rounds: Positive = 32
    min_sites: Annotated[int, Field(ge=1)] = 2
    weight_cap: Annotated[float, Field(gt=0, le=1)] = 0.5
    join_deadline: Annotated[float, Field(gt=0)] = 30.0
    round_deadline: Annotated[float, Field(gt=0)] = 3600.0
    patience: Annotated[float, Field(ge=0)] = 60.0
    validation_slabs: Annotated[int, Field(ge=1)] = 8
    invited: str = ""
    held_out: str = ""
    max_subjects: Positive = 20_000
    cross_evaluation: bool = False

    @property
    def held_out_sites(self) -> frozenset[str]:
        """The held-out sites, one by one."""
        return frozenset(word.strip() for word in self.held_out.split(",") if word.strip())


class AggregationSettings(Section):
    """What the server makes of the sites' updates.

    Attributes
    ----------
    rule
        A mean by subjects (`fedavg`), followed by a server optimizer (`fedavgm`, `fedadam`, `fedyogi`,
        `fedadagrad`: arXiv 2003.00295), or the coordinate-wise `median` or `trimmed-mean` (1803.01498).
    proximal_mu
        FedProx (1812.06127): pulls local training towards the received weights; any rule.
    learning_rate, momentum, second_momentum, tau
        Of the server optimizer; tau is its degree of adaptivity.
    trim
        Share of the sites that a trimmed mean leaves out at each end.
    norm_factor
        An update more than so many times as long as the (lower) median of the round is rejected.
    """

    rule: Literal["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "median", "trimmed-mean"] = (
        "fedavg"
    )
    proximal_mu: Annotated[float, Field(ge=0)] = 0.0
    learning_rate: Annotated[float, Field(gt=0)] = 1.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    second_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    tau: Annotated[float, Field(gt=0)] = 1e-3
    trim: Annotated[float, Field(ge=0, lt=0.5)] = 0.2
    norm_factor: Annotated[float, Field(gt=1)] = 10.0


Wire = Literal["float32", "bfloat16", "int8", "int4"]


class ExchangeSettings(Section):
    """What of the network travels, and how it is written.

    Attributes
    ----------
    uplink, downlink
        How differences of weights are written, from and to the sites.
    personal
        Parts (`network/parts.py`), by comma, that a site trains and keeps to itself.
    frozen
        Parts that nobody trains.
    """

    uplink: Wire = "float32"
    downlink: Wire = "float32"
    personal: str = ""
    frozen: str = ""

    @model_validator(mode="after")
    def _parts_are_known(self) -> Self:
        both = set(self.personal_parts) & set(self.frozen_parts)
        if both:
            raise ValueError(f"a part is personal or frozen, not both: {', '.join(sorted(both))}")
        return self

    @property
    def personal_parts(self) -> tuple[str, ...]:
        """The personal parts, one by one."""
        return part_names(self.personal)

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """The frozen parts, one by one."""
        return part_names(self.frozen)


class SamplingSettings(Section):
    """How a volume is synthesised.

    Attributes
    ----------
    solver
        DPM-Solver++(2M) on a grid uniform in log-SNR, or DDIM on one uniform in time.
    fusion
        Slabs are fused into one volume after every step, or at the end only (as published).
    noise
        One noise volume that all slabs share, or each slab its own (as published).
    planes
        The direction of the slabs; `all` averages the three at every step. The network must have been
        trained on them (`data.planes`).
    start
        Trained timestep of a shortened chain, from the noised preview; 0 is the whole chain.
    clip_quantile
        Dynamic clipping of x_0 at this quantile of its size; 0 is none.
    samples
        Volumes a subject; of several, mean and standard deviation are kept.
    antithetic
        A lone sample is averaged with that of the negated noise (2506.06185): what depends on the noise
        linearly cancels out, at the cost of one sample more.
    memory
        GB of conditioner features that are kept between steps; slabs beyond it are read again.
    published_timesteps
        Show the network the number of the step instead of its timestep, as the published code did.
    """

    solver: Literal["ddim", "dpm++2m"] = "ddim"
    steps: Positive = 3
    hop: Positive = 7
    fusion: Literal["every-step", "end"] = "every-step"
    noise: Literal["volume", "slab"] = "volume"
    planes: Planes = "axial"
    start: Annotated[int, Field(ge=0)] = 0
    clip_quantile: Fraction = 0.0
    samples: Positive = 1
    antithetic: bool = True
    batch_slabs: Positive = 16
    memory: Annotated[float, Field(ge=0)] = 2.0
    published_timesteps: bool = False

    @model_validator(mode="after")
    def _one_noise_for_one_trajectory(self) -> Self:
        if self.fusion == "every-step" and self.noise == "slab":
            raise ValueError("sampling.noise 'slab' needs sampling.fusion 'end': one volume has one noise")
        return self
