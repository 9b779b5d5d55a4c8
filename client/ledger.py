# SPDX-License-Identifier: Apache-2.0
"""A site's privacy ledger: what was spent of whom, across rounds, runs and restarts.

A chained file beside the store, so that preparing the data anew forgets nothing. Several stores and kits of
one hospital may share it, under whatever site names. It knows persons by keyed hashes: what counts is what
was released about a *person*, whatever the run, the split or the data's version was. A release is reserved
before it is made, and noted when it is made and before it is kept; what was reserved and never noted,
because a process was killed, may be used again for the very same task only. Where a later table links two
names, what either took part in counts (see `client.register`).

======================  =================================================================
line                    says
======================  =================================================================
`opened`                the site that opened it, key of the hashes
`cohort`                the persons that later lines are about, each with all names
`plan`                  what a run will do here, before it has done anything
`reserved`              so many steps of a mechanism, in a run and round; epsilon with them
`released`              a reservation is used: its round is about to be kept
======================  =================================================================
"""

import fcntl
import json
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from client.chain import Chain, Entry
from client.register import Person, Register, Unit, of_one_person
from client.spending import LedgerLog, Limit, Spending, spending_of
from pasta_model.errors import BudgetError, PrivacyError
from pasta_model.files import write_json
from pasta_model.privacy.accounting import Accountant, Release, epsilon

FORMAT = 2


