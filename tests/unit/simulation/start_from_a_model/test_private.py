# SPDX-License-Identifier: Apache-2.0
"""A private federation that goes on from a model, or from none."""

import torch

from pasta_model.checkpoint import load_checkpoint
from pasta_model.data.clinical import SCHEMES
from pasta_model.network.parts import members
from tests.support.starts import OWN, Run, state

PRIVATE = {
    "privacy__unit": "subject",
    "privacy__epsilon": 50.0,
    "privacy__noise_multiplier": 2.0,  # nothing to calibrate
    "privacy__accountant": "rdp",
    "privacy__delta": 0.1,
    "privacy__subjects_per_step": 2,
    "privacy__slabs_per_subject": 1,
    "training__learning_rate": 1e-4,
}


def test_private_run_trains_the_norms_of_a_model_alone(run: Run, initial) -> None:
    output = run(exchange__trained="norms", **PRIVATE)
    norms, found = members(initial, ["norms"]), state(output)
    assert all(torch.equal(found[n], initial[n]) for n in initial.keys() - norms)
    assert not any(torch.equal(found[n], initial[n]) for n in norms if n.startswith("pet_arm"))
    assert load_checkpoint(output / "last.safetensors").standardisation == OWN


def test_private_run_without_a_model_takes_the_public_reference(run: Run) -> None:
    output = run(run__initial="", federation__rounds=1, **PRIVATE)
    assert load_checkpoint(output / "last.safetensors").standardisation == SCHEMES["adni"].reference
