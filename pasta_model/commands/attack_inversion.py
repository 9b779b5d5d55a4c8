# SPDX-License-Identifier: Apache-2.0
"""`pasta attack inversion`: what a site's update gives away of its PETs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from pasta_model.commands.attack_tools import (
    GUARANTEE,
    begins_anew,
    here,
    loaded,
    open_store,
    own_standardisation,
    refuse_unwritable_file,
    slab_loader,
    tell,
)

if TYPE_CHECKING:
    from pasta_model.config import Settings
    from pasta_model.data.slabs import SlabLoader
    from pasta_model.diffusion.cycle import Translator
    from pasta_model.privacy.attacks.reconstruction import Case, Reconstruction

PLAIN: dict[str, bool | int | float | str] = {
    "training.dtype": "float32",
    "training.checkpointing": False,
    "training.channels-last": False,
}


@begins_anew()
def run_inversion(
    store: Path,
    *,
    settings: Path | None,
    model: Path | None,
    split: str,
    steps: Sequence[int],
    noise: Sequence[float],
    trials: int,
    iterations: int,
    seed: int,
    device: str | None,
    json: Path | None,
) -> None:
    """Attack an update of each kind, and tell."""
    from rich.console import Console

    from pasta_model.console import progress_bar
    from pasta_model.privacy.attacks.reconstruction import Case, reconstruct

    refuse_unwritable_file(json)
    translator, loader, own = _victim(store, settings, model, split, device)
    kinds = [None, *sorted(set(noise))]
    cases = [Case(k, sigma) for k in sorted(set(steps)) for sigma in kinds]
    total = len(cases) * trials * iterations
    with progress_bar(Console(), "attack") as progress:
        done = count(1)
        found = [
            reconstruct(
                translator,
                loader,
                case,
                settings=own,
                seed=seed,
                trials=trials,
                iterations=iterations,
                on_iteration=lambda: progress(next(done), total),
            )
            for case in cases
        ]
    tell(
        "PET slabs out of one site's update, in the brain",
        [_row(case, one) for case, one in zip(cases, found, strict=True)],
        says=_says(found),
        figures={"attack": "inversion", "cases": [asdict(one) for one in found], "iterations": iterations},
        json=json,
    )


def _victim(
    store: Path, file: Path | None, model: Path | None, split: str, device: str | None
) -> tuple[Translator, SlabLoader, Settings]:
    """Network, slabs and settings, in float32: gradients are differentiated again."""
    from pasta_model.checkpoint import new_translator
    from pasta_model.config import settings_from_toml
    from pasta_model.errors import ConfigError

    if (file is None) == (model is None):
        raise ConfigError("found --settings and --model both or neither; wanted one of them")
    checkpoint = loaded(model) if model else None
    read = checkpoint.settings if checkpoint else settings_from_toml(file or Path())
    own = here(read, device, PLAIN)
    opened = open_store(store, spacing=own.data.spacing)
    known = checkpoint.standardisation if checkpoint else own_standardisation(opened, split, own)
    loader = slab_loader(opened, split, own, known)
    return new_translator(own, checkpoint.state if checkpoint else None), loader, own


def _row(case: Case, found: Reconstruction) -> dict[str, str]:
    return {
        "steps": str(found.steps),
        "protected by": case.words,
        "slabs": str(found.slabs),
        "correlation": f"{found.correlation:.3f}",
        "known": f"{found.known_correlation:.3f}",
        "PSNR dB": f"{found.psnr:.2f}",
        "known dB": f"{found.known_psnr:.2f}",
    }


def _says(found: Sequence[Reconstruction]) -> str:
    gains = [one for one in found if one.correlation > one.known_correlation]
    if not gains:
        meaning = "no update gave away more than the mean PET of other persons, which anybody may know"
    else:
        best = max(gains, key=lambda one: one.correlation - one.known_correlation)
        plain = "without privacy" if best.noise_multiplier is None else f"at noise {best.noise_multiplier:g}"
        meaning = (
            f"an update of {best.steps} local step(s) {plain} brought the attacker from a correlation of"
            f" {best.known_correlation:.2f}, known before, to {best.correlation:.2f} with the real PET"
        )
    return f"{meaning}; a better attacker may see more; {GUARANTEE}"
