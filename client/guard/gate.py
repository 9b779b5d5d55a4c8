# SPDX-License-Identifier: Apache-2.0
"""The gate of a site: every message passes it on its way in, every reply on its way out.

On the way in a message is refused, or handed to Flower with exactly the code and settings that were judged.
On the way out a reply is packed anew from what may leave, or replaced by a refusal. Approvals, policy and
store are read again for each, so what the site changes holds from the next message on; what cannot be read
refuses.
"""

import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from flwr.app import Error, Message
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.fab import Fab
from flwr.supercore.object_store import ObjectStore
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supernode.nodestate import NodeState

from client.approvals import keep_waiting, read_approved, waiting_bundle
from client.audit import AuditLog
from client.bundles import digest_of
from client.guard.admission import Order, check_bundle, check_context, check_kind, check_policy, settings_of
from client.guard.inspection import (
    Here,
    Packed,
    check_reply,
    is_quiet,
    look_at,
    new_reference,
    pack,
    quiet_kind,
    read_reply,
    reference_in,
    refusal_of,
)
from client.guard.once import check_once
from client.guard.paid import check_paid
from client.guard.passage import Outbox, Traffic
from client.kit import Kit
from client.policy import read_policy
from client.tables import file_digest
from client.wire import REFUSED
from pasta_model.config import Settings
from pasta_model.data.store import SiteStore
from pasta_model.errors import AuditError, BundleError, PastaError
from pasta_model.exchange.contents import TRAIN, Parcel, Refusal

INVALID_BUNDLE = 7  # Flower's code for it
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """A message that was let in, and what its answer is measured by."""

    message: Message
    bundle: str
    settings: Settings

    @property
    def kind(self) -> str:
        """Type of the message."""
        return self.message.metadata.message_type


