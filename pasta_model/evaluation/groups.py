# SPDX-License-Identifier: Apache-2.0
"""Who stands together in a table: by site, diagnosis, sex and age; and which groups are too small to show."""

from collections.abc import Mapping, Sequence

from pasta_model.data.manifest import DIAGNOSES
from pasta_model.errors import ConfigError
from pasta_model.evaluation.scores import SubjectScore

KINDS = ("site", "diagnosis", "sex", "age")
UNKNOWN = "unknown"
AGE_BANDS = ((0.0, 65.0, "<65"), (65.0, 75.0, "65-74"), (75.0, 85.0, "75-84"), (85.0, 999.0, ">=85"))
FEW = "fewer than"
NOT_SHOWN = "not shown"
_ORDER = {
    "diagnosis": DIAGNOSES,
    "sex": ("F", "M"),
    "age": tuple(name for _, _, name in AGE_BANDS),
}


def age_band(age: float | None) -> str:
    """Name of the band of an age in years; an age of 74.9 is 74."""
    if age is None:
        return UNKNOWN
    return next((name for low, high, name in AGE_BANDS if low <= age < high), UNKNOWN)


def group_of(score: SubjectScore, kind: str) -> str:
    """Name of the group of a kind to which a score belongs."""
    if kind not in KINDS:
        raise ConfigError(f"groups by {kind!r}, wanted some of {', '.join(KINDS)}")
    if kind == "age":
        return age_band(score.age)
    name = {"site": score.site, "diagnosis": score.diagnosis, "sex": score.sex}[kind]
    return name or UNKNOWN


def groups_of(scores: Sequence[SubjectScore], kind: str) -> dict[str, list[SubjectScore]]:
    """Scores by group, in the order of a table: sites by name, diagnoses and ages by degree."""
    found: dict[str, list[SubjectScore]] = {}
    for score in scores:
        found.setdefault(group_of(score, kind), []).append(score)
    known = _ORDER.get(kind, ())
    names = sorted(
        found, key=lambda name: (name == UNKNOWN, known.index(name) if name in known else len(known), name)
    )
    return {name: found[name] for name in names}


def persons(scores: Sequence[SubjectScore]) -> int:
    """How many people the scores are about; several visits of one count once."""
    return len({score.person for score in scores})


def suppressed(sizes: Mapping[str, int], *, smallest: int) -> dict[str, str]:
    """Return which groups of a kind are not shown, and why.

    The groups of a kind add up to a total that is shown. So that no group's values are the total minus
    those of the others, those that are hidden must be two at least, and together as many as the smallest
    that is shown: else the next smallest is hidden too.

    Parameters
    ----------
    sizes
        Persons of each group.
    smallest
        Fewest persons of a group that is shown; 0 or 1 shows all.
    """
    hidden = {name: few(smallest) for name, size in sizes.items() if size < smallest}
    rest = sorted((name for name in sizes if name not in hidden), key=lambda name: (sizes[name], name))
    for name in rest:
        if not hidden or (len(hidden) > 1 and sum(sizes[group] for group in hidden) >= smallest):
            break
        hidden[name] = f"would tell by difference of a group with {few(smallest)}"
    return hidden


def few(smallest: int) -> str:
    """Return why a group is not shown."""
    return f"{FEW} {smallest} subjects, too few to tell"


def told(subjects: int, hidden: str) -> str:
    """Return the number of persons of a group as a table may tell it.

    Parameters
    ----------
    hidden
        Why the group is not shown, as `suppressed` says; empty where it is.

    Returns
    -------
    str
        The number; of a group that is too small "fewer than 5", of one that would tell it "not shown".
    """
    if not hidden:
        return str(subjects)
    return hidden.partition(" subjects")[0] if hidden.startswith(FEW) else NOT_SHOWN
