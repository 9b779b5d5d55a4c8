# SPDX-License-Identifier: Apache-2.0
"""What a reply contains, and what of it may leave.

Nothing that the site's code has packed is passed on as it is: a reply is taken apart into plain values and
arrays, those are checked, and a new message is packed from them. So nothing can hide in names of records,
metadata, headers of arrays or bytes behind their end.
"""

import builtins
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flwr.app import Error, Message
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import NoObjectInStoreError, ObjectStore

from client.policy import Policy
from client.reference import contributors, refuse_few
from client.wire import ARRAYS, REFUSED, VALUES, parcel_of, reply
from pasta_model.config import Settings
from pasta_model.data.store import SiteStore
from pasta_model.errors import BudgetError, ExchangeError, PastaError, PrivacyError, StaleWeightsError
from pasta_model.exchange.contents import (
    EVALUATE,
    JOIN,
    METRICS,
    REFERENCE,
    SITES,
    TRAIN,
    Parcel,
    Refusal,
    SiteReport,
)
from pasta_model.exchange.departure import check_departure
from pasta_model.exchange.reference import ReferenceReport
from pasta_model.federated_sections import Reference

STALLED_SECONDS = 300.0  # Flower drops a reply whose parts stop coming after 180
POLL_SECONDS = 0.2

# Flower's own codes, and what leaves in place of their text: an exception's text may name a patient.
FLOWER_ERRORS = {
    0: "UnknownError",
    1: "AppNotLoaded",
    2: "AppRaised",
    3: "MessageUnavailable",
    4: "ReplyUnavailable",
    5: "NodeUnavailable",
    6: "ModFailed",
    7: "BundleError",
    8: "AppCrashed",
}
ANY_KIND = "Error"  # of which nothing is told
QUIET_KINDS = frozenset(kind.__name__ for kind in (BudgetError, PrivacyError, StaleWeightsError))
_REFUSAL = re.compile(r"(\w+) \(reference ([0-9a-f]{8}) in the site's log\)")


@dataclass(frozen=True)
class Here:
    """The site as it is now: its name, how many subjects it has, what it allows.

    `contributors` are the persons of whom it may send sums, by what the sums are for.
    """

    site: str
    train_subjects: int
    valid_subjects: int
    contributors: Mapping[Reference, int]
    policy: Policy

    def covered(self, metric: str, *, kind: str) -> int:
        """Subjects that a metric is measured on; counted here, not taken from the report."""
        if kind == "evaluate" or metric.startswith("valid"):
            return self.valid_subjects or self.train_subjects
        return self.train_subjects


@dataclass(frozen=True)
class Departure:
    """A reply that may leave, and what was kept back of it."""

    parcel: Parcel
    withheld: tuple[str, ...]


@dataclass(frozen=True)
class Packed:
    """A message whose parts lie in the store, with its figures for the log."""

    message: Message
    objects: frozenset[str]
    bytes: int
    content: str


def look_at(store: SiteStore, policy: Policy) -> Here:
    """Count who is at the site."""
    train, valid = (len(store.persons(split)) for split in ("train", "valid"))
    return Here(store.site, train, valid, contributors(store), policy)


def read_reply(message: Message, store: ObjectStore) -> Parcel:
    """Take a reply of the site's code out of Flower's store, and leave nothing of it there.

    Raises
    ------
    ExchangeError
        When it is not whole, or holds anything besides plain values and arrays.
    """
    identity = message.metadata.message_id
    try:
        contents = _contents(identity, store)
        store.delete(identity)
        whole = inflate_object_from_contents(identity, contents)
    except (NoObjectInStoreError, KeyError, ValueError, TypeError) as error:
        raise ExchangeError(f"the reply is not whole or not a message: {error}") from error
    if not isinstance(whole, Message) or not whole.has_content():
        raise ExchangeError(f"the reply is a {type(whole).__name__} without content")
    records = whole.content
    extra = {
        ARRAYS: set(records.array_records),
        VALUES: set(records.config_records),
        "": set(records.metric_records),
    }
    for name, found in extra.items():
        if wrong := found - {name}:
            raise ExchangeError(f"the reply holds records {sorted(wrong)}; wanted {ARRAYS} and {VALUES}")
    return parcel_of(whole)


def check_reply(kind: str, parcel: Parcel, settings: Settings, here: Here) -> Departure:
    """Let pass what is exactly of its type, without what the policy keeps back.

    Raises
    ------
    ExchangeError
        When the reply is not of the type that was asked for, or names another site.
    PolicyError
        When it holds sums over persons that the policy keeps back.
    """
    check_departure(kind, parcel, settings)
    named = parcel.values["sites"] if kind == SITES else [parcel.values["site"]]
    if named != [here.site]:
        raise ExchangeError(f"the reply names {named!r}, this is {here.site!r}")
    if kind == JOIN:
        return _without_small_sums(parcel, here.policy.metrics_min_subjects)
    if kind == REFERENCE:
        return Departure(_allowed_sums(ReferenceReport.of(parcel), here), ())
    withheld = tuple(
        name
        for name in METRICS
        if name in parcel.values and not here.policy.may_leave(name, subjects=here.covered(name, kind=kind))
    )
    kept = {name: value for name, value in parcel.values.items() if name not in withheld}
    return Departure(replace(parcel, values=kept), withheld)


