# SPDX-License-Identifier: Apache-2.0
"""The report of a study: one page, one table, one model card of the main method."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from pasta_model.assessment.gallery import Key, cases, surfaces
from pasta_model.assessment.page import CASES
from pasta_model.checkpoint import PACKAGES, file_digest
from pasta_model.data.splits import people
from pasta_model.data.tables import write_table
from pasta_model.derivatives import synthetic_path
from pasta_model.diagnosis.results import AucDifference
from pasta_model.diagnosis.scores import auc_differences
from pasta_model.evaluation.columns import METRICS
from pasta_model.report.card import ModelCard, card_blocks, write_card
from pasta_model.report.cases import Case, Chosen, choose_cases
from pasta_model.report.content import LIMITS, TWINS_NOTICE
from pasta_model.report.evaluation_page import Evaluation, evaluation_page
from pasta_model.report.html import write_page
from pasta_model.report.privacy import Privacy
from pasta_model.report.provenance import Provenance
from pasta_model.report.unlike import unlike_sentences
from simulation.study.cohort import People
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
    chosen = choose_cases(told.scores, main)
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
            unseen=True,
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
            limits=[*LIMITS, *(f"{what}: not available, {why}." for what, why in told.left_out.items())],
            card=card_blocks(card, alone=False),
            more=list(sections(study, found, told, training)),
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
    settings = study.spaced(found).settings_of(study.methods()[study.settings.measure.main])
    part = study.settings.partition
    steps = settings.total_steps * settings.training.batch_size * settings.training.accumulation
    return {
        "people": f"{len({s.subject for s in found.sessions})}, {len(found.measured)} sessions held out",
        "sites that train": ", ".join(found.training),
        "sites that never train": ", ".join(found.held_out) or "none",
        "partition": part.by + (f", alpha {part.alpha:g}" if part.by == "diagnosis" else ""),
        "methods": str(len(study.settings.methods)),
        "seeds": ", ".join(map(str, study.settings.seeds)),
        **_first_seed(study),
        "main method": study.settings.measure.main,
        "network": f"{settings.network.size} {settings.network.shape}".strip(),
        "rounds": f"{settings.federation.rounds} of {settings.training.local_steps} local steps",
        "slabs a site": f"{steps} of {settings.network.slab_slices} slices",
        "clinical values": settings.data.clinical,
        "device": study.device,
    }


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
    facts = _facts(study, found)
    main = study.settings.measure.main
    smallest = study.settings.measure.smallest_group
    settings = study.spaced(found).settings_of(study.methods()[_maker(study, main)])
    persons = people(found.sessions)
    trained = {site: len({persons[s.subject] for s in found.of(site, "train")}) for site in found.training}
    kept = ("sites that never train", "network", "rounds", "slabs a site", "clinical values", "seeds")
    return ModelCard(
        name=f"PASTA, {main}: {study.settings.name}",
        method=main,
        scores=told.scores,
        groups=told.groups,
        summary="A pair of diffusion models that makes an FDG-PET from a T1-weighted MRI.",
        notice=_notice(study),
        people=study.settings.cohort.twins is None,
        data={
            "from": f"T1-weighted MRI without its skull, MNI152, {settings.data.spacing:g} mm",
            "to": "FDG-PET in SUVR",
            "people": facts["people"],
        },
        sites={site: (count if count >= smallest else None) for site, count in trained.items()},
        smallest=smallest,
        training={name: facts[name] for name in kept},
        privacy=Privacy.of(settings.privacy, history),
        flagged=unlike_sentences(told.unlike, smallest=smallest),
        commands=["pasta-sim study STUDY.toml"],
        seed=study.settings.seeds[0],
    )
