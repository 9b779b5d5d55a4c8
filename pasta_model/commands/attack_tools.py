# SPDX-License-Identifier: Apache-2.0
"""What the attacks of `pasta attack` share: stores that fit a model, and how figures are told."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pasta_model.console import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from pasta_model.checkpoint import Checkpoint
    from pasta_model.config import Scalar, Settings
    from pasta_model.data.clinical import Standardisation
    from pasta_model.data.slabs import SlabLoader
    from pasta_model.data.store import SiteStore

GUARANTEE = "an attack that fails proves nothing; the guarantee is the ledger's"


@contextmanager
def begins_anew() -> Iterator[None]:
    """Say of an attack stopped with Ctrl-C that nothing was kept; other commands go on where they were."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped; nothing was kept, the same command begins anew", err=True)
        raise SystemExit(EXIT_INTERRUPTED) from None


def open_store(path: Path, *, spacing: float) -> SiteStore:
    """Open a store that a model of this spacing can be shown.

    Raises
    ------
    StoreError
        When it is prepared at another spacing.
    """
    from pasta_model.data.store import SiteStore
    from pasta_model.errors import StoreError

    store = SiteStore(path)
    found = store.template.head.spacing
    if found != spacing:
        raise StoreError(f"{path}: is prepared at {found} mm, wanted {spacing} mm; prepare the site again")
    return store


def slab_loader(
    store: SiteStore, split: str, settings: Settings, standardisation: Standardisation
) -> SlabLoader:
    """Return the slabs of a split as a model of these settings sees them."""
    from pasta_model.data.clinical import SCHEMES
    from pasta_model.data.slabs import SlabLoader

    return SlabLoader(
        store,
        split=split,
        slab_slices=settings.network.slab_slices,
        scheme=SCHEMES[settings.data.clinical],
        standardisation=standardisation,
        planes=settings.data.planes,
    )


def own_standardisation(store: SiteStore, split: str, settings: Settings) -> Standardisation:
    """Mean and spread of a store's own clinical values, where no model says them."""
    from pasta_model.data.clinical import SCHEMES, Moments, clinical_table

    rows = [store.entries[i].clinical for i in store.indices(split)]
    return Moments.of(clinical_table(rows, SCHEMES[settings.data.clinical])).standardisation()


def here(settings: Settings, device: str | None, changes: Mapping[str, Scalar] | None = None) -> Settings:
    """Return settings for this machine: another device, nothing compiled, and these changes."""
    from pasta_model.config import settings_from_flat

    own: dict[str, Scalar] = {"training.compile": False}
    own["training.device"] = device or settings.training.device
    return settings_from_flat({**settings.flat(), **own, **(changes or {})})


def loaded(path: Path) -> Checkpoint:
    """Read a model; a mistake in its weights names the file."""
    from pasta_model.checkpoint import load_checkpoint, refuse_other_weights
    from pasta_model.errors import CheckpointError

    checkpoint = load_checkpoint(path)
    try:
        refuse_other_weights(checkpoint.state, checkpoint.settings)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return checkpoint


def refuse_unwritable_file(path: Path | None) -> None:
    """Refuse a place for the figures before any work is done."""
    from pasta_model.errors import ConfigError
    from pasta_model.files import refuse_unwritable

    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, wanted a file; choose another name")
    refuse_unwritable(path.parent)


def tell(
    title: str,
    rows: Sequence[Mapping[str, str]],
    *,
    says: str,
    figures: Mapping[str, Any],
    json: Path | None,
    style: str = "",
) -> None:
    """Print a table and its meaning, and write all figures as JSON if asked.

    Parameters
    ----------
    rows
        Cells by heading; all rows have the same headings.
    says
        One sentence: what the numbers mean, and what they do not show.
    """
    from rich.console import Console
    from rich.table import Table

    from pasta_model.files import write_json

    console = Console()
    lone = len(rows) == 1  # many figures of one thing: one below the other
    headings = ["", ""] if lone else list(rows[0])
    table = Table(*headings, title=title, title_justify="left", box=None, show_header=not lone)
    for cells in rows[0].items() if lone else (row.values() for row in rows):
        table.add_row(*cells)
    console.print(table)
    console.print(says, style=style or None, markup=False, highlight=False)
    if json:
        write_json(json, {**_plain(figures), "says": says})


def share(value: float | None) -> str:
    """Return a share as it is shown; a dash where there is none."""
    return "-" if value is None else f"{value:.0%}"


def _plain(value: Any) -> Any:
    """Return what JSON can hold: a number that is not finite is null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
