# SPDX-License-Identifier: Apache-2.0
"""The report of a demo: gathers what its stages left on the disk."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from pasta_model.checkpoint import PACKAGES
from pasta_model.data.manifest import read_splits
from pasta_model.data.store import SiteStore
from pasta_model.data.volume import read_volume
from pasta_model.evaluation.agreement import agreement
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.summary import GroupRow, summarise
from pasta_model.placement import compute_dtype
from pasta_model.report.card import ModelCard, card_blocks, write_card
from pasta_model.report.cases import Case, Chosen, choose_cases
from pasta_model.report.content import TWINS_NOTICE
from pasta_model.report.evaluation_page import Evaluation, evaluation_page
from pasta_model.report.html import write_page
from pasta_model.report.page import Statement
from pasta_model.report.paired import compare, statement
from pasta_model.report.privacy import Privacy
from pasta_model.report.provenance import Provenance
from pasta_model.sections import SamplingSettings, TrainingSettings
from simulation.demo import FEDERATED, Demo

KINDS = ("site", "diagnosis", "sex", "age")
CASES = 18  # of the chosen; the page holds as many as fit


def write_demo_report(demo: Demo, scores: Sequence[SubjectScore]) -> tuple[list[GroupRow], list[Statement]]:
    """Write `report.html` and `MODEL_CARD.md` into the demo's folder.

    Returns
    -------
    list of GroupRow, list of Statement
        The table by site, and what the paired differences say of the baselines: the report's own sentences.
    """
    rows = summarise(scores, by=KINDS)
    history = read_history(Path(demo.settings.run.output))
    card = _card(demo, scores, rows, history)
    chosen = choose_cases(scores, FEDERATED)
    found = Evaluation(
        title="A federation on one machine",
        method=FEDERATED,
        scores=scores,
        groups=rows,
        notice=TWINS_NOTICE,
        facts=_facts(demo, scores),
        regions=agreement([s for s in scores if s.method == FEDERATED]),
        history=history,
        privacy=card.privacy,
        cases=[_case(demo, one) for one in chosen[:CASES]],
        chosen=len(chosen),
        people=False,
        provenance=_provenance(demo),
        card=card_blocks(card, alone=False),
        seed=demo.settings.run.seed,
    )
    write_page(demo.output / "report.html", evaluation_page(found))
    write_card(demo.output / "MODEL_CARD.md", card)
    by_site = [row for row in rows if row.kind in {"site", "all", "sites"}]
    return by_site, [statement(row) for row in compare(scores, FEDERATED, seed=demo.settings.run.seed)]


def read_history(run: Path) -> list[Mapping[str, object]]:
    """Read the rounds of a run, one dictionary a round."""
    lines = (run / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _facts(demo: Demo, scores: Sequence[SubjectScore]) -> dict[str, str]:
    settings = demo.settings
    splits = Counter(read_splits(demo.output / "splits.tsv").values())
    steps, batch = settings.total_steps, settings.training.batch_size * settings.training.accumulation
    network = settings.network
    return {
        "sites": ", ".join(sorted({s.site for s in scores})),
        "subjects": ", ".join(f"{splits[name]} {name}" for name in ("train", "valid", "test")),
        "rounds": f"{settings.federation.rounds} of {settings.training.local_steps} local steps",
        "slabs a site": f"{steps * batch} of {network.slab_slices} slices",
        "network": f"{network.size}, width {network.base_width}, {_dtype(settings.training)}",
        "synthesis": _sampling(settings.sampling),
        "spacing": f"{settings.data.spacing:g} mm",
        "seed": str(settings.run.seed),
        **{stage: f"{seconds:.0f} s" for stage, seconds in demo.seconds.items()},
    }


def _dtype(training: TrainingSettings) -> str:
    return str(compute_dtype(training.dtype, training.device)).removeprefix("torch.")


def _sampling(sampling: SamplingSettings) -> str:
    many = "mean of a pair" if sampling.antithetic else "one sample"
    drawn = f"mean of {sampling.samples} samples" if sampling.samples > 1 else many
    return f"{sampling.solver}, {sampling.steps} steps, hop {sampling.hop}, {drawn}"


def _card(
    demo: Demo,
    scores: Sequence[SubjectScore],
    rows: Sequence[GroupRow],
    history: Sequence[Mapping[str, object]],
) -> ModelCard:
    facts = _facts(demo, scores)
    settings = demo.settings
    return ModelCard(
        name="PASTA, federated over the sites of a demo",
        method=FEDERATED,
        scores=scores,
        groups=rows,
        summary="A pair of diffusion models that makes an FDG-PET from a T1-weighted MRI.",
        notice=TWINS_NOTICE,
        people=False,
        data={
            "from": f"T1-weighted MRI without its skull, MNI152, {settings.data.spacing:g} mm",
            "to": "FDG-PET in SUVR",
            "subjects": facts["subjects"],
        },
        sites=_training_subjects(demo, scores),
        training={name: facts[name] for name in ("rounds", "slabs a site", "network", "synthesis", "seed")},
        privacy=Privacy.of(settings.privacy, history),
        commands=[f"pasta-sim demo --seed {settings.run.seed}"],
        seed=settings.run.seed,
    )


def _training_subjects(demo: Demo, scores: Sequence[SubjectScore]) -> dict[str, int | None]:
    """Count the training subjects of each site, whose stores say who they are."""
    root = Path(demo.settings.data.sites)
    sites = sorted({s.site for s in scores})
    return {site: len(SiteStore(root / site).persons("train")) for site in sites}


def _provenance(demo: Demo) -> Provenance:
    model = Path(demo.settings.run.output) / "model.safetensors"
    return Provenance(
        commands=[f"pasta-sim demo --seed {demo.settings.run.seed}"],
        seeds={"": demo.settings.run.seed},
        versions={name: version(name) for name in PACKAGES},
        digests={model.name: hashlib.sha256(model.read_bytes()).hexdigest()},
        settings=demo.settings.flat(),
    )


def _case(demo: Demo, chosen: Chosen) -> Case:
    score = chosen.score
    place = Path(score.site, score.subject, score.session)
    real, made = demo.output / "cohort" / place, demo.output / "synthetic" / FEDERATED / place
    files = {
        "real": next((real / "pet").glob("*_pet.nii.gz")),
        "synthetic": next((made / "pet").glob("*_desc-synthetic_pet.nii.gz")),
    }
    pets = {layer: read_volume(path, unit="SUVR") for layer, path in files.items()}
    mri = read_volume(next((real / "anat").glob("*_T1w.nii.gz")))
    return Case(score.subject, score.site, score.diagnosis, chosen.rule, {"mri": mri, **pets})
