# SPDX-License-Identifier: Apache-2.0
"""The ClientApp of a site: unpack the message, call the site, pack the reply.

No text of an exception leaves the site: the server gets a kind of error and a reference to the log.
"""

import logging
import uuid
from collections.abc import Callable

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.site import Site, local_sites
from client.wire import parcel_of, refuse, reply
from pasta_model.config import settings_from_flat
from pasta_model.errors import ExchangeError, PastaError
from pasta_model.exchange.contents import Invitation, NodeReport, Parcel, Refusal, TrainTask

logger = logging.getLogger(__name__)
app = ClientApp()


@app.query("sites")
def sites(message: Message, context: Context) -> Message:
    """Name the sites that this node serves."""

    def answer() -> Parcel:
        settings = settings_from_flat(context.run_config)
        return NodeReport(tuple(sorted(local_sites(settings, context.node_config)))).parcel()

    return _guarded(answer, message)


@app.query("join")
def join(message: Message, context: Context) -> Message:
    """Tell counts and clinical sums of a site."""

    def answer() -> Parcel:
        return _site(context, Invitation.of(parcel_of(message)).site).report().parcel()

    return _guarded(answer, message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the received weights on a site's slabs."""

    def answer() -> Parcel:
        task = TrainTask.of(parcel_of(message))
        return _site(context, task.site).train(task).parcel()

    return _guarded(answer, message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Measure the received weights on a site's validation slabs."""

    def answer() -> Parcel:
        task = TrainTask.of(parcel_of(message))
        return _site(context, task.site).evaluate(task).parcel()

    return _guarded(answer, message)


def _site(context: Context, name: str) -> Site:
    settings = settings_from_flat(context.run_config)
    paths = local_sites(settings, context.node_config)
    if name not in paths:
        raise ExchangeError(f"asked for site {name!r}, this node serves {sorted(paths)}")
    return Site(paths[name], settings)


def _guarded(answer: Callable[[], Parcel], message: Message) -> Message:
    """Answer, or refuse with nothing but the kind of error and a reference to the local log."""
    try:
        return reply(answer(), message)
    except Exception as error:  # the text may hold paths or names: it stays here
        reference = uuid.uuid4().hex[:8]
        known = isinstance(error, PastaError)
        logger.error("refused, reference %s: %s", reference, error, exc_info=not known)
        return refuse(Refusal(type(error).__name__, reference), message)
