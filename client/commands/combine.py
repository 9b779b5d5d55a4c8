# SPDX-License-Identifier: Apache-2.0
"""`pasta-client combine`: the federation's model with the parts that this site kept to itself."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def combine(
    model: Annotated[Path, Argument(help="The federation's model, from the coordinator.")],
    store: Annotated[Path, Argument(help="This site's prepared store; its memory lies in it.")],
    output: Annotated[Path, Argument(help="The site's own model: a new file.")],
    *,
    run: Annotated[str, Option(help="Name of the run; by default the model's.")] = "",
) -> None:
    """Put this site's personal parts into the federation's model, for synthesis here."""
    from rich.console import Console

    from client.memory import combined_model
    from pasta_model.checkpoint import load_checkpoint, save_checkpoint
    from pasta_model.errors import ConfigError

    if output.exists():
        raise ConfigError(f"{output}: is there already; choose another name")
    checkpoint, names = combined_model(load_checkpoint(model), store, run=run)
    save_checkpoint(output, checkpoint)
    Console(soft_wrap=True).print(f"{output}: with {len(names)} tensors of this site's own", markup=False)