class Ledger:
    """The ledger of a site.

    Parameters
    ----------
    path
        The JSON lines, with a head beside them.
    site
        Who asks it; whoever does first opens it.
    witness
        A small file in the store that remembers the last line: so one that was taken away is noticed.
    """

    def __init__(self, path: Path, *, site: str, witness: Path) -> None:
        self.path = path
        self.site = site
        self._witness = witness
        self._register = Register()
        self.plans: dict[str, Entry] = {}
        self.spendings: list[Spending] = []
        self._open: dict[str, Spending] = {}  # the last reservation of a task, where not released
        self._released = Counter[tuple[str, int, str]]()
        self._read()

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever written."""
        return not self._register.key

    @property
    def cohorts(self) -> Mapping[str, frozenset[Unit]]:
        """Whom its lines are about."""
        return self._register.cohorts

    def open_for(self, persons: Sequence[Person]) -> None:
        """Make the ledger ready for the data of these persons: all that a site has.

        Raises
        ------
        PrivacyError
            When it is about other people.
        """
        if self.is_new:
            key = secrets.token_hex(32)
            self._append({"event": "opened", "format": FORMAT, "site": self.site, "key": key})
            return
        if self.cohorts and not self._register.knows_any(persons):
            raise PrivacyError(
                f"{self.path}: the ledger of another data set: it is about {self._register.count()} persons,"
                f" none of them among the {len(persons)} here; give this data set a ledger of its own"
            )

    def spent(
        self,
        persons: Iterable[Person],
        limit: Limit,
        *,
        more: Sequence[Release] = (),
        others: bool = False,
    ) -> float:
        """Return the epsilon of the person of whom most was released, with `more` of them on top.

        `others`: not of these persons, but of all others whom the ledger knows.
        """
        histories = self.releases(persons, run=limit.run, more=more, others=others)
        costs = (epsilon(h, delta=limit.delta, accountant=limit.accountant) for h in histories)
        return max(costs, default=0.0)

    def releases(
        self, persons: Iterable[Person], *, run: str = "", more: Sequence[Release] = (), others: bool = False
    ) -> list[list[Release]]:
        """Return what was released of these persons: one list for all who share a history.

        Releases compose person by person: a run that somebody was not in costs them nothing.
        """
        made: dict[str, list[Release]] = {}
        for line in self.spendings:
            if run in ("", line.run):
                made.setdefault(line.cohort, []).append(line.release)

        def composed(units: int, were: Iterable[tuple[str, int]]) -> list[Release]:
            before = (of_one_person(release, n) for cohort, n in were for release in made[cohort])
            return [*before, *(of_one_person(release, units) for release in more)]

        histories = self._register.histories(persons, made.keys(), others=others)
        return [composed(units, were) for units, were in histories]

    def careful(self, run: str) -> Accountant:
        """Return by whom all runs together are counted, while this one goes on.

        What an earlier run showed may have shaped the next one's settings. PRV's sum is proven for settings
        that were fixed beforehand; RDP's, which is larger, holds for such a budget, too (Feldman and Zrnic
        2021, privacy filters).
        """
        return "rdp" if any(line.run != run for line in self.spendings) else "prv"

    def note_plan(self, run: str, persons: Sequence[Person], plan: Entry) -> None:
        """Write down what a run will do here; nothing is spent."""
        self._append({"event": "plan", "run": run, "cohort": self._cohort(persons), **plan})

    def reserve(
        self,
        identity: str,
        release: Release,
        *,
        run: str,
        number: int,
        mechanism: str,
        persons: Sequence[Person],
        limits: Sequence[Limit],
    ) -> None:
        """Ask for a release before it is made; a reservation that was never used stands again.

        Parameters
        ----------
        identity
            Of the task: the same task is the same release.

        Raises
        ------
        BudgetError
            When it would exceed a limit; nothing was spent.
        """
        known = self._open.get(identity)
        if known and (known.release, known.cohort) == (release, self.cohort_of(persons)):
            return
        costs = []
        for limit in limits:
            cost = self.spent(persons, limit, more=[release])
            if cost > limit.epsilon:
                before = self.spent(persons, limit)
                raise BudgetError(
                    f"site {self.site}: {limit.name}: epsilon {before:.3f} of {limit.epsilon:g} is spent"
                    f" (unit subject, delta {limit.delta:g}), and with {mechanism} of round {number} it would"
                    f" be {cost:.3f}; nothing was released. This site evaluates only from here on"
                )
            costs.append(cost)
        told = {"run": run, "round": number, "mechanism": mechanism, "cohort": self._cohort(persons)}
        figures = {"noise_multiplier": release.noise_multiplier, "sampling_rate": release.sampling_rate}
        spent = {"steps": release.steps, "epsilon": [round(cost, 4) for cost in costs]}
        self._append({"event": "reserved", "task": identity, **told, **figures, **spent})

    def note_released(self, identity: str) -> None:
        """Note that a reservation is used, whatever becomes of the answer; twice changes nothing."""
        if identity in self._open:
            self._append({"event": "released", "task": identity})

    def steps(self, run: str, mechanism: str) -> int:
        """Return how many steps of a mechanism a run has reserved."""
        return sum(s.release.steps for s in self.spendings if (s.run, s.mechanism) == (run, mechanism))

    def has_line(self, number: int, digest: str) -> bool:
        """Whether the line of this number, counted from 1, has this hash."""
        found = next(islice(self._log.entries(), number - 1, number), {})
        return found.get("hash") == digest

    def released(self, run: str, number: int, mechanism: str) -> int:
        """Return how many releases of this round were reserved and made."""
        return self._released[run, number, mechanism]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the ledger while a release is made.

        Raises
        ------
        PrivacyError
            When another process holds it.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.path.with_name(self.path.name + ".busy").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PrivacyError(
                    f"{self.path}: another run trains on these data now; two at once cannot both be told what"
                    " is left. Nothing was spent; wait until it is done"
                ) from None
            self._read()  # another process may have written since
            yield

    def _append(self, entry: Entry) -> None:
        """Write a line, have the store remember it, and take it in."""
        self._log.append(entry)
        self.chain = self._log.verify()
        self._witness.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(self._witness, {"lines": self.chain.lines, "hash": self.chain.hash})
        self._take_in(entry)

    def _read(self) -> None:
        """Read all lines anew, when nobody has changed them.

        Raises
        ------
        PrivacyError
            When the chain is broken, or the store remembers lines that are not there.
        """
        self._log = LedgerLog(self.path, opener=self.site)
        seen = self._witnessed()  # before the ledger: another process may write a line in between
        self.chain = self._log.verify()
        # A line that a killed process has not ended is none, even where it can be read: it goes.
        entries = list(self._log.entries())[: self.chain.lines]
        self._refuse_changed(self.chain, entries, seen)
        self._register, self.plans, self.spendings = Register(), {}, []
        self._open.clear()
        self._released.clear()
        for entry in entries:
            self._take_in(entry)

    def _witnessed(self) -> tuple[int, str] | None:
        """Return the last line that the store remembers: its number and hash."""
        if not self._witness.is_file():
            return None
        try:
            seen = json.loads(self._witness.read_text(encoding="utf-8"))
            return int(seen["lines"]), str(seen["hash"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PrivacyError(f"{self._witness}: is damaged; {self._log.remedy}") from error

    def _refuse_changed(self, chain: Chain, entries: Sequence[Entry], seen: tuple[int, str] | None) -> None:
        if not chain.holds:
            raise PrivacyError(f"{self.path}: line {chain.broken_line}: {chain.reason}; {self._log.remedy}")
        if seen is None:
            return
        lines, last = seen
        if not 1 <= lines <= chain.lines or entries[lines - 1].get("hash") != last:
            raise PrivacyError(
                f"{self.path}: found {chain.lines} line(s), the store remembers {lines}: the ledger was taken"
                f" away or replaced, or a kit keeps it elsewhere; {self._log.remedy}"
            )

    def _take_in(self, entry: Entry) -> None:
        event = entry.get("event")
        if event == "opened":
            self._register = Register(str(entry["key"]))
        elif event == "cohort":
            self._register.take_in(entry["cohort"], entry["persons"])
        elif event == "plan":
            self.plans[entry["run"]] = entry
        elif event == "reserved":
            self.spendings.append(spending_of(entry))
            self._open[entry["task"]] = self.spendings[-1]
        elif event == "released" and (made := self._open.pop(entry["task"], None)):
            self._released[made.run, made.round, made.mechanism] += 1

    def cohort_of(self, persons: Sequence[Person]) -> str:
        """Return the name of these persons together."""
        return self._register.name_of(persons)

    def _cohort(self, persons: Sequence[Person]) -> str:
        """Return the name of these persons together; new ones get a line."""
        name = self.cohort_of(persons)
        if name not in self.cohorts:
            self._append({"event": "cohort", "cohort": name, "persons": self._register.told(persons)})
        return name
