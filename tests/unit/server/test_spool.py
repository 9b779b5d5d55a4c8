# SPDX-License-Identifier: Apache-2.0
"""Which updates are far out, when a site tries to have the others thrown out."""

from pathlib import Path

import numpy as np
import pytest

from pasta_model.exchange.steps import Step
from server.spool import Spool

SIZES = {"float32.000": 4}


def spool(folder: Path, **norms: float) -> Spool:
    made = Spool.empty(folder, SIZES)
    for site, norm in norms.items():
        made.add(site, Step("float32", {"float32.000": np.array([norm, 0, 0, 0], np.float32)}))
    return made


def test_next_to_nothing_does_not_shut_the_others_out(tmp_path: Path) -> None:
    tiny = spool(tmp_path / "a", A=1e-9, B=1.0)
    assert set(tiny.far_out(10.0)) == {"B"}  # with nothing to compare with, the longer one does the harm
    assert tiny.far_out(10.0, usual=0.9) == {}
    assert spool(tmp_path / "b", A=1e-9, B=1e-9, C=1.0, D=1.1).far_out(10.0, usual=1.2) == {}


def test_far_out_is_still_far_out_beside_a_tiny_one(tmp_path: Path) -> None:
    found = spool(tmp_path / "a", A=1e-9, B=1.0, C=500.0).far_out(10.0, usual=0.9)
    assert set(found) == {"C"}
    assert "500 times as long" in found["C"]


@pytest.mark.parametrize("usual", [0.0, 3.0])
def test_updates_that_shrink_together_are_in_order(tmp_path: Path, usual: float) -> None:
    assert spool(tmp_path / "a", A=0.5, B=0.6, C=0.4).far_out(10.0, usual=usual) == {}


def test_what_an_earlier_process_spooled_is_found(tmp_path: Path) -> None:
    spool(tmp_path / "a", A=2.0, B=3.0)
    found = Spool.found(tmp_path / "a", SIZES)
    assert found.norms == {"A": 2.0, "B": 3.0}
    assert [site for site, _ in found.buffers("float32.000")] == ["A", "B"]
