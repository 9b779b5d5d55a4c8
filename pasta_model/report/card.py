# SPDX-License-Identifier: Apache-2.0
"""The model card, after Mitchell et al. 2019: what a model is, for whom it works, where it fails."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pasta_model.evaluation.groups import suppressed, told
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.summary import GroupRow
from pasta_model.files import write_text
from pasta_model.report.content import DEVICE, ETHICS, INTENDED, LIMITS, OUT_OF_SCOPE
from pasta_model.report.failures import losses, worst_cases
from pasta_model.report.markdown import escaped, markdown
from pasta_model.report.page import (
    Block,
    Bullets,
    Cell,
    Code,
    Column,
    Facts,
    Heading,
    Paragraph,
    RowGroup,
    Table,
    Verdicts,
)
from pasta_model.report.privacy import MEANING, NONE, Privacy
from pasta_model.report.tables import KINDS, group_table

PAPER = (
    "PASTA: Li et al., Translating MRI to PET through Conditional Diffusion Models with Enhanced Pathology"
    " Awareness, arXiv:2603.18896"
)
WITHHELD = "withheld by the site"


@dataclass(frozen=True)
class ModelCard:
    """What a run knows of its model; what it does not know is left out, not made up.

    Attributes
    ----------
    name, summary
        Of the model.
    method
        Its name among the scores.
    notice
        What the subjects are; `content.TWINS_NOTICE` for digital twins.
    people
        Whether they are people: then no subject is named.
    data
        Facts on the data: modality, tracer, spacing, how prepared.
    paper
        What the method follows; empty where it follows none, as a mean PET.
    federated
        Whether sites made it together.
    sites
        Site to its training subjects; words where the number is not told, as `told_sites` finds them, and
        None where the site keeps it back.
    smallest
        Numbers below it are not shown, nor what would tell them by difference.
    training
        Facts on the training: rounds, steps, rule, network.
    flagged
        Sentences on scans that were unlike the training data, as `unlike.unlike_sentences` makes them: of
        no site that is too small, without names of people.
    licence
        Of the weights, as an identifier of SPDX; empty where nobody has chosen one.
    date
        Shown where given; without it the same run writes the same card.
    """

    name: str
    method: str
    scores: Sequence[SubjectScore]
    groups: Sequence[GroupRow]
    summary: str = ""
    notice: str = ""
    people: bool = True
    data: Mapping[str, str] = field(default_factory=dict)
    paper: str = PAPER
    federated: bool = True
    sites: Mapping[str, int | str | None] = field(default_factory=dict)
    smallest: int = 0
    training: Mapping[str, str] = field(default_factory=dict)
    privacy: Privacy = field(default_factory=Privacy)
    flagged: Sequence[str] = ()
    licence: str = ""
    date: str = ""
    commands: Sequence[str] = ()
    limits: Sequence[str] = LIMITS
    seed: int = 0


def write_card(path: Path, card: ModelCard) -> None:
    """Write MODEL_CARD.md, atomically: front matter as model hubs read it, then the card."""
    body = markdown(card_blocks(card))
    write_text(path, f"{_front_matter(card)}\n# {escaped(card.name)}\n\n{body}\n")


def card_blocks(card: ModelCard, *, alone: bool = True) -> list[Block]:
    """Return the card; not `alone`, on a page that shows results and limits itself, without these."""
    opening = " ".join(text for text in (card.summary, card.notice) if text)
    return [
        *([Paragraph(opening)] if opening else []),
        Paragraph(f"{DEVICE} Do not use a synthetic PET for the care of a patient."),
        *_part("Model", [Facts({"method": card.method, **_given(card)})]),
        *_part("Data", [Facts(card.data)] * bool(card.data)),
        *_part("Sites", _sites(card)),
        *_part("Training", [Facts(card.training)] * bool(card.training)),
        *_part("Privacy", [Facts(card.privacy.facts), _privacy_words(card.privacy)]),
        *_part("Results", _results(card) if alone else []),
        *_part("Where it fails", _failures(card)),
        *_part("Intended use", [Bullets(INTENDED)]),
        *_part("Out of scope", [Bullets(OUT_OF_SCOPE)]),
        *_part("Ethical notes", [Bullets(ETHICS)]),
        *_part("What the numbers do not show", [Bullets(card.limits)] if alone else []),
        *_part("How it was made", [Code("\n".join(card.commands))] * bool(card.commands)),
    ]


def _front_matter(card: ModelCard) -> str:
    """Return what is true of every such model, and the licence if one was chosen; no data set, no score."""
    tags = ("mri", "pet", "image-to-image", *(["federated-learning"] if card.federated else []))
    lines = ["tags:", *(f"- {tag}" for tag in tags)]
    if card.licence:
        lines.insert(0, f"license: {card.licence}")
    return "\n".join(["---", *lines, "---", ""])


def _part(title: str, blocks: Sequence[Block]) -> list[Block]:
    return [Heading(title), *blocks] if blocks else []


def _given(card: ModelCard) -> dict[str, str]:
    facts = {"after": card.paper, "licence of the weights": card.licence, "date": card.date}
    return {name: text for name, text in facts.items() if text}


def told_sites(sites: Mapping[str, int | str | None], *, smallest: int) -> dict[str, int | str | None]:
    """Return what may be told of each site: its number, or words where it is too small or would tell one."""
    known = {site: count for site, count in sites.items() if isinstance(count, int)}
    hidden = suppressed(known, smallest=smallest)
    return {site: told(known[site], hidden[site]) if site in hidden else sites[site] for site in sites}


def _sites(card: ModelCard) -> list[Block]:
    """Return the numbers that may be told: a total only where every site's is."""
    if not card.sites:
        return []
    counts = told_sites(card.sites, smallest=card.smallest)
    known = [count for count in counts.values() if isinstance(count, int)]
    rows = [
        [Cell(site), Cell(WITHHELD if count is None else str(count), missing=not isinstance(count, int))]
        for site, count in counts.items()
    ]
    if len(known) == len(counts):
        rows.append([Cell("all"), Cell(str(sum(known)))])
    columns = [Column("Site", "text"), Column("Training subjects")]
    untold = any(isinstance(count, str) for count in counts.values())
    caption = "Small numbers are not told, nor what would tell one by difference." if untold else ""
    return [Table("Training subjects by site", columns, [RowGroup("", rows)], caption)]


def _privacy_words(privacy: Privacy) -> Paragraph:
    return Paragraph(NONE if privacy.unit == "none" else MEANING)


def _results(card: ModelCard) -> list[Block]:
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in card.groups)]
    if "site" in kinds:  # whose table ends with all subjects
        kinds = [kind for kind in kinds if kind != "all"]
    return [group_table(card.groups, kind=kind) for kind in kinds]


def _failures(card: ModelCard) -> list[Block]:
    blocks: list[Block] = []
    worst = worst_cases(card.scores, card.method, people=card.people, smallest=card.smallest)
    if worst:
        blocks.append(Bullets(worst))
    lost = losses(card.scores, card.groups, card.method, seed=card.seed, smallest=card.smallest)
    others = {s.method for s in card.scores} - {card.method}
    if lost:
        blocks.append(Verdicts(lost))
    elif others:
        blocks.append(Paragraph("No other method of the tables is better in a group beyond its interval."))
    if card.flagged:
        blocks.append(Bullets(card.flagged))
    return blocks
