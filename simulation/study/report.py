# SPDX-License-Identifier: Apache-2.0
"""The report of a study: one page, one table, one model card of the main method."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from pasta_model.assessment.gallery import Key, cases, surfaces
from pasta_model.assessment.page import CASES
from pasta_model.checkpoint import PACKAGES, file_digest
from pasta_model.config import Settings
from pasta_model.data.splits import people
from pasta_model.data.tables import write_table
from pasta_model.derivatives import synthetic_path
from pasta_model.diagnosis.results import AucDifference
from pasta_model.diagnosis.scores import auc_differences
from pasta_model.evaluation.columns import METRICS
from pasta_model.report.card import PAPER, ModelCard, card_blocks, write_card
from pasta_model.report.cases import Case, Chosen, choose_cases
from pasta_model.report.content import LIMITS, TWINS_NOTICE
from pasta_model.report.evaluation_page import Evaluation, evaluation_page
from pasta_model.report.html import write_page
from pasta_model.report.privacy import Privacy
from pasta_model.report.provenance import Provenance
from pasta_model.report.unlike import unlike_sentences
from simulation.study.cohort import People
from simulation.study.counts import counted, in_all
from simulation.study.making import OURS, making_of, not_compared, started_elsewhere, summary_of
from simulation.study.measures import Measures
from simulation.study.run import Study
from simulation.study.sections import sections
from simulation.study.training import TrainJob, history_of

SHOWN = 4  # methods on the surfaces, the main one first


def write_study_report(study: Study, found: People, told: Measures) -> Path:
    """Write `report.html`, `table.tsv` and `MODEL_CARD.md` into the study's folder; return the report."""
    main = study.settings.measure.main
    training = study.training_jobs(found)
    jobs = [job for job in training if job.method.name == _maker(study, main)]
    history = history_of(jobs[0]) if jobs else []
    card = _card(study, found, told, history)
    chosen = choose_cases(told.scores, main, smallest=study.settings.measure.smallest_group)
    page = evaluation_page(
        Evaluation(
            title=study.settings.name,
            method=main,
            scores=told.scores,
            groups=told.groups,
            notice=_notice(study),
            facts=_facts(study, found),
            regions=told.regions,
            diagnosis=told.diagnosis.rows if told.diagnosis else (),
            auc_differences=_auc_differences(study, told),
            unseen=not set(started_elsewhere(study)) & set(study.settings.measure.diagnosis),
            overlap=told.overlaps,
            coverage=told.coverage,
            spread=told.spreads,
            history=history,
            privacy=card.privacy,
            cases=list(_cases(study, found, told, chosen)),
            chosen=len(chosen),
            people=study.settings.cohort.twins is None,
            surfaces=dict(_surfaces(study, found, told, chosen)),
            provenance=_provenance(study, jobs),
            limits=[*card.limits, *(f"{what}: not available, {why}." for what, why in told.left_out.items())],
            card=card_blocks(card, alone=False),
            more=list(sections(study, found, told, training)),
            smallest=study.settings.measure.smallest_group,
            seed=study.settings.seeds[0],
        )
    )
    write_page(study.folder / "report.html", page)
    write_card(study.folder / "MODEL_CARD.md", card)
    write_comparison(study.folder / "table.tsv", study, told)
    return study.folder / "report.html"


def write_comparison(path: Path, study: Study, told: Measures) -> None:
    """Write the one table of a study: a row a method, headline means and differences with intervals."""
    header = ["method", "family", "subjects"]
    for metric in METRICS:
        header += [f"{metric.name}{part}" for part in ("", "_low", "_high")]
        header += [f"{metric.name}_minus_main{part}" for part in ("", "_low", "_high")]
    rows = []
    for row in (row for row in told.groups if row.kind == "all"):
        method = study.methods()[row.method]
        cells = [row.method, method.family, row.count]
        for metric in METRICS:
            own = [c.difference for c in told.contrasts if (c.method, c.metric) == (row.method, metric.name)]
            for estimate in (row.values[metric.name], *own):
                cells += [_number(v) for v in (estimate.value, estimate.low, estimate.high)]
            cells += ["n/a"] * (3 - 3 * len(own))
        rows.append(cells)
    write_table(path, header, rows)


def _number(value: float | None) -> str:
    return "n/a" if value is None else repr(value)


def _maker(study: Study, name: str) -> str:
    return study.methods()[name].after or name


def _notice(study: Study) -> str:
    return study.settings.notice or (TWINS_NOTICE if study.settings.cohort.twins else "")


def _facts(study: Study, found: People) -> dict[str, str]:
    part = study.settings.partition
    return {
        **_people(study, found),
        "sites that train": ", ".join(found.training),
        "sites that never train": ", ".join(found.held_out) or "none",
        "partition": part.by + (f", alpha {part.alpha:g}" if part.by == "diagnosis" else ""),
        "methods": str(len(study.settings.methods)),
        "seeds": ", ".join(map(str, study.settings.seeds)),
        **_first_seed(study),
        "main method": study.settings.measure.main,
        **_making(study, found),
        "device": study.device,
    }


