# SPDX-License-Identifier: Apache-2.0
"""The report of a demo: gathers what its stages left on the disk."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from pasta_model.checkpoint import PACKAGES
from pasta_model.data.grid import template_of
from pasta_model.data.manifest import read_splits
from pasta_model.data.volume import read_volume
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.summary import GroupRow, summarise
from pasta_model.placement import compute_dtype
from pasta_model.report.content import TWINS_NOTICE, Example, ReportContent, choose_examples
from pasta_model.report.html import write_report
from pasta_model.report.verdicts import Verdict, verdicts
from pasta_model.sections import SamplingSettings, TrainingSettings
from simulation.demo import FEDERATED, Demo


def write_demo_report(demo: Demo, scores: Sequence[SubjectScore]) -> tuple[list[GroupRow], list[Verdict]]:
    """Write `report.html` into the demo's folder; return its table and what it says of the baselines."""
    rows = summarise(scores)
    said = verdicts(rows)
    content = ReportContent(
        title="A federation on one machine",
        notice=TWINS_NOTICE,
        facts=_facts(demo, scores),
        rows=rows,
        scores=scores,
        verdicts=said,
        examples=[_example(demo, chosen) for chosen in choose_examples(scores)],
        history=read_history(Path(demo.settings.run.output)),
        config=demo.settings.flat(),
        versions={name: version(name) for name in PACKAGES},
    )
    write_report(demo.output / "report.html", content)
    return rows, said


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


def _example(demo: Demo, chosen: SubjectScore) -> Example:
    folder = demo.output / "cohort" / chosen.site / chosen.subject / chosen.session
    mri = read_volume(next((folder / "anat").glob("*_T1w.nii.gz")))
    real = read_volume(next((folder / "pet").glob("*_pet.nii.gz")), unit="SUVR")
    synthetic = demo.output / "synthetic" / FEDERATED / chosen.site / chosen.subject / chosen.session
    pet = read_volume(next((synthetic / "pet").glob("*_desc-synthetic_pet.nii.gz")), unit="SUVR")
    grid = template_of(mri.data.shape, mri.affine).head
    return Example(chosen.diagnosis, chosen.subject, chosen.site, mri.data, pet.data, real.data, grid)
