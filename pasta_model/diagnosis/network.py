# SPDX-License-Identifier: Apache-2.0
"""The 3D classifier: MONAI's convolutional encoder, clinical values fused before the last layer.

The encoder keeps where things are (it flattens, it does not average over the brain): scans lie in MNI
space, and where the metabolism falls is the diagnosis. Group normalisation has no batch statistics.
Shapes: B scans, K clinical numbers, C classes; a scan is (1, z, x, y).
"""

import math

import torch
from monai.networks.nets.classifier import Classifier
from torch import Tensor, nn
from torch.nn import functional as F

from pasta_model.seeding import stream_seed

FEATURES = 16  # of a scan, that the last layer sees beside the clinical values
COARSEST = 4  # voxels along the longest axis, at the end of the encoder
GROUPS = 4
SLOPE = 0.1  # of leaky ReLU


class ScanClassifier(nn.Module):
    """A scan and clinical values to logits.

    Parameters
    ----------
    shape
        Voxels of a scan, (z, x, y).
    clinical
        K, 0 for none.
    width
        Channels of the first layer, a multiple of 4.
    """

    def __init__(self, shape: tuple[int, int, int], *, classes: int, clinical: int, width: int) -> None:
        super().__init__()
        depth = max(1, math.ceil(math.log2(max(shape) / COARSEST)))
        self.encoder = Classifier(
            in_shape=(1, *shape),
            classes=FEATURES,
            channels=[width * 2**layer for layer in range(depth)],
            strides=[2] * depth,
            num_res_units=0,
            act=("leakyrelu", {"negative_slope": SLOPE}),
            norm=("group", {"num_groups": GROUPS}),
        )
        self.head = nn.Linear(FEATURES + clinical, classes)

    def forward(self, scan: Tensor, clinical: Tensor) -> Tensor:
        """Map (B, 1, z, x, y) and (B, K) to logits (B, C)."""
        features = F.leaky_relu(self.encoder(scan), SLOPE)  # (B, 16)
        logits: Tensor = self.head(torch.cat([features, clinical.to(features.dtype)], dim=1))
        return logits.float()


def new_classifier(
    shape: tuple[int, int, int], *, classes: int, clinical: int, width: int, seed: int
) -> ScanClassifier:
    """Return a freshly initialised classifier; the same arguments give the same weights."""
    with torch.random.fork_rng(devices=[]):
        # PyTorch's initialisers take no generator; the fork keeps the global stream as it was.
        torch.manual_seed(stream_seed(seed, "diagnosis", "weights"))  # noqa: TID251
        return ScanClassifier(shape, classes=classes, clinical=clinical, width=width)
