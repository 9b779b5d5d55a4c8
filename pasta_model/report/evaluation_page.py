# SPDX-License-Identifier: Apache-2.0
"""The page of an evaluation: results, cases, findings, training, privacy, limits, provenance, in order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pasta_model.diagnosis.results import AucDifference, DiagnosisRow
from pasta_model.evaluation.agreement import RegionRow
from pasta_model.evaluation.columns import ALL_METRICS, METRICS, WHOLE
from pasta_model.evaluation.scores import SubjectScore, common_grid
from pasta_model.evaluation.summary import GroupRow
from pasta_model.evaluation.uncertainty import CoverageRow, SpreadRow
from pasta_model.norms.overlap import OverlapRow
from pasta_model.report import findings
from pasta_model.report.cases import Case
from pasta_model.report.charts import CURVES, GLOBAL, curves, metaroi_scatter, metric_bars
from pasta_model.report.content import LIMITS
from pasta_model.report.embedding import NIIVUE, NIIVUE_SHA256
from pasta_model.report.html import pictures_of
from pasta_model.report.page import Block, Bullets, Facts, Fold, Page, Paragraph, Picture, Section, Verdicts
from pasta_model.report.paired import compare, paired_table, statement, summary
from pasta_model.report.panels import subject_panel
from pasta_model.report.privacy import Privacy, privacy_blocks
from pasta_model.report.provenance import Provenance, provenance_blocks
from pasta_model.report.published import with_paper
from pasta_model.report.tables import KINDS, family_tables, group_table, region_table
from pasta_model.report.viewer import budget_left, viewer_of

FEW = 3  # rivals, each with a sentence a metric; more are told in one sentence
BARS = 6  # methods; more would not be told apart
THRESHOLD = -2.0  # of z; the tables of the others are folded
PANELS = 9  # cases with a picture of their own: for those who print, or have no WebGL


@dataclass(frozen=True)
class Evaluation:
    """All that an evaluation found; what is empty has no place on the page.

    Attributes
    ----------
    method
        The one that is compared with all others, and whose cases are shown.
    groups
        As `summarise` returns them, of any kinds.
    cases
        In the order of the rule (`choose_cases`); as many as the page holds are shown.
    chosen
        How many cases the rule chose, where `cases` are fewer.
    people
        Whether the subjects are people, not twins: then the page says how to keep it.
    unseen
        Whether it was checked that no generator was trained on those who are diagnosed.
    surfaces
        Pictures of z maps (PNG), by caption.
    card
        Blocks of the model card.
    smallest
        Of fewer persons no differences are shown; the other tables hide them themselves.
    result_title
        Heading of the results: on whom. A study has held them out itself.
    result_note
        How it is known that they are held out, or that it is not; a sentence.
    """

    title: str
    method: str
    scores: Sequence[SubjectScore]
    groups: Sequence[GroupRow]
    notice: str = ""
    subtitle: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    regions: Sequence[RegionRow] = ()
    diagnosis: Sequence[DiagnosisRow] = ()
    auc_differences: Sequence[AucDifference] = ()
    unseen: bool = False
    overlap: Sequence[OverlapRow] = ()
    coverage: Sequence[CoverageRow] = ()
    spread: Sequence[SpreadRow] = ()
    history: Sequence[Mapping[str, Any]] = ()
    privacy: Privacy | None = None
    cases: Sequence[Case] = ()
    chosen: int | None = None
    people: bool = True
    surfaces: Mapping[str, bytes] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)
    limits: Sequence[str] = LIMITS
    card: Sequence[Block] = ()
    more: Sequence[Section] = ()
    smallest: int = 0
    result_title: str = "Result on held-out subjects"
    result_note: str = ""
    seed: int = 0


def evaluation_page(found: Evaluation) -> Page:
    """Return the page; the viewer gets the bytes that pictures leave below the limit."""
    before = [
        Section("run", "What happened", [Facts(found.facts)] if found.facts else []),
        Section("result", found.result_title, _result(found), "Result"),
    ]
    after = [
        Section("metaroi", "Metabolism in the MetaROI", _metaroi(found), "MetaROI"),
        Section("diagnosis", "Can a reader still tell the disease?", _diagnosis(found), "Diagnosis"),
        Section("hypometabolism", "Abnormality maps", _abnormality(found)),
        Section("uncertainty", "Uncertainty", _uncertainty(found)),
        *found.more,
        Section("training", "Training", _training(found)),
        Section("privacy", "Privacy", privacy_blocks(found.privacy) if found.privacy else []),
        Section("limits", "What the numbers do not show", [Bullets(found.limits)]),
        Section("card", "Model card", list(found.card)),
        Section("provenance", "Provenance", _provenance(found)),
    ]
    panels = [case_picture(case, found.method) for case in found.cases[:PANELS]]
    pictures = panels + pictures_of(Page("", "", [*before, *after]))
    look = [Section("look", "Look for yourself", _look(found, panels, budget_left(pictures)), "Viewer")]
    return Page(found.title, found.notice, [*before, *look, *after], found.subtitle)


def case_picture(case: Case, method: str) -> Picture:
    """Return the static picture of a case: for print, and where the viewer cannot draw."""
    mri, synthetic, real = (case.volumes[key] for key in ("mri", "synthetic", "real"))
    name = f"{case.diagnosis}: {case.name}, {case.site}"
    grid = common_grid(real, synthetic)
    png = subject_panel(mri.data, synthetic.data, real.data, grid=grid, title=name)
    alt = f"{name}. MRI, {method} synthetic PET, real PET and their difference in three planes."
    return Picture(png, alt, f"Chosen by rule: {case.rule}.")


def _result(found: Evaluation) -> list[Block]:
    """Return sentences, the table over all subjects, differences, then group by group; long parts folded."""
    if not found.groups:
        return []
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in found.groups)]
    rivals = compare(found.scores, found.method, smallest=found.smallest, seed=found.seed)
    few = len({row.other for row in rivals}) <= FEW
    blocks: list[Block] = [Paragraph(found.result_note)] if found.result_note else []
    if rivals:
        blocks.append(Verdicts([statement(row) for row in rivals] if few else summary(rivals)))
    tables = {kind: group_table(found.groups, kind=kind) for kind in kinds}
    first = "site" if few and "site" in kinds else kinds[0]
    blocks.append(tables.pop(first))
    if first == "site":  # which ends with all subjects
        tables.pop("all", None)
    if rivals:
        blocks.append(paired_table(rivals))
    blocks.append(_bars(found))
    for kind, table in tables.items():
        opened = few and kind == "diagnosis"
        blocks.append(table if opened else Fold(table.title, [table]))
    return [*blocks, *_families(found)]


def _bars(found: Evaluation) -> Picture:
    """Draw the means by site: of the method, and of as many others as a reader can tell apart."""
    methods = list(dict.fromkeys(row.method for row in found.groups))
    drawn = [found.method, *(name for name in methods if name != found.method)][:BARS]
    alt = "Bars of MAE, PSNR, SSIM and MetaROI error by group and method; the tables hold the values."
    caption = "Means by site, and over all subjects."
    if len(drawn) < len(methods):
        caption += f" {len(drawn)} of {len(methods)} methods; the tables hold all."
    rows = [row for row in found.groups if row.method in drawn]
    return Picture(metric_bars(rows), alt, caption, "chart")


def _families(found: Evaluation) -> list[Block]:
    """Return the metrics on other scales and regions: folded, for those who compare papers."""
    overall = [row for row in found.groups if row.kind == "all"]
    found_tables = family_tables(overall, kind="all", metrics=ALL_METRICS, shown=METRICS)
    tables = [with_paper(table) for table in found_tables]
    return [Fold("The same in other units: over the volume, by slice, and as the paper reports", tables)] * (
        len(tables) > 0
    )


def _look(found: Evaluation, panels: Sequence[Picture], budget: int) -> list[Block]:
    if not found.cases:
        return []
    viewer = viewer_of(found.cases, budget=budget, chosen=found.chosen, people=found.people)
    blocks: list[Block] = [viewer]
    if panels:
        blocks.append(Fold(f"Pictures of {len(panels)} cases, without a viewer", panels))
    return blocks


def _metaroi(found: Evaluation) -> list[Block]:
    blocks: list[Block] = []
    if any(s.method == found.method for s in found.scores):
        alt = "MetaROI SUVR of the real PET against the synthetic PET, one point a session, by diagnosis."
        caption = (
            "On the dashed line both PETs have the same MetaROI SUVR; below it the synthetic one is low."
        )
        png = metaroi_scatter(found.scores, method=found.method, smallest=found.smallest)
        blocks.append(Picture(png, alt, caption, "chart narrow"))
    if len({row.method for row in found.regions}) <= FEW:
        return [*blocks, region_table(found.regions)] if found.regions else blocks
    whole = [row for row in found.regions if row.region == WHOLE]
    parts = [row for row in found.regions if row.region != WHOLE]
    blocks += [region_table(whole), Fold("Region by region", [region_table(parts)])]
    return blocks


def _diagnosis(found: Evaluation) -> list[Block]:
    blocks: list[Block] = []
    if found.diagnosis:
        blocks.append(findings.diagnosis_table(found.diagnosis, unseen=found.unseen))
    if found.auc_differences:
        blocks.append(findings.auc_table(found.auc_differences))
    return blocks


def _abnormality(found: Evaluation) -> list[Block]:
    """Return the tables at one threshold, the others folded, then the surfaces."""
    main = [row for row in found.overlap if row.threshold == THRESHOLD]
    others = [row for row in found.overlap if row.threshold != THRESHOLD]
    blocks: list[Block] = [*findings.overlap_tables(main)] if main else []
    if others:
        blocks.append(Fold("At other thresholds", findings.overlap_tables(others)))
    alt = "Z maps of real and synthetic PETs projected to the surface of the brain in eight views: "
    pictures = [Picture(png, alt + caption, caption) for caption, png in found.surfaces.items()]
    return [*pictures, *blocks]


def _uncertainty(found: Evaluation) -> list[Block]:
    blocks: list[Block] = []
    if found.coverage:
        blocks.append(findings.coverage_table(found.coverage))
    if found.spread:
        blocks.append(findings.spread_table(found.spread))
    return blocks


def _training(found: Evaluation) -> list[Block]:
    if not found.history:
        return []
    alt = f"Training loss and validation MAE over {len(found.history)} rounds, a line for each site."
    names = {name for entry in found.history for key in CURVES for name in entry.get(key) or {}}
    if len(names - {GLOBAL}) > 1:
        caption = "Thin lines: one site each. Thick line: the whole federation."
    elif GLOBAL in names:
        caption = "Thin line: the one site that trains. Thick line: the common model."
    else:
        caption = "One line: a single site, or the data of all in one place."
    return [Picture(curves(found.history), alt, caption, "chart")]


def _provenance(found: Evaluation) -> list[Block]:
    blocks = provenance_blocks(found.provenance)
    if found.cases:
        blocks.append(Paragraph(f"Viewer: {NIIVUE}, BSD-2-Clause, SHA-256 of its script {NIIVUE_SHA256}."))
    return blocks