def _people(study: Study, found: People) -> dict[str, str]:
    smallest, persons = study.settings.measure.smallest_group, people(found.sessions)
    measured = len({persons[s.subject] for s in found.measured})
    return {
        "people": in_all(found, smallest=smallest),
        "people who are measured": counted(measured, smallest=smallest),
    }


def _making(study: Study, found: People) -> dict[str, str]:
    """Return how the main method's model was made."""
    method = study.methods()[study.settings.measure.main]
    return making_of(method, _settings(study, found), sites=len(found.training))


def _settings(study: Study, found: People) -> Settings:
    """Return the settings of the run that made the main method's model."""
    main = study.settings.measure.main
    return study.spaced(found).settings_of(study.methods()[_maker(study, main)])


def _auc_differences(study: Study, told: Measures) -> Sequence[AucDifference]:
    if told.diagnosis is None:
        return ()
    return auc_differences(told.diagnosis.predictions, seed=study.settings.seeds[0])


def _first_seed(study: Study) -> dict[str, str]:
    """Say what is of the first seed only, where there are several."""
    first = study.settings.seeds[0]
    words = f"of seed {first}; tables of errors: all seeds"
    return {"pictures, z maps, readers, spreads": words} if len(study.settings.seeds) > 1 else {}


def _by_key(study: Study, found: People, method: str, *, several: bool = False) -> dict[Key, Path]:
    folder = study.pets_of(method, study.settings.seeds[0], several=several)
    return {(s.site, s.subject, s.session): synthetic_path(folder, s) for s in found.measured}


def _cases(study: Study, found: People, told: Measures, chosen: list[Chosen]) -> Iterator[Case]:
    main = study.settings.measure.main
    sessions = {(s.site, s.subject, s.session): s for s in found.measured}
    spreads = _by_key(study, found, main, several=True) if told.coverage else None
    own = _by_key(study, found, main)
    return cases(chosen[:CASES], sessions, own, norms=told.norms, spreads=spreads)


def _surfaces(
    study: Study, found: People, told: Measures, chosen: list[Chosen]
) -> Iterator[tuple[str, bytes]]:
    if told.norms is None:
        return
    main = study.settings.measure.main
    others = [name for name in study.settings.measure.diagnosis if name != main]
    pets: Mapping[str, Mapping[Key, Path]] = {
        name: _by_key(study, found, name) for name in (main, *others)[:SHOWN]
    }
    sessions = {(s.site, s.subject, s.session): s for s in found.measured}
    yield from surfaces(chosen, sessions, pets, norms=told.norms)


def _provenance(study: Study, jobs: list[TrainJob]) -> Provenance:
    models = [path for job in jobs if (path := job.output / "model.safetensors").is_file()]
    return Provenance(
        commands=["pasta-sim study STUDY.toml --output " + study.folder.name],
        seeds={str(number): seed for number, seed in enumerate(study.settings.seeds, start=1)},
        versions={name: version(name) for name in PACKAGES},
        digests={str(path.relative_to(study.folder)): file_digest(path) for path in models},
        settings=study.settings.model_dump(mode="json", by_alias=True),
    )


def _card(study: Study, found: People, told: Measures, history: Sequence[Mapping[str, object]]) -> ModelCard:
    main, smallest = study.settings.measure.main, study.settings.measure.smallest_group
    method, settings = study.methods()[main], _settings(study, found)
    ours, persons = method.kind in OURS, people(found.sessions)
    mri = f"T1-weighted MRI without its skull, MNI152, {settings.data.spacing:g} mm"
    return ModelCard(
        name=f"{'PASTA, ' if ours else ''}{main}: {study.settings.name}",
        method=main,
        scores=told.scores,
        groups=told.groups,
        summary=summary_of(method),
        notice=_notice(study),
        people=study.settings.cohort.twins is None,
        paper=PAPER if ours else "",
        federated=method.kind in ("federation", "preview"),
        data={
            **({} if method.kind == "mean" else {"from": mri}),
            "to": "FDG-PET in SUVR",
            **_people(study, found),
        },
        sites={s: len({persons[o.subject] for o in found.of(s, "train")}) for s in found.training},
        smallest=smallest,
        training={
            "sites that never train": ", ".join(found.held_out) or "none",
            **_making(study, found),
            "seeds": ", ".join(map(str, study.settings.seeds)),
        },
        privacy=Privacy.of(settings.privacy, history) if ours else Privacy(),
        flagged=unlike_sentences(told.unlike, smallest=smallest),
        commands=["pasta-sim study STUDY.toml"],
        limits=[*LIMITS, *filter(None, [not_compared(study)])],
        seed=study.settings.seeds[0],
    )