def refusal_of(error: Error, *, quiet: bool = False) -> tuple[Error, bool]:
    """Return what leaves in place of an error, and whether its text was one of ours already.

    `quiet`: of its kind, only what depends on nobody's data (see `is_quiet`).
    """
    found = _REFUSAL.fullmatch(error.reason or "")
    ours = found if error.code == REFUSED and found and found[1] in _known_kinds() else None
    if quiet:
        kind = quiet_kind(ours[1]) if ours else ANY_KIND
        return Error(REFUSED, Refusal(kind, ours[2] if ours else new_reference()).text), ours is not None
    if ours:
        return error, True
    code = error.code if error.code in FLOWER_ERRORS else REFUSED
    refusal = Refusal(FLOWER_ERRORS.get(error.code, ANY_KIND), new_reference())
    return Error(code, refusal.text), False


def is_quiet(kind: str, settings: Settings) -> bool:
    """Whether a question reads persons' data in a private run, where even the kind of an error could tell."""
    return settings.privacy.unit == "subject" and kind in (TRAIN, EVALUATE)


def quiet_kind(kind: str) -> str:
    """Return the kind of an error that may leave where another could tell who was drawn."""
    return kind if kind in QUIET_KINDS else ANY_KIND


def new_reference() -> str:
    """Return a reference between what left and the site's own log."""
    return uuid.uuid4().hex[:8]


def reference_in(error: Error) -> str:
    """Return the reference in an error's text; empty when it has none."""
    found = _REFUSAL.fullmatch(error.reason or "")
    return found[2] if found else ""


def pack(parcel_or_error: Parcel | Error, asked: Message, store: ObjectStore) -> Packed:
    """Answer `asked` with a message of our own making, and lay its parts into the store.

    All that the message says about itself comes from what was asked, nothing from the site's code.
    """
    if isinstance(parcel_or_error, Error):
        answer = Message(parcel_or_error, reply_to=asked)
    else:
        answer = reply(parcel_or_error, asked)
    with no_object_id_recompute():
        answer.metadata.__dict__["_message_id"] = answer.object_id
        store.preregister(answer.metadata.run_id, get_object_tree(answer))
        objects = get_all_nested_objects(answer)
        size = 0
        for identity, part in objects.items():
            packed = part.deflate()
            store.put(identity, packed)
            size += len(packed)
        content = answer.content.object_id if answer.has_content() else ""
    return Packed(answer, frozenset(objects), size, content)


def _contents(identity: str, store: ObjectStore) -> dict[str, bytes]:
    """Collect the parts of a reply as they come; a process that dies half-way is not waited for."""
    contents: dict[str, bytes] = {}
    for part in iterate_object_tree(store.get_object_tree(identity)):
        end = time.monotonic() + STALLED_SECONDS
        while not (content := store.get(part.object_id)):
            if content is None or time.monotonic() > end:
                raise ExchangeError("the site's code did not deliver the whole reply")
            time.sleep(POLL_SECONDS)
        contents[part.object_id] = content
    return contents


def _without_small_sums(parcel: Parcel, smallest: int) -> Departure:
    """Keep back sums over so few subjects that they would tell the values."""
    report = SiteReport.of(parcel)
    few = (report.moments.count > 0) & (report.moments.count < smallest)
    if not few.any():
        return Departure(parcel, ())
    kept = replace(report, moments=report.moments.without_few(smallest))
    return Departure(kept.parcel(), (f"sums of {int(few.sum())} columns",))


def _allowed_sums(report: ReferenceReport, here: Here) -> Parcel:
    """Let pass sums over enough persons, and over no more than there are."""
    here.policy.refuse_reference()
    refuse_few(report.persons, here.policy)
    known = here.contributors[report.what]
    if report.persons > known:
        raise ExchangeError(f"sums over {report.persons} persons for {report.what}; {known} can be here")
    return report.parcel()


def _known_kinds() -> frozenset[str]:
    """Names of exceptions that say nothing about a patient: ours, Python's, and a full GPU's."""
    own, found = [PastaError], set[str]()
    while own:
        kind = own.pop()
        found.add(kind.__name__)
        own += kind.__subclasses__()
    python = {name for name, kind in vars(builtins).items() if _is_exception(kind)}
    return frozenset(found | python | {"OutOfMemoryError"})


def _is_exception(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)
