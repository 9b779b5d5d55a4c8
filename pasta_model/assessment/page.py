# SPDX-License-Identifier: Apache-2.0
"""The report of `pasta evaluate`: any methods' PETs beside the real ones, as one page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from pasta_model.assessment.gallery import Key, cases, surfaces
from pasta_model.assessment.sidecars import Told
from pasta_model.checkpoint import PACKAGES
from pasta_model.data.manifest import Session
from pasta_model.diagnosis.results import AucDifference, DiagnosisRow
from pasta_model.evaluation.comparison import EvaluationResult
from pasta_model.evaluation.unseen import Measured
from pasta_model.norms.model import Norms
from pasta_model.norms.overlap import OverlapRow
from pasta_model.report.cases import Case, Chosen, choose_cases
from pasta_model.report.content import LIMITS, TWINS_NOTICE
from pasta_model.report.evaluation_page import Evaluation, evaluation_page
from pasta_model.report.page import Page, Section
from pasta_model.report.provenance import Provenance
from pasta_model.report.unlike import unlike_blocks

CASES = 24  # that are read, at 50 MB of memory each; how many are shown, the page's bytes decide
SHOWN = 4  # methods on the surfaces


@dataclass(frozen=True)
class Assessed:
    """An evaluation, and what else was found of the same PETs.

    Attributes
    ----------
    method
        The one that is compared with the others, and shown.
    who
        The sessions, and how it is known that they are held out.
    told
        What lay beside the PETs: spreads, flagged MRIs.
    smallest
        Sites of fewer persons are not shown.
    people
        Whether the subjects are people, not twins: then the page says how to keep it.
    """

    result: EvaluationResult
    who: Measured
    method: str
    norms: Norms | None = None
    overlap: Sequence[OverlapRow] = ()
    diagnosis: Sequence[DiagnosisRow] = ()
    auc_differences: Sequence[AucDifference] = ()
    told: Told = field(default_factory=Told)
    smallest: int = 0
    left_out: Sequence[str] = ()
    people: bool = True


def assessment_page(
    found: Assessed, *, command: str, seed: int, digests: Mapping[str, str], settings: Mapping[str, object]
) -> Page:
    """Return the page of an evaluation."""
    scores = found.result.scores
    chosen = choose_cases(scores, found.method, smallest=found.smallest)
    sessions = {(s.site, s.subject, s.session): s for s in found.who.sessions}
    pets = pets_by_method(found.result, found.who.sessions)
    others = [name for name in pets if name != found.method]
    look = {name: pets[name] for name in (found.method, *others)[:SHOWN]}
    shown = [c for c in chosen if all(c.score.key in own for own in look.values())]
    drawn = _surfaces(found, shown, sessions, look)
    return evaluation_page(
        Evaluation(
            title="Synthetic PETs beside real ones",
            method=found.method,
            scores=scores,
            groups=found.result.groups,
            notice="" if found.people else TWINS_NOTICE,
            facts=_facts(found, pets),
            regions=found.result.regions,
            diagnosis=found.diagnosis,
            auc_differences=found.auc_differences,
            coverage=found.told.coverage,
            spread=found.told.spread,
            more=_unlike(found),
            overlap=found.overlap,
            cases=_cases(found, chosen, sessions, pets[found.method]),
            chosen=len(chosen),
            people=found.people,
            surfaces=drawn,
            smallest=found.smallest,
            result_title=found.who.title,
            result_note=found.who.sentence,
            provenance=Provenance(
                commands=[command],
                seeds={"intervals": seed},
                versions={name: version(name) for name in PACKAGES},
                digests=digests,
                settings=settings,
            ),
            limits=[*LIMITS, *found.left_out, *found.told.left_out],
            seed=seed,
        )
    )


def _facts(found: Assessed, methods: Iterable[str]) -> dict[str, str]:
    scores = found.result.scores
    return {
        "people": str(len({s.person for s in scores})),
        "sessions": str(len({s.key for s in scores})),
        "sites": ", ".join(sorted({s.site for s in scores})),
        "methods": ", ".join(methods),
        "norms": found.norms.title if found.norms else "none given",
    }


def _cases(
    found: Assessed, chosen: Sequence[Chosen], sessions: Mapping[Key, Session], pets: Mapping[Key, Path]
) -> list[Case]:
    """Read the chosen sessions, with the spread of several samples where it can be used."""
    spreads = {
        key: pet for key, pet in pets.items() if (found.method, sessions[key].name) in found.told.spreads
    }
    masks = found.result.masks
    return list(cases(chosen[:CASES], sessions, pets, norms=found.norms, spreads=spreads, masks=masks))


def _surfaces(
    found: Assessed,
    shown: Sequence[Chosen],
    sessions: Mapping[Key, Session],
    pets: Mapping[str, Mapping[Key, Path]],
) -> dict[str, bytes]:
    if found.norms is None:
        return {}
    return dict(surfaces(shown, sessions, pets, norms=found.norms, masks=found.result.masks))


def _unlike(found: Assessed) -> list[Section]:
    blocks = unlike_blocks(found.told.unlike, smallest=found.smallest)
    return [Section("unlike", "MRIs unlike those of the training sites", blocks, "Unlike")]


def pets_by_method(result: EvaluationResult, sessions: Sequence[Session]) -> dict[str, dict[Key, Path]]:
    """Return the synthetic PETs that were read, by method and `SubjectScore.key`."""
    keys = {s.name: (s.site, s.subject, s.session) for s in sessions}
    found: dict[str, dict[Key, Path]] = {}
    for method, name, path in result.files:
        found.setdefault(method, {})[keys[name]] = path
    return found
