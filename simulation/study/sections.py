# SPDX-License-Identifier: Apache-2.0
"""The sections of a study's report that no single evaluation has."""

from collections.abc import Iterator, Sequence

from client.budget import SPLITS, account_of, read_place
from pasta_model.evaluation.columns import METRICS
from pasta_model.evaluation.estimates import Estimate
from pasta_model.evaluation.groups import NOT_SHOWN, suppressed, told
from pasta_model.report.page import Cell, Column, Paragraph, RowGroup, Section, Table
from pasta_model.report.tables import estimate_cell
from pasta_model.report.unlike import unlike_blocks
from simulation.study.cohort import People
from simulation.study.counts import table_of_sites
from simulation.study.making import not_compared, slabs_a_step
from simulation.study.measures import Measures
from simulation.study.methods import Method
from simulation.study.run import Study
from simulation.study.training import TrainJob


def sections(study: Study, found: People, told: Measures, training: list[TrainJob]) -> Iterator[Section]:
    """Yield what a study has to tell beside its results: methods, people, seeds, calibration, odd MRIs."""
    smallest = study.settings.measure.smallest_group
    compared: list[Table | Paragraph] = [_methods_table(study, training)]
    if words := not_compared(study):
        compared.append(Paragraph(words))
    yield Section("methods", "What was compared", compared, "Methods")
    columns = [Column("Site", "text"), *(Column(n) for n in ("train", "valid", "test", "CN", "MCI"))]
    columns += [Column("Dementia"), Column("", "text")]
    rows = [[Cell(word) for word in row] for row in table_of_sites(found, smallest=smallest)]
    caption = "Persons in each split, then sessions of each diagnosis. A held-out site is measured only."
    people = Table("People", columns, [RowGroup("", rows)], caption)
    yield Section("people", "Who was where", [people], "People")
    if len(study.settings.seeds) > 1:
        yield Section("seeds", "From seed to seed", [_seeds_table(told)], "Seeds")
    if told.calibration:
        yield Section("calibration", "Is the spread where the errors are?", _calibration(told), "Calibration")
    private = [job for job in training if job.settings.privacy.unit == "subject"]
    if private:
        yield Section(
            "spent", "What the private methods spent", [spent_table(private, smallest=smallest)], "Spent"
        )
    if told.unlike:
        blocks = unlike_blocks(told.unlike, smallest=smallest)
        yield Section("unlike", "MRIs unlike those of the training sites", blocks, "Unlike")


def _methods_table(study: Study, training: list[TrainJob]) -> Table:
    families: dict[str, list[Method]] = {}
    for method in study.methods().values():
        families.setdefault(method.family, []).append(method)
    groups = []
    for family, methods in families.items():
        rows = [[Cell(m.name), Cell(m.about), Cell(_slabs(m, training))] for m in methods]
        groups.append(RowGroup(family, rows))
    columns = [Column("", "text"), Column("Method", "text"), Column("How", "text"), Column("Slabs seen")]
    caption = (
        "Slabs of all sites together. Pooled data and other networks take them in one sequence, a federation"
        " side by side: n times fewer steps in a row. 'alone' and 'personalised' have no model for a held-out"
        " site: there each person goes to the model of one of the other sites, drawn evenly."
    )
    return Table("Methods", columns, groups, caption)


def _slabs(method: Method, training: list[TrainJob]) -> str:
    own = [job for job in training if job.method.name == method.name]
    if not own:
        return "0"
    s = own[0].settings
    return f"{s.total_steps * slabs_a_step(s) * len(own[0].stores):,}"


def _seeds_table(told: Measures) -> Table:
    columns = [Column("Method", "text"), *(Column(metric.heading) for metric in METRICS)]
    rows = []
    for row in told.seeds:
        cells = [Cell(row.method)]
        for metric in METRICS:
            spread = row.spread(metric.name)
            why = row.hidden.get(metric.name, "no two seeds have a mean")
            cells.append(
                estimate_cell(Estimate(spread, why="" if spread is not None else why), metric.digits)
            )
        rows.append(cells)
    caption = "Standard deviation, from seed to seed, of a method's mean over all subjects."
    return Table("Seeds", columns, [RowGroup("", rows)], caption)


def _calibration(told: Measures) -> list[Table | Paragraph]:
    columns = [
        Column("Method", "text"),
        Column("Error with spread"),
        Column("Error over spread"),
        Column("ENCE"),
    ]
    rows = [
        [Cell(r.method), *(estimate_cell(e, 2) for e in (r.within, r.ratio, r.ence))]
        for r in told.calibration
    ]
    caption = (
        "Rank correlation of |error| and spread over the voxels of a brain; root mean square error over that"
        " of the spread (above 1: too sure); expected normalised calibration error (0: calibrated)."
    )
    blocks: list[Table | Paragraph] = [Table("Within a brain", columns, [RowGroup("", rows)], caption)]
    if told.recalibration:
        found = told.recalibration
        covers = "; ".join(row.coverage.text(2) for row in told.recalibrated)
        blocks.append(
            Paragraph(
                f"Spreads {found.factor:.2f} times as wide cover {found.level:.0%} of the voxels of the"
                f" {found.subjects} validating subjects; on the held-out subjects they cover {covers}."
            )
        )
    return blocks


def spent_table(private: Sequence[TrainJob], *, smallest: int = 0) -> Table:
    """Read the ledgers: epsilon of the person at each site of whom most was released.

    Parameters
    ----------
    smallest
        Of a site of fewer persons no number is told, nor its noise, which follows from it.
    """
    columns = [Column("Method", "text"), Column("Seed"), Column("Site", "text"), Column("Persons")]
    columns += [Column("Epsilon"), Column("Delta"), Column("Noise multiplier"), Column("Promised")]
    rows = []
    for job in private:
        accounts = {site: account_of(read_place(job.folder / "sites" / site)) for site in job.stores}
        hidden = suppressed({site: own.subjects for site, own in accounts.items()}, smallest=smallest)
        for site, account in accounts.items():
            spent, _ = account.spent[SPLITS["train"]]
            why = hidden.get(site, "")
            noise = ", ".join(sorted({f"{row.noise_multiplier:.2f}" for row in account.rows}))
            who = [job.method.name, str(job.settings.run.seed), site, told(account.subjects, why)]
            cells = [*map(Cell, (*who, f"{spent:.2f}", f"{account.delta:g}"))]
            cells.append(Cell(NOT_SHOWN, note=why, missing=True) if why else Cell(noise))
            rows.append([*cells, Cell(f"{job.settings.privacy.epsilon:g}")])
    caption = (
        "Of the training person of whom most was released, by PRV accounting, as each site's ledger has it."
    )
    return Table("Ledgers", columns, [RowGroup("", rows)], caption)
