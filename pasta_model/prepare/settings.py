# SPDX-License-Identifier: Apache-2.0
"""The settings of a preparation: what is done to each scan; they travel into every log and sidecar."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from pasta_model.errors import ConfigError
from pasta_model.sections import Section, known_spacing

Registration = Literal["affine", "deformable", "none"]
Reference = Literal["pons-vermis", "pons", "vermis", "cerebellum"]


class PrepareSettings(Section):
    """What is done to each scan.

    Attributes
    ----------
    registration
        Of the MRI to the MNI152 template: "affine", "deformable" (SyN), or "none" for scans that are in
        MNI space already and only need resampling.
    reference
        Region whose mean uptake is SUVR 1.
    spacing
        Voxel size of the prepared scans in mm.
    bias_correction
        Whether the MRI's shading is removed (N4).
    seed
        Of ANTs.
    """

    registration: Registration = "affine"
    reference: Reference = "pons-vermis"
    spacing: Annotated[float, AfterValidator(known_spacing)] = 1.5
    bias_correction: bool = True
    seed: Annotated[int, Field(ge=0)] = 2026


def prepare_settings(**values: object) -> PrepareSettings:
    """Return checked settings.

    Raises
    ------
    ConfigError
        Naming each setting that is unknown or impossible.
    """
    try:
        return PrepareSettings(**values)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}, found {e['input']!r}" for e in error.errors()]
        raise ConfigError("the preparation's settings cannot be used: " + "; ".join(lines)) from error
