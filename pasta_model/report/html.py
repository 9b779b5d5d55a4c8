# SPDX-License-Identifier: Apache-2.0
"""A page as one self-contained file of HTML: opens from a disk, offline, in the light and in the dark."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pasta_model.files import write_text
from pasta_model.report.embedding import description, png_uri, policy, scripts, style
from pasta_model.report.page import Block, Fold, Page, Picture, Viewer
from pasta_model.report.viewer import PAGE_LIMIT

logger = logging.getLogger(__name__)


def write_page(path: Path, page: Page) -> int:
    """Write a page to `path`, atomically; return its size in bytes.

    A page over the limit is written all the same, with a warning: results are never thrown away for it.
    """
    text = render(page)
    write_text(path, text)
    size = path.stat().st_size
    if size > PAGE_LIMIT:
        logger.warning("a page has %.1f MB, more than %.0f", size / 1e6, PAGE_LIMIT / 1e6)
    return size


def render(page: Page) -> str:
    """Return a page as HTML; every text in it is escaped."""
    viewers = sum(isinstance(block, Viewer) for block in blocks_of(page))
    assert viewers <= 1, "a page holds one viewer: its parts are named"
    codes = scripts(viewer=viewers > 0)
    return environment().get_template("page.html.j2").render(
        page=page, style=style(viewer=viewers > 0), scripts=codes, policy=policy(codes)
    )  # fmt: skip


def blocks_of(page: Page) -> Iterator[Block]:
    """Every block of a page, the folded ones too."""
    for section in page.sections:
        yield from _opened(section.blocks)


def pictures_of(page: Page) -> list[Picture]:
    """Every picture of a page."""
    return [block for block in blocks_of(page) if isinstance(block, Picture)]


def environment() -> Environment:
    """Return the environment of all templates: they escape, and refuse names that are not there."""
    made = Environment(
        loader=PackageLoader("pasta_model.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters.update(png=png_uri, description=description, groupby_order=_groups)
    made.globals["kind_of"] = lambda block: type(block).__name__
    return made


def _opened(blocks: Sequence[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Fold):
            yield from _opened(block.blocks)


def _groups(items: Sequence[Any], attribute: str) -> list[tuple[str, list[tuple[int, Any]]]]:
    """Put items of one group together, each with its place; groups in the order of their first item."""
    groups: dict[str, list[tuple[int, Any]]] = {}
    for place, item in enumerate(items):
        groups.setdefault(getattr(item, attribute), []).append((place, item))
    return list(groups.items())
