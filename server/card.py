# SPDX-License-Identifier: Apache-2.0
"""The model card that a run leaves beside its models: what the coordinator knows, and nothing made up.

Errors on whole volumes, and by group, are measured at sites (`pasta evaluate`), which have the scans.
"""

from collections.abc import Mapping
from pathlib import Path

from pasta_model.config import Settings
from pasta_model.report.card import ModelCard, told_sites, write_card
from pasta_model.report.card_facts import FACTS, write_facts
from pasta_model.report.privacy import Privacy
from server.records import Progress

CARD = "MODEL_CARD.md"
ONE_STEP = (
    "Errors below are of one step from noise, on a few slabs of each site's validation subjects: a compass of"
    " training, no measure of a synthetic PET."
)
UNMEASURED = (
    "Nobody has measured here how pathology is kept, or for whom the model fails: a site with held-out pairs"
    " completes this card with 'pasta evaluate --run'."
)
LIMITS = (ONE_STEP, UNMEASURED)
SMALLEST = 5  # subjects of a site, below which the card does not tell how many


def write_model_card(
    folder: Path, settings: Settings, progress: Progress, *, subjects: Mapping[str, int]
) -> None:
    """Write the card of a finished run.

    Parameters
    ----------
    subjects
        Training subjects by site, as the sites joined with.
    """
    history = [vars(record) for record in progress.history]
    card = ModelCard(
        name=f"PASTA, federated: {settings.run.name}",
        method="federated",
        scores=(),
        groups=(),
        summary="A pair of diffusion models that makes an FDG-PET from a T1-weighted MRI.",
        data={
            "from": f"T1-weighted MRI without its skull, MNI152, {settings.data.spacing:g} mm",
            "to": "FDG-PET in SUVR",
            "clinical values": settings.data.clinical,
        },
        sites=told_sites(dict(sorted(subjects.items())), smallest=SMALLEST),
        smallest=SMALLEST,
        training=_training(settings, progress),
        privacy=Privacy.of(settings.privacy, history),
        limits=LIMITS,
        commands=("pasta-server run",),
        seed=settings.run.seed,
    )
    write_card(folder / CARD, card)
    write_facts(folder / FACTS, card)


def _training(settings: Settings, progress: Progress) -> dict[str, str]:
    best = (
        f"after round {progress.best_round}"
        if progress.best_round >= 0
        else "the last; no site told an error"
    )
    facts = {
        "model": settings.title,
        "rounds": f"{len(progress.history) - 1} of {settings.training.local_steps} local steps",
        "rule": settings.aggregation.rule,
        "best model": best,
        "settings": settings.digest()[:12],
        "seed": str(settings.run.seed),
    }
    if settings.exchange.personal_parts:
        facts["parts that stay at the sites"] = ", ".join(settings.exchange.personal_parts)
    if settings.run.initial:
        facts["starts from"] = Path(settings.run.initial).name
    told = progress.history[-1].valid_mae
    for site, mae in sorted(told.items()):
        facts[f"validation MAE of {site}, SUVR"] = f"{mae:.4f}"
    return facts
