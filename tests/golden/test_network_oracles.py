# SPDX-License-Identifier: Apache-2.0
"""The network against MONAI and against the numbers of the paper."""

import pytest
import torch
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding

from pasta_model.network.blocks import timestep_embedding
from pasta_model.network.unet import Arm
from pasta_model.sections import NetworkSettings


@pytest.mark.parametrize("width", [32, 64])
def test_time_embedding_is_monais(width: int) -> None:
    timesteps = torch.arange(0, 1000, 7)
    torch.testing.assert_close(
        timestep_embedding(timesteps, width), get_timestep_embedding(timesteps, width), rtol=0, atol=1e-5
    )


def test_published_arm_has_as_many_weights_as_the_paper_says() -> None:
    with torch.device("meta"):
        arm = Arm(NetworkSettings(size="base"), clinical_values=9)
    found = sum(p.numel() for p in arm.parameters())
    # The published arm also holds a time linear, 256 -> 2 x width, in each resampling block, which
    # nothing trains: down at 64, 128, 192 channels, up at 256, 192, 128.
    dead = sum((256 + 1) * 2 * width for width in (64, 128, 192, 256, 192, 128))
    assert round((found + dead) / 1e6, 3) == 44.548
