# SPDX-License-Identifier: Apache-2.0
"""The fields of a message, each checked: names, digests, counts, finite numbers.

What is wrong raises ExchangeError, with what was found and what was wanted.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pasta_model.errors import ExchangeError


def finite(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse arrays with NaN or infinity."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ExchangeError(f"array {name!r} holds NaN or infinity; wanted finite numbers")


def text(value: object) -> str:
    """Return a name."""
    if not isinstance(value, str) or not value:
        raise ExchangeError(f"found {value!r} in a message, wanted a name")
    return value


def digest(value: object) -> str:
    """Return a SHA-256, or nothing."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}|", value):
        raise ExchangeError(f"found {value!r} in a message, wanted a SHA-256")
    return value


def count(value: object) -> int:
    """Return a count."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ExchangeError(f"found {value!r} in a message, wanted a count")
    return value


def number(value: object) -> float:
    """Return a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise ExchangeError(f"found {value!r} in a message, wanted a finite number")
    return float(value)


def floats(value: object) -> tuple[float, ...]:
    """Return a list of finite numbers."""
    if not isinstance(value, list):
        raise ExchangeError(f"found {value!r} in a message, wanted a list of numbers")
    return tuple(number(v) for v in value)
