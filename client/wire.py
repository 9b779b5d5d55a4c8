# SPDX-License-Identifier: Apache-2.0
"""Between Flower's messages and our parcels, at the site's end."""

from typing import cast

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict

from pasta_model.errors import ExchangeError
from pasta_model.exchange.contents import Parcel, Refusal, Value

ARRAYS, VALUES = "arrays", "values"
REFUSED = 100  # Flower leaves codes from 100 to applications


def parcel_of(message: Message) -> Parcel:
    """Take the parcel out of a message.

    Raises
    ------
    ExchangeError
        When the message holds anything besides arrays and values.
    """
    extra = set(message.content) - {ARRAYS, VALUES}
    if extra:
        raise ExchangeError(f"a message holds records {sorted(extra)}, wanted {ARRAYS} and {VALUES}")
    arrays = message.content.array_records.get(ARRAYS, ArrayRecord())
    values = message.content.config_records.get(VALUES, ConfigRecord())
    buffers = {name: array.numpy() for name, array in arrays.items()}
    return Parcel(cast("dict[str, Value]", dict(values)), buffers)


def reply(parcel: Parcel, message: Message) -> Message:
    """Answer a message with a parcel."""
    arrays = ArrayRecord({name: Array(buffer) for name, buffer in parcel.arrays.items()})
    content = RecordDict({ARRAYS: arrays, VALUES: ConfigRecord(dict(parcel.values))})
    return Message(content, reply_to=message)


def refuse(refusal: Refusal, message: Message) -> Message:
    """Answer a message with a refusal, which holds no text of the site's."""
    return Message(Error(REFUSED, refusal.text), reply_to=message)
