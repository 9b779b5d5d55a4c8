# SPDX-License-Identifier: Apache-2.0
"""Norms of PETs, and what a familiar MRI is, made of the sites' sums at the end of a run.

A site's sums lie on the disk only until all have answered, and are added in the order of site names. What is
kept is a file of all of them together; once it is there, it is not made again.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from pasta_model.config import Settings
from pasta_model.errors import ExchangeError, FederationError, PastaError
from pasta_model.exchange.contents import REFERENCE, Parcel, Value
from pasta_model.exchange.reference import ReferenceReport, ReferenceTask, Sums
from pasta_model.familiarity.model import Familiarity, save_familiarity
from pasta_model.familiarity.sums import FeatureSums
from pasta_model.federated_sections import Reference
from pasta_model.files import atomic_path
from pasta_model.norms.model import Norms
from server.members import Members
from server.watch import Watch
from server.wire import Post

ABOUT = "federation"  # in the metadata of both files
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """Whose sums a file is made of; `settings` is the digest of the run's."""

    sites: tuple[str, ...]
    persons: int
    run: str
    settings: str


class References:
    """Asks for sums over persons, and makes files of them.

    Parameters
    ----------
    post
        The way to the nodes.
    settings, folder, members, watch
        Of the run.
    """

    def __init__(
        self, post: Post, settings: Settings, *, folder: Path, members: Members, watch: Watch
    ) -> None:
        self.post = post
        self.settings = settings
        self.folder = folder
        self.members = members
        self.watch = watch

    def gather(self) -> dict[str, list[str]]:
        """Make `norms.safetensors` and `familiarity.safetensors`, where the run asks for them.

        Returns
        -------
        The sites whose sums are in each; none where it could not be made, which does not end the run.
        """
        found: dict[str, list[str]] = {}
        for what in self.settings.federation.references:
            path = self.folder / f"{what}.safetensors"
            there = origin_of(path)
            if there is None:
                there = self._made(what, path)
            else:
                self.watch.reference(what, sites=list(there.sites), persons=there.persons)
            found[what] = [] if there is None else list(there.sites)
        return found

    def _made(self, what: Reference, path: Path) -> Origin | None:
        """Ask, add up, fit and write; None, and why in the status, where that cannot be done."""
        self.watch.stands(f"gathering sums for {what}")
        left_out: dict[str, str] = {}
        try:
            with TemporaryDirectory(prefix=".partial-", dir=self.folder) as kept:
                told = self._asked(what, Path(kept), left_out)
                origin = self._written(path, told, Path(kept))
        except PastaError as error:
            logger.warning("no %s: %s", path.name, error)
            self.watch.reference(what, sites=[], persons=0, left_out=left_out, why=str(error))
            return None
        self.watch.reference(what, sites=list(origin.sites), persons=origin.persons, left_out=left_out)
        logger.info("%s: %d persons of %s", path.name, origin.persons, ", ".join(origin.sites))
        return origin

    def _asked(self, what: Reference, kept: Path, left_out: dict[str, str]) -> dict[str, dict[str, Value]]:
        """Ask all sites that train and lay their arrays down; return their values, note who is left out."""
        nodes, training = self.post.nodes(), self.members.training
        tasks = {
            name: (member.node, ReferenceTask(name, what).parcel())
            for name, member in training.items()
            if member.node in nodes
        }
        told: dict[str, dict[str, Value]] = {}
        left_out |= dict.fromkeys(sorted(training.keys() - tasks.keys()), "not connected")
        for name, answer in self.post.ask(tasks, REFERENCE) if tasks else ():
            try:
                parcel = self._checked(answer, ReferenceTask(name, what))
            except ExchangeError as error:
                logger.warning("no sums for %s from site %s: %s", what, name, error)
                left_out[name] = str(error)
                continue
            with atomic_path(kept / f"{name}.safetensors") as temporary:
                save_file(parcel.arrays, temporary)
            told[name] = parcel.values
        return dict(sorted(told.items()))

    def _checked(self, answer: Parcel | str, task: ReferenceTask) -> Parcel:
        """Return an answer that can be used."""
        if isinstance(answer, str):
            raise ExchangeError(answer)
        report = ReferenceReport.of(answer)
        if (report.site, report.what) != (task.site, task.what):
            raise ExchangeError(f"answered for site {report.site!r}, {report.what}")
        report.refuse_other(self.settings)
        known = self.members.joined[task.site].report.train_subjects
        if report.persons > known:
            raise ExchangeError(f"sums over {report.persons:,} persons, joined with {known:,} subjects")
        return report.parcel()

    def _written(self, path: Path, told: Mapping[str, dict[str, Value]], kept: Path) -> Origin:
        wanted = self.settings.federation.min_sites
        if len(told) < wanted:
            raise FederationError(
                f"sums of {len(told)} site(s) ({', '.join(told) or 'none'}), wanted at least {wanted}"
            )
        total = _added(
            ReferenceReport.of(Parcel(values, load_file(kept / f"{name}.safetensors"))).sums
            for name, values in told.items()
        )
        origin = Origin(tuple(told), total.count, self.settings.run.name, self.settings.digest())
        _write(path, total, origin, spacing=self.settings.data.spacing)
        return origin


def origin_of(path: Path) -> Origin | None:
    """Read whose sums a file is made of; None where there is no such file."""
    try:
        with safe_open(path, framework="numpy") as file:
            about: dict[str, Any] = json.loads(file.metadata()[ABOUT])
        return Origin(tuple(about["sites"]), about["persons"], about["run"], about["settings"])
    except (OSError, SafetensorError, LookupError, TypeError, ValueError):
        return None


def _added(parts: Iterable[Sums]) -> Sums:
    """Add sums one after the other, so that never more than two are in memory."""
    total: Any = None
    for part in parts:
        total = part if total is None else total + part
    assert total is not None, "a sum has at least one part"
    return total  # type: ignore[no-any-return]


def _write(path: Path, total: Sums, origin: Origin, *, spacing: float) -> None:
    """Fit, and write what was fitted with whose it is; `spacing` is that of the MRIs in mm."""
    with atomic_path(path) as temporary:
        if isinstance(total, FeatureSums):
            save_familiarity(temporary, Familiarity.of(total, spacing=spacing))
        else:
            Norms.of(total, sites=origin.sites).save(temporary)
        with safe_open(temporary, framework="numpy") as file:
            metadata = file.metadata()
        tensors = load_file(temporary)
        save_file(tensors, temporary, metadata=metadata | {ABOUT: json.dumps(vars(origin))})
