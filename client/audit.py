# SPDX-License-Identifier: Apache-2.0
"""A site's log of every exchange, a chained line each."""

from pathlib import Path

from client.chain import ChainedLog
from pasta_model.errors import AuditError


class AuditLog(ChainedLog):
    """The log of a site; several processes may write to it.

    Parameters
    ----------
    path
        The JSON lines; `.head`, `.lock` and `.torn` are added to its name for the files beside it.
    site, consortium
        Whose log it is: the chain begins with them.
    """

    error = AuditError
    unwritable = "nothing leaves until it can"
    remedy = "see 'pasta-client audit'; keep the log and its head aside to begin another"

    def __init__(self, path: Path, *, site: str, consortium: str) -> None:
        super().__init__(path, whose=f"{consortium}\n{site}")
