# SPDX-License-Identifier: Apache-2.0
"""The compass of a run: SUVR, in the brain, the same slabs in every round."""

import numpy as np
import pytest

from pasta_model.checkpoint import new_translator
from pasta_model.data.clinical import SCHEMES, Standardisation
from pasta_model.data.slabs import SlabLoader
from pasta_model.validation import validation_mae


def loader(store) -> SlabLoader:
    standardisation = Standardisation((0.0,) * 6, (1.0,) * 6)
    return SlabLoader(
        store, split="valid", slab_slices=15, scheme=SCHEMES["adni"], standardisation=standardisation
    )


def test_by_hand_for_a_network_that_answers_zero(make_store, make_settings) -> None:
    # A fresh network's head is zero: x_0 = 0, which is SUVR 1.5, everywhere.
    settings, store = make_settings(federation__validation_slabs=12), make_store()
    found = validation_mae(new_translator(settings), loader(store), settings=settings)
    mri, pet = store.slab(3, 0, 48)
    wanted = np.abs((pet + 1) * 1.5 - 1.5)[mri > -1].mean()
    assert found == pytest.approx(wanted, rel=0.01)  # twelve slabs stand for the volume


def test_is_the_same_whenever_it_is_asked(make_store, make_settings) -> None:
    settings = make_settings()
    store, translator = make_store(), new_translator(settings)
    for parameter in translator.network.parameters():
        parameter.data += 0.01
    one = validation_mae(translator, loader(store), settings=settings)
    assert validation_mae(translator, loader(store), settings=settings) == one
    other = make_settings(run__seed=3)
    assert validation_mae(translator, loader(store), settings=other) != one
