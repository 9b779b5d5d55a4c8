# SPDX-License-Identifier: Apache-2.0
"""A ServerApp as Flower's PyTorch quickstart writes it."""

import json
import time
from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from plain.task import make_network

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """FedAvg over the state dict, training and evaluation in every round."""
    marks = Path(str(context.run_config["marks"]))

    def at_end_of_round(number: int, arrays: ArrayRecord) -> MetricRecord | None:  # noqa: ARG001
        """Flower calls this before the first round (0) and at the end of each."""
        with marks.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), "round": number}) + "\n")
        return None

    network = make_network(str(context.run_config["size"]))
    result = FedAvg().start(
        grid=grid,
        initial_arrays=ArrayRecord(network.state_dict()),
        num_rounds=int(context.run_config["num-server-rounds"]),
        evaluate_fn=at_end_of_round,
    )
    torch.save(result.arrays.to_torch_state_dict(), str(context.run_config["output"]))
