# SPDX-License-Identifier: Apache-2.0
"""A tick or a cross."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pasta_model.errors import PastaError


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    check
        What was looked at.
    good
        A tick, or a cross.
    found
        What was seen.
    advice
        What to do for a cross; a tick may have one, too, for later.
    """

    check: str
    good: bool
    found: str
    advice: str = ""


def cross(check: str, found: str, advice: str) -> Finding:
    """Return a cross."""
    return Finding(check, good=False, found=found, advice=advice)


def tick(check: str, found: str, advice: str = "") -> Finding:
    """Return a tick."""
    return Finding(check, good=True, found=found, advice=advice)


def look(check: str, at: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield what a check finds; whatever goes wrong in it is a cross and hides no other check."""
    try:
        yield from at()
    except PastaError as error:
        found, _, advice = str(error).rpartition("; ")
        yield cross(check, found or advice, advice if found else "see the message")
    except Exception as error:  # noqa: BLE001  # a check that fails is a cross
        yield cross(check, f"{type(error).__name__}: {error}", "mend what the message names, and check again")


def gigabytes(size: float) -> str:
    """Write a number of bytes in GB."""
    return f"{size / 1e9:.1f} GB"
