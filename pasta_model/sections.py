# SPDX-License-Identifier: Apache-2.0
"""The sections of the settings that shape one model; those of a federation are in `federated_sections`."""

from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

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
    """What the run is called, where its files go, and where it starts from.

    Attributes
    ----------
    initial
        A model on the coordinator's disk to go on from; empty: fresh weights from the seed.
    """

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] = "pasta"
    output: str = "outputs/flwr"
    initial: str = ""
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

    Attributes
    ----------
    adapter_rank
        Rank of the adapters beside the layers (`network/adapters.py`); 0: none.
    """

    size: Literal["tiny", "small", "base"] = "tiny"
    shape: str = ""
    clinical_both_directions: bool = False
    adapter_rank: Annotated[int, Field(ge=0)] = 0

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
