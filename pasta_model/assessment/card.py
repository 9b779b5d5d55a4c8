# SPDX-License-Identifier: Apache-2.0
"""A run's model card, completed with an evaluation of its PETs: by group, and where the model fails."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pasta_model.config import settings_from_flat
from pasta_model.data.manifest import Session
from pasta_model.derivatives import sidecar_path
from pasta_model.errors import CheckpointError, ConfigError, Problems
from pasta_model.evaluation.comparison import EvaluationResult
from pasta_model.evaluation.matching import VolumeFolder
from pasta_model.evaluation.unseen import Measured
from pasta_model.report.card import ModelCard
from pasta_model.report.card_facts import FACTS, CardFacts, read_facts
from pasta_model.report.content import LIMITS, TWINS_NOTICE
from pasta_model.report.unlike import UnlikeRow, unlike_sentences

CARD, SETTINGS = "MODEL_CARD.md", "settings.json"
COMPASS = (
    "The run's own validation errors are of one step from noise, on a few slabs: a compass of its training."
    " The results are of whole synthetic PETs."
)


@dataclass(frozen=True)
class Run:
    """What a run's folder tells of it.

    Attributes
    ----------
    digest
        Of the settings that shape its weights; who has the same was made by the same run.
    """

    folder: Path
    facts: CardFacts
    digest: str

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Read `model_card.json` and `settings.json`.

        Raises
        ------
        CheckpointError
            When one is not there, or holds something else.
        """
        return cls(folder, read_facts(folder / FACTS), _digest(folder / SETTINGS))

    def refuse_others(self, sessions: Sequence[Session], folder: Path, *, method: str) -> None:
        """Refuse PETs that do not say that a model of this run made them.

        Raises
        ------
        ConfigError
            With a line for every PET without a sidecar, or of another run.
        """
        problems = Problems(f"the model card of {self.folder} cannot be completed with {method!r}")
        files = VolumeFolder(folder)
        for session in sessions:
            pet = files.find(session).path
            if pet and (problem := self._of_another(sidecar_path(pet))):  # the evaluation tells of the others
                problems.add(f"{session.name}: {problem}")
        problems.raise_if_any(ConfigError)

    def _of_another(self, sidecar: Path) -> str:
        try:
            about = json.loads(sidecar.read_text(encoding="utf-8"))
            made_by = settings_from_flat(about["Settings"]).digest()
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ConfigError):
            return f"{sidecar} does not say which model made the PET; wanted one of 'pasta synthesize'"
        if made_by != self.digest:
            return f"{sidecar}: a model of other settings made the PET; give the folder of its run"
        return ""


def completed_card(
    run: Run,
    result: EvaluationResult,
    who: Measured,
    *,
    method: str,
    people: bool,
    smallest: int,
    seed: int,
    unlike: Sequence[UnlikeRow] = (),
    command: str,
) -> ModelCard:
    """Return the run's card with the results of one evaluation.

    Parameters
    ----------
    people
        Whether the subjects are people, not twins: then none is named.
    smallest
        Groups of fewer persons are not shown.
    unlike
        Flagged MRIs by site, before small ones are hidden.
    """
    facts = run.facts
    partial = ["Sessions that have no synthetic PET were left out."] if result.missing.get(method) else []
    (count,) = {row.count for row in result.groups if (row.kind, row.method) == ("all", method)}
    return ModelCard(
        name=facts.name,
        method=method,
        scores=result.scores,
        groups=result.groups,
        summary=facts.summary,
        notice=facts.notice or ("" if people else TWINS_NOTICE),
        people=people,
        data={**facts.data, "measured on": f"{count} persons; {who.words}"},
        paper=facts.paper,
        federated=facts.federated,
        sites=facts.sites,
        smallest=smallest,
        training=facts.training,
        privacy=facts.privacy,
        licence=facts.licence,
        date=facts.date,
        flagged=unlike_sentences(unlike, smallest=smallest),
        commands=[*facts.commands, command],
        limits=[COMPASS, *LIMITS, *partial],
        seed=seed,
    )


def _digest(path: Path) -> str:
    try:
        return settings_from_flat(json.loads(path.read_text(encoding="utf-8"))).digest()
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); wanted the folder of a run"
        ) from error
    except (ValueError, AttributeError, ConfigError) as error:
        raise CheckpointError(f"{path}: holds no settings of a run ({error}); take its own") from error
