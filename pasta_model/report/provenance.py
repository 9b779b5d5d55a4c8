# SPDX-License-Identifier: Apache-2.0
"""Where a report comes from: commands, seeds, versions, settings and digests."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pasta_model.report.page import Block, Cell, Code, Column, Facts, Fold, RowGroup, Table


@dataclass(frozen=True)
class Provenance:
    """What somebody needs to make the same again.

    Attributes
    ----------
    commands
        As they were typed.
    seeds
        By purpose.
    digests
        Name of a file, or of a model, to its SHA-256.
    settings
        Nested as they are.
    """

    commands: Sequence[str] = ()
    seeds: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def provenance_blocks(found: Provenance) -> list[Block]:
    """Return what is known, the long parts folded."""
    blocks: list[Block] = []
    facts = {f"seed, {name}" if name else "seed": str(seed) for name, seed in found.seeds.items()}
    facts |= found.versions
    if facts:
        blocks.append(Facts(facts))
    if found.commands:
        blocks.append(Code("\n".join(found.commands)))
    if found.digests:
        rows = [[Cell(name), Cell(digest)] for name, digest in found.digests.items()]
        columns = [Column("File", "text"), Column("SHA-256", "text")]
        blocks.append(Fold("Digests", [Table("Digests", columns, [RowGroup("", rows)])]))
    if found.settings:
        text = json.dumps(found.settings, indent=2, sort_keys=True, default=str, ensure_ascii=False)
        blocks.append(Fold("All settings", [Code(text)]))
    return blocks
