# SPDX-License-Identifier: Apache-2.0
"""The sections of the settings that are about many sites: rounds, aggregation, exchange, privacy."""

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pasta_model.network.parts import members, part_names
from pasta_model.sections import Positive, Section

Reference = Literal["norms", "familiarity"]
REFERENCES: tuple[Reference, ...] = ("norms", "familiarity")


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
    reference
        At the end, ask the training sites for sums over their persons (`exchange/reference.py`): voxel by
        voxel of PETs for the norms of abnormality maps, of features of MRIs for familiarity, or both.
    """

    rounds: Annotated[int, Field(gt=0, lt=100_000)] = 32
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
    reference: Literal["none", "norms", "familiarity", "both"] = "none"

    @property
    def references(self) -> tuple[Reference, ...]:
        """Which sums the run asks for, one by one."""
        return tuple(name for name in REFERENCES if self.reference in (name, "both"))

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
    shares
        A site's weight in the mean: by its subjects (capped by `federation.weight-cap`), or equal.
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
    shares: Literal["subjects", "equal"] = "subjects"


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
    trained
        The only parts that are trained; the rest is frozen. Empty: all parts.
    """

    uplink: Wire = "float32"
    downlink: Wire = "float32"
    personal: str = ""
    frozen: str = ""
    trained: str = ""

    @model_validator(mode="after")
    def _parts_are_known(self) -> Self:
        both = set(self.personal_parts) & set(self.frozen_parts)
        if both:
            raise ValueError(f"a part is personal or frozen, not both: {', '.join(sorted(both))}")
        if self.trained_parts and self.frozen_parts:
            raise ValueError("name the parts that are trained or those that are frozen, not both")
        idle = set(self.personal_parts) - set(self.trained_parts)
        if self.trained_parts and idle:
            raise ValueError(
                f"personal parts are among those trained; not trained: {', '.join(sorted(idle))}"
            )
        if self.trained_parts and set(self.trained_parts) == set(self.personal_parts):
            raise ValueError("all that is trained is personal, and nothing is left to exchange")
        return self

    @property
    def personal_parts(self) -> tuple[str, ...]:
        """The personal parts, one by one."""
        return part_names(self.personal)

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """The frozen parts, one by one; see `frozen_names`."""
        return part_names(self.frozen)

    @property
    def trained_parts(self) -> tuple[str, ...]:
        """The only parts that are trained, one by one; empty: all but the frozen."""
        return part_names(self.trained)

    def frozen_names(self, tensors: Iterable[str]) -> set[str]:
        """Names of the tensors that nobody trains."""
        names = set(tensors)
        if self.trained_parts:
            return names - members(names, self.trained_parts)
        return members(names, self.frozen_parts)

    def exchanged_names(self, tensors: Iterable[str]) -> set[str]:
        """Names of the tensors that travel: neither frozen nor personal."""
        names = set(tensors)
        return names - self.frozen_names(names) - members(names, self.personal_parts)


# Far from where float32 loses digits: a clip norm of 1e-43 would not be kept to.
Norm = Annotated[float, Field(ge=1e-6, le=1e6)]


class PrivacySettings(Section):
    """Differential privacy: whom it protects, how much, and what else leaves.

    Attributes
    ----------
    unit
        `subject`: every site adds noise to its own training, and the server need not be trusted. `site`: the
        server adds noise to the mean of many sites' updates, and must be trusted. `none`: neither.
    epsilon, delta
        What the run may spend, of each subject (or site), over all its rounds.
    noise_multiplier
        Standard deviation of the noise in units of the clip norm; 0: the least that keeps to epsilon.
    max_grad_norm
        Clip norm of a subject's gradient, over both arms together.
    subjects_per_step
        Expected subjects of a step; a site of N subjects draws each with probability subjects_per_step / N.
    slabs_per_subject, draws_per_slab
        Slabs of a subject in a step, and timesteps and noises a slab (noise multiplicity, 2210.09929): they
        average within the subject, at no privacy cost.
    accountant
        Opacus's; the other one cross-checks. With a delta below 1e-8 it is RDP: PRV's rounding would count.
    metrics
        Losses, errors and times: `withheld`; validation errors `noised` by a mechanism of their own; or
        `open`, which is not covered.
    metrics_noise_multiplier
        Of the noised validation error.
    max_update_norm
        Clip norm of a site's update where the unit is the site.
    """

    unit: Literal["none", "subject", "site"] = "none"
    epsilon: Annotated[float, Field(gt=0)] = 8.0
    delta: Annotated[float, Field(ge=1e-12, lt=1)] = 1e-4
    noise_multiplier: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    max_grad_norm: Norm = 1.0
    subjects_per_step: Positive = 16
    slabs_per_subject: Positive = 4
    draws_per_slab: Positive = 1
    accountant: Literal["prv", "rdp"] = "prv"
    metrics: Literal["withheld", "noised", "open"] = "withheld"
    metrics_noise_multiplier: Annotated[float, Field(gt=0, le=1e6)] = 10.0
    max_update_norm: Norm = 1.0

    @property
    def promise(self) -> str:
        """What a run promises, in words."""
        if self.unit == "none":
            return "none"
        whom = "person at a site" if self.unit == "subject" else "site"
        return f"each {whom}: epsilon at most {self.epsilon:g}, delta {self.delta:g}"
