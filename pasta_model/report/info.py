# SPDX-License-Identifier: Apache-2.0
"""What a model is, as a table for a terminal: size by part, work, bytes on the wire, memory, settings."""

from rich.table import Table

from pasta_model import costs
from pasta_model.config import Settings

MEGA, GIGA = 1e6, 1e9


def info_table(settings: Settings, *, title: str, batch_size: int, rounds: int | None = None) -> Table:
    """Return the table of a network's costs.

    Parameters
    ----------
    batch_size
        Slabs of the training step whose memory is told.
    rounds
        Rounds that a model was trained; None for a network without weights.
    """
    table = Table(title=f"{title}: {settings.title}", box=None, title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right")
    if rounds is not None:
        table.add_row("rounds trained", str(rounds), end_section=True)
    for name, value in _rows(settings, batch_size):
        table.add_row(name, value, end_section=not value)
    return table


def _rows(settings: Settings, batch_size: int) -> list[tuple[str, str]]:
    network = costs.meta_network(settings)
    pet, mri = (costs.parameters_by_part(arm) for arm in (network.pet_arm, network.mri_arm))
    work = costs.multiply_adds(settings)
    memory = costs.training_memory(settings, batch_size=batch_size)
    published = costs.published_parameters(network.pet_arm)
    slab = " x ".join(map(str, costs.slab_shape(settings)))
    arms = (("PET arm", pet), ("MRI arm", mri))
    return [
        *[("parameters: " + name, _millions(sum(parts.values()))) for name, parts in arms],
        ("parameters: both", _millions(sum(pet.values()) + sum(mri.values()))),
        ("  with the published code's unused weights, an arm", _millions(published)),
        ("  with them, both", _millions(2 * published)),
        *[(f"  {part}, PET arm", _millions(value)) for part, value in pet.items()],
        (f"multiply-adds, slab of {slab}: conditioning", f"{work.conditioning / GIGA:.2f} G"),
        ("  denoising", f"{work.denoising / GIGA:.2f} G"),
        ("on the wire, one way", f"{costs.wire_bytes(settings) / MEGA:.1f} MB"),
        (f"training step of {batch_size} slab(s), estimated", f"{memory.total / GIGA:.2f} GB"),
        ("  weights, gradients, AdamW", f"{memory.standing / GIGA:.2f} GB"),
        ("  activations", f"{memory.activations / GIGA:.2f} GB"),
    ]


def _millions(count: int) -> str:
    return f"{count / MEGA:.3f} M"
