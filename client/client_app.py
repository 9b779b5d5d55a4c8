# SPDX-License-Identifier: Apache-2.0
"""The ClientApp of a site: unpack the message, answer it, pack the reply.

No text of an exception leaves the site: the server gets a kind of error and a reference to the log.
"""

import logging
import uuid

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.answers import answer
from client.wire import parcel_of, refuse, reply
from pasta_model.errors import PastaError
from pasta_model.exchange.contents import EVALUATE, JOIN, REFERENCE, SITES, TRAIN, Refusal

logger = logging.getLogger(__name__)
app = ClientApp()


@app.query("sites")
def sites(message: Message, context: Context) -> Message:
    """Name the sites that this node serves."""
    return _guarded(SITES, message, context)


@app.query("join")
def join(message: Message, context: Context) -> Message:
    """Tell counts and clinical sums of a site."""
    return _guarded(JOIN, message, context)


@app.query("reference")
def reference(message: Message, context: Context) -> Message:
    """Tell sums over a site's persons, for norms or familiarity."""
    return _guarded(REFERENCE, message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Measure the received weights and train them on a site's slabs."""
    return _guarded(TRAIN, message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Measure the received weights on a site's validation slabs."""
    return _guarded(EVALUATE, message, context)


def _guarded(kind: str, message: Message, context: Context) -> Message:
    """Answer, or refuse with nothing but the kind of error and a reference to the local log."""
    try:
        parcel = answer(
            kind, parcel_of(message), run_config=context.run_config, node_config=context.node_config
        )
        return reply(parcel, message)
    except Exception as error:
        reference = uuid.uuid4().hex[:8]
        known = isinstance(error, PastaError)
        logger.error("refused, reference %s: %s", reference, error, exc_info=not known)
        return refuse(Refusal(type(error).__name__, reference), message)
