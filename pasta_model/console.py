# SPDX-License-Identifier: Apache-2.0
"""What all command lines share: clear mistakes, exit statuses, progress bars."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import NoReturn, ParamSpec, TypeVar

import click
import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pasta_model.errors import MemoryShortageError, PastaError

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130

P = ParamSpec("P")
T = TypeVar("T")


class _Resumable(Exception):  # noqa: N818 - no mistake
    """Ctrl-C stopped a command that goes on when it is given again."""


def resumable(command: Callable[P, T]) -> Callable[P, T]:
    """Declare that a command, given again, goes on where Ctrl-C stopped it; others have written nothing."""

    @wraps(command)
    def run(*args: P.args, **options: P.kwargs) -> T:
        try:
            return command(*args, **options)
        except (KeyboardInterrupt, click.Abort):
            raise _Resumable from None

    return run


def run_command(app: typer.Typer) -> None:
    """Run a command line; a user's mistake is one message and exit status 2, never a traceback.

    Ctrl-C is answered with what is left: a command is `resumable`, or writes all at its end or nothing.
    """
    errors = Console(stderr=True, soft_wrap=True)
    try:
        status = typer.main.get_command(app)(standalone_mode=False)
    except PastaError as error:
        _refuse(errors, error)
    except click.ClickException as error:  # a wrong option or argument
        error.show()
        sys.exit(error.exit_code)
    except _Resumable:
        errors.print("stopped; the same command goes on from here", markup=False)
        sys.exit(EXIT_INTERRUPTED)
    except (KeyboardInterrupt, click.Abort):
        status = EXIT_INTERRUPTED
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        _refuse(errors, _shortage(error))
    if status == EXIT_INTERRUPTED:  # typer's own answer to Ctrl-C
        errors.print("stopped; nothing was written", markup=False)
    sys.exit(status if isinstance(status, int) else 0)


def _refuse(errors: Console, error: PastaError) -> NoReturn:
    errors.print("[bold red]error:[/] ", end="")
    errors.print(str(error), markup=False, highlight=False)
    sys.exit(EXIT_MISTAKE)


def _out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, of the machine or of the GPU; torch is not imported for it."""
    torch = sys.modules.get("torch")
    kinds = (MemoryError, torch.OutOfMemoryError) if torch else (MemoryError,)
    return isinstance(error, kinds) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def _shortage(error: Exception) -> MemoryShortageError:
    said = (str(error) or "out of memory").splitlines()[0]
    return MemoryShortageError(
        f"memory ran out ({said}); use a smaller batch, fewer --workers or coarser voxels, or a machine or"
        " GPU with more memory"
    )


def log_to_console(*, verbose: bool) -> None:
    """Send warnings, or everything, to standard error."""
    level = logging.INFO if verbose else logging.WARNING
    handler = RichHandler(console=Console(stderr=True), show_path=False)
    logging.basicConfig(level=level, format="%(message)s", handlers=[handler])


@contextmanager
def progress_bar(console: Console, label: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function of (done, total) that shows progress: a bar, or lines where no one watches."""
    if not console.is_terminal:
        yield _progress_lines(console, label)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=None)

        def move(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield move


def _progress_lines(console: Console, label: str) -> Callable[[int, int], None]:
    """Print a line at each fifth of the way, for logs."""
    said = -1

    def move(done: int, total: int) -> None:
        nonlocal said
        fifth = 5 * done // max(total, 1)
        if fifth > said and done:
            said = fifth
            console.print(f"{label}: {done} of {total}", markup=False, highlight=False)

    return move
