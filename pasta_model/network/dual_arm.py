# SPDX-License-Identifier: Apache-2.0
"""Two arms, two roles, and the exchange of their places.

`MRI_TO_PET`: the first arm denoises the PET, the second conditions on the MRI. `PET_TO_MRI`: the
very same two arms with exchanged places, so the other translation costs no further weight.
"""

from dataclasses import dataclass
from enum import Enum

from torch import Tensor, nn

from pasta_model.network.adapters import add_adapters
from pasta_model.network.blocks import Conditions
from pasta_model.network.unet import Arm
from pasta_model.sections import NetworkSettings


class Direction(Enum):
    """Which translation the arms make."""

    MRI_TO_PET = "mri_to_pet"
    PET_TO_MRI = "pet_to_mri"


@dataclass(frozen=True)
class Conditioning:
    """What the conditioner says of a slab.

    Attributes
    ----------
    features
        One map a gated block.
    preview
        (B, S, H, W) its own prediction of the target modality, in one pass.
    """

    features: list[Tensor]
    preview: Tensor


class DualArm(nn.Module):
    """The dual-arm network of PASTA."""

    def __init__(self, settings: NetworkSettings, *, clinical_values: int) -> None:
        super().__init__()
        self.settings = settings
        both = settings.clinical_both_directions
        self.pet_arm = Arm(settings, clinical_values=clinical_values)
        self.mri_arm = Arm(settings, clinical_values=clinical_values if both else 0)
        add_adapters(self, settings.adapter_rank)  # last: the seed gives the same weights beside them

    def denoiser(self, direction: Direction) -> Arm:
        """Return the arm that denoises the target of a direction."""
        return self.pet_arm if direction is Direction.MRI_TO_PET else self.mri_arm

    def conditioner(self, direction: Direction) -> Arm:
        """Return the arm that reads the condition of a direction."""
        return self.mri_arm if direction is Direction.MRI_TO_PET else self.pet_arm

    def condition(self, source: Tensor, *, direction: Direction) -> Conditioning:
        """Read the slab to translate from, (B, S, H, W) in [-1, 1]."""
        preview, features = self.conditioner(direction)(source)
        return Conditioning(features, preview)

    def denoise(
        self,
        noised: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        clinical: Tensor | None,
        *,
        direction: Direction,
    ) -> Tensor:
        """Predict x_0 (B, S, H, W) from x_t, the timesteps (B,) and the clinical vector (B, K)."""
        arm = self.denoiser(direction)
        conditions = Conditions(arm.embed(timesteps), clinical)
        x0: Tensor = arm(noised, conditions=conditions, features=conditioning.features)[0]
        return x0
