# SPDX-License-Identifier: Apache-2.0
"""Names of inputs, and what readers of real PETs are applied to."""

from pasta_model.diagnosis.inputs import Input, applied_inputs, default_inputs, input_of


def test_names() -> None:
    assert input_of("MRI") == Input("MRI", "MRI", clinical=False)
    assert input_of("MRI + clinical") == Input("MRI + clinical", "MRI", clinical=True)
    assert input_of("U-Net") == Input("U-Net", "U-Net", clinical=False)
    assert default_inputs(["pasta", "U-Net", "real PET"]) == (
        "MRI",
        "MRI + clinical",
        "U-Net",
        "pasta",
        "real PET",
    )


def test_only_readers_of_real_pets_see_synthetic_ones() -> None:
    inputs = [input_of(name) for name in ("MRI", "a", "a + clinical", "real PET", "b")]
    mri, a, _, real, b = inputs
    assert applied_inputs(real, inputs) == (real, a, b)
    assert applied_inputs(a, inputs) == (a,)
    assert applied_inputs(mri, inputs) == (mri,)
