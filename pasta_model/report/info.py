# SPDX-License-Identifier: Apache-2.0
"""What a model is, as a table for a terminal: size by part, work, bytes on the wire, memory, settings."""

from rich.table import Table

from pasta_model import costs
from pasta_model.config import Settings
from pasta_model.network.dual_arm import DualArm

MEGA, GIGA = 1e6, 1e9


def info_table(settings: Settings, *, batch_size: int, rounds: int | None = None) -> Table:
    """Return the table of a network's costs, and of a trained model's settings.

    Parameters
    ----------
    batch_size
        Slabs of the training step whose memory is told.
    rounds
        Rounds that a model was trained; None for a network without weights.
    """
    table = Table(box=None, show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right")
    if rounds is not None:
        table.add_row("rounds trained", str(rounds))
        table.add_row("differential privacy", settings.privacy.promise)
    for name, value in _rows(settings, batch_size):
        table.add_row(name, value)
    if rounds is not None:
        for name, setting in settings.flat().items():
            table.add_row(name, str(setting))
    return table


def _rows(settings: Settings, batch_size: int) -> list[tuple[str, str]]:
    network = costs.meta_network(settings)
    pet, mri = (costs.parameters_by_part(arm) for arm in (network.pet_arm, network.mri_arm))
    work = costs.multiply_adds(settings)
    memory = costs.training_memory(settings, batch_size=batch_size)
    slab = " x ".join(map(str, costs.slab_shape(settings)))
    arms = (("PET arm", pet), ("MRI arm", mri))
    return [
        *[("parameters: " + name, _millions(sum(parts.values()))) for name, parts in arms],
        ("parameters: both", _millions(sum(pet.values()) + sum(mri.values()))),
        *_as_published(settings, network),
        *[(f"  {part}, PET arm", _millions(value)) for part, value in pet.items()],
        (f"multiply-adds, slab of {slab}: conditioning", _giga(work.conditioning, "")),
        ("  denoising", _giga(work.denoising, "")),
        ("on the wire, one way", f"{costs.wire_bytes(settings) / MEGA:.1f} MB"),
        (f"training step of {batch_size} slab(s), estimated", _giga(memory.total, "B")),
        ("  weights, gradients, AdamW", _giga(memory.standing, "B")),
        ("  activations", _giga(memory.activations, "B")),
    ]


def _as_published(settings: Settings, network: DualArm) -> list[tuple[str, str]]:
    if settings.network.resolved.patch > 1:  # the published network folds no pixels
        return []
    arm = costs.published_parameters(network.pet_arm)
    return [
        ("  with the published code's unused weights, an arm", _millions(arm)),
        ("  with them, both", _millions(2 * arm)),
    ]


def _millions(count: int) -> str:
    return f"{count / MEGA:.3f} M"


def _giga(count: int, unit: str) -> str:
    return f"{count / GIGA:.3g} G{unit}" if count < GIGA else f"{count / GIGA:.2f} G{unit}"
