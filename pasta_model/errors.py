# SPDX-License-Identifier: Apache-2.0
"""What a user can do wrong: one class a kind, one clear message each.

A message says what was found, what was wanted and what to do. The command lines turn any
`PastaError` into that message and exit status 2; anything else is our own mistake and keeps
its traceback.
"""

from collections.abc import Iterator


class PastaError(Exception):
    """Base of every mistake that a user can mend."""


class ConfigError(PastaError):
    """A setting is unknown, of the wrong type or impossible."""


class VolumeError(PastaError):
    """A scan cannot be read, or is not what it should be."""


class ManifestError(PastaError):
    """A table of subjects has rows that cannot be used."""


class SplitError(PastaError):
    """A subject would be in two splits, or a split would be empty."""


class StoreError(PastaError):
    """A prepared site is missing, incomplete or made with other settings."""


class CheckpointError(PastaError):
    """A file of weights is missing, damaged or of another model."""


class ExchangeError(PastaError):
    """A message between a site and the server is not what was agreed."""


class StaleWeightsError(ExchangeError):
    """A site does not have the weights that it is sent a difference to."""


class TrainingError(PastaError):
    """Training cannot go on, for example because the loss is not finite."""


class FederationError(PastaError):
    """The federation cannot start or go on: too few sites, or a run that failed."""


class PolicyError(PastaError):
    """A run, or a reply to it, is not what the site's policy allows."""


class BundleError(PastaError):
    """A bundle of code is damaged, or the site has not approved it."""


class AuditError(PastaError):
    """A site's log of exchanges is not whole, or cannot be written."""


class PrivacyError(PastaError):
    """Privacy that is impossible, or a ledger that is not what it should be; nothing was spent."""


class BudgetError(PrivacyError):
    """The next step would spend more than is left; it was not taken."""


class BusyError(PastaError):
    """Another process is at work on the same folder or file."""


class MemoryShortageError(PastaError):
    """The machine has not enough memory for what is asked of it."""


class Problems:
    """Collect every problem first, then raise them together.

    A hospital with 40 bad rows sees 40 lines, once.
    """

    def __init__(self, heading: str) -> None:
        self.heading = heading
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Note one problem."""
        self._lines.append(line)

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def raise_if_any(self, kind: type[PastaError]) -> None:
        """Raise `kind` with all the problems, one a line, when there is at least one."""
        if self._lines:
            body = "\n".join(f"  - {line}" for line in self._lines)
            raise kind(f"{self.heading}: {len(self._lines)} problem(s)\n{body}")
