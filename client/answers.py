# SPDX-License-Identifier: Apache-2.0
"""What a node answers to each kind of message; free of the transport."""

from collections.abc import Callable, Mapping
from pathlib import Path

from client.policy import read_policy
from client.site import Site, local_sites
from pasta_model.config import Scalar, settings_from_flat
from pasta_model.errors import ExchangeError
from pasta_model.exchange.contents import (
    EVALUATE,
    JOIN,
    REFERENCE,
    SITES,
    TRAIN,
    Invitation,
    NodeReport,
    Parcel,
    TrainTask,
)
from pasta_model.exchange.reference import ReferenceTask


def answer(
    kind: str, parcel: Parcel, *, run_config: Mapping[str, Scalar], node_config: Mapping[str, Scalar]
) -> Parcel:
    """Answer one message.

    Parameters
    ----------
    kind
        One of the message types of `exchange.contents`.
    run_config
        Flat settings of the run.
    node_config
        Of this node: which sites it serves (see `local_sites`), its policy file, its privacy ledger, and the
        device on which it trains, whatever the run says.

    Raises
    ------
    PastaError
        When the settings, the message or the site's data cannot be used.
    """
    here = {"training.device": node_config["device"]} if "device" in node_config else {}
    settings = settings_from_flat({**run_config, **here})
    paths = local_sites(settings, node_config)
    policy = read_policy(Path(str(node_config["policy"]))) if "policy" in node_config else None

    ledger = Path(str(node_config["ledger"])) if "ledger" in node_config else None

    def site(name: str) -> Site:
        return Site(_path_of(name, paths), settings, policy, ledger)

    def train(parcel: Parcel) -> Parcel:
        task = TrainTask.of(parcel)
        return site(task.site).train(task)

    def evaluate(parcel: Parcel) -> Parcel:
        task = TrainTask.of(parcel)
        return site(task.site).evaluate(task)

    def reference(parcel: Parcel) -> Parcel:
        asked = ReferenceTask.of(parcel)
        return site(asked.site).reference(asked)

    answers: dict[str, Callable[[Parcel], Parcel]] = {
        SITES: lambda _: NodeReport(tuple(sorted(paths))).parcel(),
        JOIN: lambda parcel: site(Invitation.of(parcel).site).report().parcel(),
        TRAIN: train,
        EVALUATE: evaluate,
        REFERENCE: reference,
    }
    return answers[kind](parcel)


def _path_of(name: str, paths: Mapping[str, Path]) -> Path:
    if name not in paths:
        raise ExchangeError(f"asked for site {name!r}, this node serves {sorted(paths)}")
    return paths[name]
