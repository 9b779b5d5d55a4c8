# SPDX-License-Identifier: Apache-2.0
"""The methods of a study: how each makes a model, and which settings it changes.

A federation of n sites sees n x rounds x local steps batches, and so do pooled data and the rival networks,
one after the other; a site alone sees its own share of them; a private method sees what its settings say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from pasta_model.config import Scalar
from pasta_model.errors import ConfigError

Kind = Literal["federation", "pooled", "alone", "rival", "preview", "mean"]
Family = Literal["training together", "other networks", "ablations"]


@dataclass(frozen=True)
class Method:
    """A way to a synthetic PET.

    Attributes
    ----------
    kind
        How the model is made: sites together, one pool, each site alone, another network, or none.
    changes
        Settings besides those of the study.
    after
        The method whose model it uses; empty: it trains its own.
    rival
        Which other network (`simulation.rivals`).
    """

    name: str
    kind: Kind
    family: Family
    about: str
    changes: Mapping[str, Scalar] = field(default_factory=dict)
    after: str = ""
    rival: str = ""

    @property
    def folder(self) -> str:
        """Name of its folders."""
        return "".join(c if c.isalnum() or c in ".-" else "-" for c in self.name.replace(" ", "-"))


_TOGETHER: Family = "training together"
_PRIVATE: dict[str, Scalar] = {  # fewer and larger steps: each is paid for
    "privacy.unit": "subject",
    "privacy.epsilon": 8.0,
    "privacy.delta": 1e-3,
    "privacy.max-grad-norm": 0.01,
    "privacy.slabs-per-subject": 1,
    "federation.rounds": 8,
    "training.local-steps": 4,
    "training.warmup-steps": 2,
}
METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("mean PET", "mean", "other networks", "the mean training PET, the same for everybody"),
        Method("alone", "alone", _TOGETHER, "each site trains on its own data"),
        Method("pooled", "pooled", _TOGETHER, "all sites' data in one place: what nobody may do"),
        Method("fedavg", "federation", _TOGETHER, "FedAvg over all sites"),
        Method(
            "fedprox", "federation", _TOGETHER, "FedProx, mu 0.01", {"aggregation.proximal-mu": 0.01}
        ),
        Method(
            "personalised", "federation", _TOGETHER, "FedAvg; norms stay at their site; last round",
            {"exchange.personal": "norms"},
        ),
        Method("private", "federation", _TOGETHER, "FedAvg, subject-level DP-SGD, epsilon 8", _PRIVATE),
        Method("preview", "preview", "other networks", "the conditioner's own PET, one pass", after="fedavg"),
        Method("U-Net", "rival", "other networks", "regression in one pass, pooled", rival="U-Net"),
        Method(
            "concatenation", "rival", "other networks", "diffusion, MRI concatenated, pooled",
            rival="concatenation",
        ),
        Method("pix2pix", "rival", "other networks", "adversarial U-Net, pooled", rival="pix2pix"),
        Method("without CycleEx", "federation", "ablations", "one direction only", {"loss.cycle": False}),
        Method(
            "without MetaROI", "federation", "ablations", "every voxel counts the same",
            {"loss.metaroi-strength": 0.0},
        ),
        Method(
            "without clinical", "federation", "ablations", "no clinical vector", {"data.clinical": "none"}
        ),
        Method(
            "with test scores", "federation", "ablations", "the clinical vector has MMSE, ADAS-13 and ApoE4",
            {"data.clinical": "adni"},
        ),
    )
}  # fmt: skip


def resolve(name: str, own: Mapping[str, tuple[str, Mapping[str, Scalar]]]) -> Method:
    """Return a method by name: one of ours, or one of the study's own that is like one of ours.

    Raises
    ------
    ConfigError
        When there is none of that name.
    """
    if name in METHODS:
        return METHODS[name]
    if name not in own or own[name][0] not in METHODS:
        raise ConfigError(f"no method {name!r}; wanted one of {', '.join(METHODS)}")
    like, changes = own[name]
    base = METHODS[like]
    told = ", ".join(f"{key} = {value}" for key, value in changes.items())
    about = f"as {like}; {told}"
    return replace(base, name=name, about=about, changes={**base.changes, **changes})
