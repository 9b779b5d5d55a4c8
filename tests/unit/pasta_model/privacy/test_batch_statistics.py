# SPDX-License-Identifier: Apache-2.0
"""Layers that mix the subjects of a batch are refused."""

import pytest
from opacus.validators import ModuleValidator
from torch import nn

from pasta_model.errors import PrivacyError
from pasta_model.privacy.mechanism import refuse_batch_statistics
from tests.support.mechanisms import dual_arm


class TestBatchStatistics:
    @pytest.mark.parametrize(
        "layer",
        [
            nn.BatchNorm1d(4),
            nn.BatchNorm2d(4),
            nn.BatchNorm3d(4),
            nn.SyncBatchNorm(4),
            nn.LazyBatchNorm2d(),
            nn.BatchNorm2d(4, affine=False),  # no weights: Opacus's validator does not look
            nn.BatchNorm2d(4, track_running_stats=False),
            nn.BatchNorm2d(4).requires_grad_(False),
            nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        ],
    )
    def test_is_refused_in_one_message(self, layer: nn.Module) -> None:
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(layer, nn.ReLU()))
        with pytest.raises(PrivacyError) as caught:
            refuse_batch_statistics(network)
        said = str(caught.value)
        assert "1 problem(s)" in said
        assert f"1.0 is {type(layer).__name__}, wanted group normalisation" in said

    def test_every_layer_is_named_at_once(self) -> None:
        with pytest.raises(PrivacyError, match=r"(?s)2 problem.*\n  - 0 is .*\n  - 2 is "):
            refuse_batch_statistics(nn.Sequential(nn.BatchNorm1d(2), nn.ReLU(), nn.BatchNorm1d(2)))

    def test_our_network_has_none(self) -> None:
        refuse_batch_statistics(dual_arm())
        refuse_batch_statistics(nn.Sequential(nn.GroupNorm(1, 4), nn.LayerNorm(4), nn.InstanceNorm2d(4)))
        assert ModuleValidator.is_valid(dual_arm().train())
        assert not list(dual_arm().buffers()), "what is no weight gets no noise"
