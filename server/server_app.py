# SPDX-License-Identifier: Apache-2.0
"""The ServerApp: settings, rounds, result."""

import logging
import sys
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from pasta_model.config import settings_from_flat
from pasta_model.errors import PastaError
from pasta_model.locks import only_one
from server.rounds import Federation
from server.wire import GridPost

LAST_BREATH_S, QUESTION_S = 120.0, 120.0
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation that the run configuration describes."""
    _log_to_the_run()
    try:
        settings = settings_from_flat(context.run_config)
        f = settings.federation
        post = GridPost(grid, deadline=f.round_deadline, query_deadline=QUESTION_S)
        # An earlier ServerApp that was told to stop may still live for a moment.
        with only_one(Path(settings.run.output), wait_s=LAST_BREATH_S):
            Federation(post, settings).run()
    except PastaError as error:
        # A user's mistake: one clear message. Flower takes SystemExit for success, so the run must end
        # with an exception; its frames would say nothing to whoever made the mistake.
        logging.getLogger(__name__).error("%s", error)
        sys.tracebacklimit = 0
        raise


def _log_to_the_run() -> None:
    """Send our own log, and nobody else's, to the output that `flwr run --stream` shows."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in ("server", "pasta_model"):
        ours = logging.getLogger(name)
        ours.handlers, ours.propagate = [handler], False
        ours.setLevel(logging.INFO)
