# SPDX-License-Identifier: Apache-2.0
"""What a run's model card tells of the run, as JSON beside it: a site completes the card with results."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pasta_model.errors import CheckpointError
from pasta_model.files import write_json
from pasta_model.report.card import PAPER, ModelCard, told_sites
from pasta_model.report.privacy import Privacy

FACTS = "model_card.json"


class CardFacts(BaseModel):
    """A `ModelCard` without results and limits: these are of whoever measures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    summary: str = ""
    notice: str = ""
    data: dict[str, str] = {}
    paper: str = PAPER
    federated: bool = True
    sites: dict[str, int | str | None] = {}
    training: dict[str, str] = {}
    privacy: Privacy = Privacy()
    licence: str = ""
    date: str = ""
    commands: tuple[str, ...] = ()


def write_facts(path: Path, card: ModelCard) -> None:
    """Write the facts of a card, atomically; of its sites what the card itself tells."""
    facts = CardFacts(
        name=card.name,
        summary=card.summary,
        notice=card.notice,
        data=dict(card.data),
        paper=card.paper,
        federated=card.federated,
        sites=told_sites(card.sites, smallest=card.smallest),
        training=dict(card.training),
        privacy=card.privacy,
        licence=card.licence,
        date=card.date,
        commands=tuple(card.commands),
    )
    write_json(path, facts.model_dump(mode="json"))


def read_facts(path: Path) -> CardFacts:
    """Read the facts of a run's card.

    Raises
    ------
    CheckpointError
        When the file is not there, or holds something else.
    """
    try:
        return CardFacts.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); a run writes it when it ends: go on with the run, or"
            " name its folder"
        ) from error
    except ValidationError as error:
        what = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise CheckpointError(f"{path}: holds no model card ({what}); take the run's own") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: is not JSON ({error}); take the run's own") from error