class Gate:
    """The gate of one site.

    Parameters
    ----------
    kit
        Of the site.
    log
        Where every exchange is written before it happens; without it nothing passes.
    """

    def __init__(self, kit: Kit, log: AuditLog) -> None:
        self.kit = kit
        self.log = log
        self.failure: AuditError | None = None
        self._requests: dict[str, Request] = {}
        self._refusals: dict[str, Packed] = {}
        self._trained = defaultdict[str, set[str]](set)  # updates by run; one that is sent again is one
        for entry in log.entries():
            if (entry["event"], entry.get("kind")) == ("sent", TRAIN):
                self._trained[entry["run"]].add(entry["content"])

    def pull(
        self,
        original: Callable[..., int | None],
        *,
        state: NodeState,
        object_store: ObjectStore,
        receive: Callable[[], tuple[Message, ObjectTree] | None],
        get_run: Callable[[int], Run],
        get_fab: Callable[[str, int], Any],
        pull_object: Callable[[int, str], bytes],
        **others: Any,
    ) -> int | None:
        """Stand in for Flower's function that takes in the next message."""
        try:
            if (received := receive()) is None:
                return None
            message, tree = received
            run_id = message.metadata.run_id
            known = state.get_run(run_id)
            run = known or get_run(run_id)
            fab = (state.get_fab(run.fab_hash) if known else None) or self._waiting(run)
            order = Order(message, run, fab or get_fab(run.fab_hash, run_id))
        except RunNotRunningException:
            return None
        try:
            request = self._admit(order, state, known=known is not None)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong here, the message stays out
            self._refuse(order, error, state, object_store)
            return run_id
        traffic = Traffic(pull_object)
        passed = original(
            state=state,
            object_store=object_store,
            receive=lambda: (message, tree),
            get_run=lambda _: run,
            get_fab=lambda *_: order.fab,
            pull_object=traffic.pull,
            **others,
        )
        if passed is not None:
            self._requests[message.metadata.message_id] = request
            content = tree.children[0].object_id if tree.children else ""
            figures = {"bytes": traffic.bytes, "arrays": traffic.arrays, "content": content}
            self._note("received", "in", message, bundle=request.bundle, **figures)
        return passed

    def push(
        self,
        original: Callable[..., None],
        *,
        state: NodeState,
        object_store: ObjectStore,
        send: Callable[[Message, ObjectTree, float], tuple[set[str], str]],
        push_object: Callable[[int, str, str, bytes], None],
    ) -> None:
        """Stand in for Flower's function that sends replies: it sees only what may leave."""
        outbox = Outbox(partial(self.depart, state=state, store=object_store), state)

        def send_cleared(message: Message, tree: ObjectTree, _: float) -> tuple[set[str], str]:
            if message.metadata.message_id not in outbox.messages:
                raise AssertionError("Flower would send a message that the guard has not packed")
            return send(message, tree, 0.0)

        def push_cleared(run_id: int, session: str, identity: str, content: bytes) -> None:
            if identity not in outbox.objects:
                raise AssertionError("Flower would send an object that the guard has not packed")
            push_object(run_id, session, identity, content)

        original(state=outbox, object_store=object_store, send=send_cleared, push_object=push_cleared)

    def depart(self, message: Message, state: NodeState, store: ObjectStore) -> Packed | None:
        """Return what leaves in place of a reply that waits to be sent; None when nothing does."""
        metadata = message.metadata
        if (refused := self._refusals.pop(metadata.message_id, None)) is not None:
            return refused
        request = self._requests.pop(metadata.reply_to_message_id, None)
        state.delete_messages(message_ids=[metadata.message_id])
        if request is None:
            store.delete(metadata.message_id)
            logger.warning("a reply came that nobody waits for; it stays here")
            return None
        if message.has_error():
            store.delete(metadata.message_id)
            return self._failed(request, message.error, store)
        try:
            return self._release(request, message, store)
        except AuditError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever goes wrong here, the reply stays here
            store.delete(metadata.message_id)
            refusal = self._refusal(error, quiet=is_quiet(request.kind, request.settings))
            self._note("refused", "out", request.message, bundle=request.bundle, **_why(error, refusal))
            return pack(Error(REFUSED, refusal.text), request.message, store)

    def _admit(self, order: Order, state: NodeState, *, known: bool) -> Request:
        """1. type, 2. code, 3. settings, 4. policy; only then Flower sees the message."""
        check_kind(order.message)
        check_bundle(order, read_approved(self.kit.guard.approved))
        flat, settings = settings_of(order)
        context = state.get_run_series_context(order.run.series_id) if known else None
        check_context(context, run_config=flat, node_config=self.kit.node_config)
        trained = len(self._trained[str(order.run.run_id)])
        check_policy(settings, self._here(), kind=order.kind, trained=trained)
        return Request(order.message, digest_of(order.fab.content), settings)

    def _refuse(self, order: Order, error: Exception, state: NodeState, store: ObjectStore) -> None:
        """Let a refusal wait to be sent in place of an answer."""
        bundle, refusal = digest_of(order.fab.content), self._refusal(error)
        code = REFUSED
        if isinstance(error, BundleError):
            code = INVALID_BUNDLE
            self._tell_about(bundle, order.fab.content)
        self._note("refused", "in", order.message, bundle=bundle, **_why(error, refusal))
        packed = pack(Error(code, refusal.text), order.message, store)
        self._refusals[packed.message.metadata.message_id] = packed
        state.store_message(packed.message)

    def _waiting(self, run: Run) -> Fab | None:
        """Return a run's code from the quarantine, so that it is not fetched for every message."""
        content = waiting_bundle(self.kit.guard.quarantine, run.fab_hash)
        return None if content is None else Fab(run.fab_hash, content, {})

    def _tell_about(self, bundle: str, content: bytes) -> None:
        """Keep code that is not approved for a person to look at, and say how."""
        try:
            if bundle not in read_approved(self.kit.guard.approved):
                kept = keep_waiting(self.kit.guard.quarantine, content)
                how = f"look at it with: pasta-client approve {self.kit.path} {bundle}"
                logger.warning("code that is not approved: %s", how if kept else "larger than any bundle")
        except (OSError, PastaError) as error:
            logger.warning("code that is not approved could not be kept: %s", error)

    def _release(self, request: Request, message: Message, store: ObjectStore) -> Packed:
        """Check a reply, note what leaves, and pack it anew."""
        parcel = read_reply(message, store)
        departure = check_reply(request.kind, parcel, request.settings, self._here())
        paid = check_paid(request.kind, parcel, request.settings, self.kit, self.log)
        once = check_once(request.kind, departure.parcel, request.settings, self.log)
        packed = pack(departure.parcel, request.message, store)
        self._note(
            "sent",
            "out",
            request.message,
            bundle=request.bundle,
            bytes=packed.bytes,
            arrays=len(departure.parcel.arrays),
            content=packed.content,
            values=sorted(departure.parcel.values),
            withheld=list(departure.withheld),
            subjects=_subjects(departure.parcel),
            **paid,
            **once,
        )
        if request.kind == TRAIN:
            self._trained[str(request.message.metadata.run_id)].add(packed.content)
        return packed

    def _failed(self, request: Request, error: Error, store: ObjectStore) -> Packed:
        """Answer with an error of the site's code, without its text unless it is one of our refusals."""
        leaving, ours = refusal_of(error, quiet=is_quiet(request.kind, request.settings))
        reference = reference_in(leaving)
        if not ours:
            logger.error("reference %s: the site's code failed: %s", reference, error.reason)
        reason = "refused by the site's code" if ours else "the site's code failed; the text is in its log"
        figures = {"code": leaving.code, "reason": reason, "reference": reference}
        self._note("failed", "out", request.message, bundle=request.bundle, **figures)
        return pack(leaving, request.message, store)

    def _here(self) -> Here:
        return look_at(SiteStore(self.kit.site.store), read_policy(self.kit.guard.policy))

    def _refusal(self, error: Exception, *, quiet: bool = False) -> Refusal:
        """Name the kind of an error, and tell the site's log the rest."""
        known = isinstance(error, PastaError)
        kind = type(error).__name__ if known else "GuardError"
        refusal = Refusal(quiet_kind(kind) if quiet else kind, new_reference())
        logger.error("reference %s: %s", refusal.reference, error, exc_info=None if known else error)
        return refusal

    def _note(self, event: str, direction: str, message: Message, **figures: Any) -> None:
        """Write a line; when it cannot be written the site leaves the federation."""
        metadata, policy = message.metadata, self.kit.guard.policy
        entry = {
            "event": event,
            "direction": direction,
            "site": self.kit.site.name,
            "run": str(metadata.run_id),
            "kind": metadata.message_type,
            **figures,
            "policy": file_digest(policy) if policy.is_file() else "",
        }
        try:
            self.log.append(entry)
        except AuditError as error:
            self.failure = error
            raise


def _why(error: Exception, refusal: Refusal) -> dict[str, Any]:
    return {"code": refusal.code, "reason": str(error), "reference": refusal.reference}


def _subjects(parcel: Parcel) -> Any:
    names = ("subjects", "train-subjects", "persons")
    return next((parcel.values[name] for name in names if name in parcel.values), None)
