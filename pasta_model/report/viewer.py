# SPDX-License-Identifier: Apache-2.0
"""The viewer's cases on a page: as many as a budget of bytes holds, and what a reader must know of them."""

from collections.abc import Sequence

from pasta_model.report.cases import Case, with_difference
from pasta_model.report.layers import LAYERS, MRI
from pasta_model.report.page import Picture, ShownCase, Viewer
from pasta_model.report.panels import CUTS
from pasta_model.report.viewer_volumes import encode, window

PAGE_LIMIT = 25_000_000  # bytes: what a mail server lets pass, and a browser opens at once
BUDGET = 16_000_000  # of it, for volumes where nothing else is said
FIRST = "synthetic"
_PEOPLE = (
    "This file holds the brains of {} people, from which a person can be recognised: keep it where their"
    " scans may be kept, and do not send it on."
)


def viewer_of(
    cases: Sequence[Case], *, budget: int = BUDGET, chosen: int | None = None, people: bool = True
) -> Viewer:
    """Put cases into a viewer, in their order, until the budget is spent; the page says what was left out.

    Parameters
    ----------
    budget
        Bytes on the page. The first case is always kept.
    chosen
        How many the rule chose, where the caller hands over fewer.
    people
        Whether the volumes are of people: then the page says that it must be kept like their scans.
    """
    kept: list[ShownCase] = []
    spent = 0
    for case in cases:
        shown = shown_case(case)
        if kept and spent + shown.size > budget:
            break
        spent += shown.size
        kept.append(shown)
    there = {key for case in kept for key in case.volumes}
    layers = [layer for layer in LAYERS if layer.key in there]
    keys = [layer.key for layer in layers]
    return Viewer(
        cases=kept,
        layers=[layer.shown for layer in layers],
        first=FIRST if FIRST in keys else keys[-1] if keys else MRI,
        start=(CUTS[2].position, CUTS[1].position, CUTS[0].position),
        notes=[
            *_notes(keys),
            *_left_out(len(kept), given=len(cases), chosen=chosen or 0),
            *([_PEOPLE.format(len(kept))] if people and kept else []),
        ],
    )


def shown_case(case: Case) -> ShownCase:
    """Encode a case; the difference is added where both PETs are there."""
    volumes = with_difference(case.volumes)
    encoded = encode(volumes, name=case.name)
    return ShownCase(
        name=f"{case.name}, {case.site}",
        group=case.diagnosis,
        rule=case.rule,
        volumes=encoded,
        window=window(volumes[MRI].data),
    )


def budget_left(pictures: Sequence[Picture], *, other: int = 4_000_000) -> int:
    """Bytes that volumes may take: the limit less pictures (in base64), scripts and words."""
    taken = sum(-(-len(picture.png) * 4 // 3) for picture in pictures)
    return max(0, PAGE_LIMIT - taken - other)


def _notes(keys: Sequence[str]) -> list[str]:
    steps = [
        f"{layer.shown.label} {layer.step:g}"
        for layer in LAYERS
        if layer.key in keys and layer.step and not layer.signed
    ]
    words = "; ".join(steps) or "of their own range"
    how = (
        f"Volumes are cropped to the box of the brain and kept in 256 steps ({words}; wider only where a"
        " volume needs it). The tables are computed from the whole volumes."
    )
    by_rule = "Every case was chosen by the rule beside it, never by eye."
    return [f"{by_rule} Colours and limits are the same in all.", how]


def _left_out(kept: int, *, given: int, chosen: int) -> list[str]:
    """Say how many cases were chosen and are not here: for their size, or as nobody would look at more."""
    reasons = (
        (given - kept, f"so that this file stays below {PAGE_LIMIT // 1_000_000} MB"),
        (chosen - given, f"as the first {given} were read for this page"),
    )
    return [
        f"{count} more {'case was' if count == 1 else 'cases were'} chosen and left out, the last by rule,"
        f" {why}."
        for count, why in reasons
        if count > 0
    ]
