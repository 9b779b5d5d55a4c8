# SPDX-License-Identifier: Apache-2.0
"""Whom a ledger is about: keyed hashes of names, which of them are one person's, and what that costs."""

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import TypeAlias

from pasta_model.privacy.accounting import Release

Person: TypeAlias = str | Collection[str]  # a name, or all names that somebody goes by
Unit: TypeAlias = frozenset[str]  # hashes of the names that one unit of a release had
History: TypeAlias = tuple[int, tuple[tuple[str, int], ...]]  # units now; cohorts, and units there


class Links:
    """Names that are linked by groups that share some; a link is never forgotten.

    Parameters
    ----------
    groups
        Names of one person each, by whoever said so and whenever.
    """

    def __init__(self, groups: Iterable[Unit]) -> None:
        self._above: dict[str, str] = {}  # a forest: each name points towards the one its person is known by
        for group in groups:
            first, *others = group
            for other in others:
                self._above[self.who(other)] = self.who(first)

    def who(self, name: str) -> str:
        """Return the one name by which a person is known here."""
        while (above := self._above.setdefault(name, name)) != name:
            self._above[name] = self._above[above]
            name = above
        return name

    def units(self, cohort: Iterable[Unit]) -> Counter[str]:
        """Count as how many units each person is in a cohort."""
        return Counter(self.who(next(iter(unit))) for unit in cohort)


class Register:
    """The cohorts of a ledger.

    Parameters
    ----------
    key
        Of the hashes, in hexadecimal.
    """

    def __init__(self, key: str = "") -> None:
        self.key = key
        self.cohorts: dict[str, frozenset[Unit]] = {}

    @property
    def known(self) -> list[Unit]:
        """All that were ever said to be one person."""
        return [unit for cohort in self.cohorts.values() for unit in cohort]

    def knows_any(self, persons: Iterable[Person]) -> bool:
        """Whether any name of these is among those it has."""
        known = frozenset[str]().union(*self.known)
        return not known.isdisjoint(chain.from_iterable(self._units(persons)))

    def count(self) -> int:
        """Return how many persons it knows."""
        known = self.known
        return len(Links(known).units(known))

    def told(self, persons: Iterable[Person]) -> list[list[str]]:
        """Return a cohort as a line of the ledger tells it: the hashed names of each person."""
        return sorted(sorted(unit) for unit in self._units(persons))

    def name_of(self, persons: Iterable[Person]) -> str:
        """Return the name of a cohort: another one when other names are one person's."""
        return hashlib.sha256(json.dumps(self.told(persons)).encode()).hexdigest()[:12]

    def take_in(self, cohort: str, told: Iterable[str | Sequence[str]]) -> None:
        """Read a cohort's line; names that stand by themselves, as in format 1, are units of their own."""
        self.cohorts[cohort] = frozenset(frozenset(_names(unit)) for unit in told)

    def histories(
        self, persons: Iterable[Person], cohorts: Collection[str], *, others: bool = False
    ) -> set[History]:
        """Return the histories of persons: in which cohorts they were, and as how many units.

        Parameters
        ----------
        persons
            One unit each from now on, whatever an earlier table linked.
        others
            Not of these persons, but of all others that are known.
        """
        asked, known = self._units(persons), self.known
        links = Links(chain(asked, known))
        here = links.units(asked)
        if others:
            here = Counter(dict.fromkeys(links.units(known).keys() - here.keys(), 1))
        were: dict[str, list[tuple[str, int]]] = {who: [] for who in here}
        for cohort in cohorts:
            for who, units in links.units(self.cohorts[cohort]).items():
                if who in were:
                    were[who].append((cohort, units))
        return {(units, tuple(were[who])) for who, units in here.items()}

    def _units(self, persons: Iterable[Person]) -> frozenset[Unit]:
        key = bytes.fromhex(self.key)

        def token(name: str) -> str:
            return hmac.digest(key, name.encode(), "sha256").hex()[:20]

        return frozenset(frozenset(map(token, _names(person))) for person in persons)


def of_one_person(release: Release, units: int) -> Release:
    """Return what a release was to a person who took part as several units, because nobody knew better.

    Units are drawn on their own, each with probability q. With probability 1 - (1 - q)^k any of the k is
    drawn, and then their clipped gradients add up to k C at most. Divergences are jointly convex, and grow
    with the length of the shift, so the release is dominated by one in which a subject of clip norm k C is
    drawn with that probability.
    """
    if units == 1:
        return release
    return replace(
        release,
        noise_multiplier=release.noise_multiplier / units,
        sampling_rate=1 - (1 - release.sampling_rate) ** units,
    )


def _names(person: Person) -> Collection[str]:
    return (person,) if isinstance(person, str) else person
