# SPDX-License-Identifier: Apache-2.0
"""What a page is made of: sections of blocks. It knows nothing of PETs; one template draws any of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["text", "number"]
Direction: TypeAlias = Literal["", "higher", "lower"]
Mark: TypeAlias = Literal["yes", "no", "open"]


@dataclass(frozen=True)
class Column:
    """A column: numbers stand to the right; `direction` says whether higher or lower is better."""

    heading: str
    kind: Kind = "number"
    direction: Direction = ""


@dataclass(frozen=True)
class Cell:
    """A value, with its interval below it.

    Attributes
    ----------
    best
        No other method of the group is better.
    note
        Why there is no value; shown as a tooltip and as a footnote of the table.
    detail
        Small text below the value, such as "0.110 to 0.140".
    missing
        There is no value; the text says so.
    """

    text: str
    best: bool = False
    note: str = ""
    detail: str = ""
    missing: bool = False


@dataclass(frozen=True)
class RowGroup:
    """Rows that stand together under one heading; the heading fills the table's first column."""

    heading: str
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Table:
    """A table; where a group has a heading, `columns[0]` is the column of the headings.

    Attributes
    ----------
    rows
        Groups in the order of the page. A table without headings holds one group with heading "".
    caption
        How to read it.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[RowGroup]
    caption: str = ""

    def __post_init__(self) -> None:
        wide = {len(row) + self.headed for group in self.rows for row in group.rows}
        assert wide <= {len(self.columns)}, f"{self.title}: {len(self.columns)} columns, rows of {wide}"

    @property
    def headed(self) -> bool:
        """Whether the first column holds the headings of the groups."""
        return any(group.heading for group in self.rows)

    @property
    def notes(self) -> list[str]:
        """Every reason once, in the order of the cells; a footnote's number is its place plus one."""
        found = [cell.note for group in self.rows for row in group.rows for cell in row if cell.note]
        return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Picture:
    """A PNG, the text for those who cannot see it, and the caption for all.

    Attributes
    ----------
    look
        "chart" has a white ground in the dark, too; "narrow" is not drawn as wide as the page.
    """

    png: bytes
    alt: str
    caption: str = ""
    look: str = ""


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names and what they are."""

    pairs: Mapping[str, str]


@dataclass(frozen=True)
class Statement:
    """A sentence that is computed from the numbers: it holds, it does not, or they leave it open."""

    text: str
    mark: Mark


@dataclass(frozen=True)
class Verdicts:
    """Statements, one a line, with a tick, a cross or a dash."""

    items: Sequence[Statement]


@dataclass(frozen=True)
class Code:
    """Text as it is, in letters of one width."""

    text: str


@dataclass(frozen=True)
class Fold:
    """Blocks that open at a click; they are printed open."""

    summary: str
    blocks: Sequence["Block"]


@dataclass(frozen=True)
class ShownLayer:
    """A layer of the viewer: how it is drawn, the same for every case.

    Attributes
    ----------
    key
        Of the volume in a case.
    colours
        "#rrggbb" at equal steps from the lower limit to the upper one.
    opaque
        Beside the colours: where one is not drawn, the base is seen.
    limits
        Values of the first and the last colour; None takes the limits of the case (an MRI has no unit).
    """

    key: str
    label: str
    unit: str
    digits: int
    colours: Sequence[str]
    opaque: Sequence[bool]
    limits: tuple[float, float] | None
    help: str = ""


@dataclass(frozen=True)
class ShownCase:
    """A case of the viewer: its words, and each layer packed as `report.viewer_volumes` does it.

    Attributes
    ----------
    group
        Cases of one group stand together in the list of choices.
    rule
        How it was chosen.
    window
        Limits of the layer that has none of its own.
    """

    name: str
    group: str
    rule: str
    volumes: Mapping[str, str]
    window: tuple[float, float]

    @property
    def size(self) -> int:
        """Bytes that the volumes take on the page."""
        return sum(map(len, self.volumes.values()))


@dataclass(frozen=True)
class Viewer:
    """NiiVue on linked planes: cases to choose, layers to switch.

    Attributes
    ----------
    layers
        Their order is the order of the buttons and of the keys 1, 2, ...; the first is the base.
    first
        Key of the layer that is shown first.
    start
        Where the crosshair stands first, in MNI mm.
    notes
        What a reader must know of these volumes: steps, crop, what was left out.
    """

    cases: Sequence[ShownCase]
    layers: Sequence[ShownLayer]
    first: str
    start: tuple[float, float, float] = (0.0, 0.0, 0.0)
    notes: Sequence[str] = ()


Block: TypeAlias = "Table | Picture | Heading | Paragraph | Bullets | Facts | Verdicts | Code | Fold | Viewer"


@dataclass(frozen=True)
class Section:
    """A card of the page; `short` is its name in the navigation."""

    id: str
    title: str
    blocks: Sequence[Block]
    short: str = ""


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes
    ----------
    notice
        What these subjects are, in large letters.
    sections
        In the order of the page; those without blocks are left out.
    """

    title: str
    notice: str
    sections: Sequence[Section]
    subtitle: str = ""
    footer: Sequence[str] = field(default=())

    @property
    def shown(self) -> list[Section]:
        """Sections that have something to show."""
        return [section for section in self.sections if section.blocks]
