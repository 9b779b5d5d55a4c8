# SPDX-License-Identifier: Apache-2.0
"""`pasta-client start`: take part in a consortium, behind the site's own gate."""

from pathlib import Path
from typing import Annotated

import typer


def start(
    kit: Annotated[Path, typer.Argument(help="The kit's site.toml.")],
) -> None:
    """Take part: run approved code only, under the site's policy, and log every exchange.

    Goes on until it is stopped with Ctrl-C; the same command goes on from there.
    """
    from client.guard.supernode import start as start_guarded
    from client.kit import read_kit

    start_guarded(read_kit(kit))
