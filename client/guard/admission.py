# SPDX-License-Identifier: Apache-2.0
"""Whether a message may reach the site's code: from which run, with which code, under which settings."""

from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import Context, Message
from flwr.common.config import get_fab_config, get_fused_config_from_fab, get_metadata_from_config
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.run import Run

from client.approvals import Approval
from client.bundles import digest_of
from client.guard.inspection import Here
from pasta_model.config import Scalar, Settings, settings_from_flat
from pasta_model.errors import BundleError, ExchangeError
from pasta_model.exchange.contents import EVALUATE, JOIN, REFERENCE, SITES, TRAIN

KINDS = (SITES, JOIN, TRAIN, EVALUATE, REFERENCE)


@dataclass(frozen=True)
class Order:
    """What came with a message: the run that it belongs to and the code that the run brings."""

    message: Message
    run: Run
    fab: Fab

    @property
    def kind(self) -> str:
        """Type of the message."""
        return self.message.metadata.message_type


def check_kind(message: Message) -> None:
    """Refuse a message that is not a request of one of the types that are exchanged.

    Raises
    ------
    ExchangeError
        Naming what came.
    """
    metadata = message.metadata
    if metadata.message_type not in KINDS:
        raise ExchangeError(f"a message of type {metadata.message_type!r} came; wanted one of {KINDS}")
    if metadata.reply_to_message_id or message.has_error():
        raise ExchangeError("an answer or an error came; wanted a request")


def check_bundle(order: Order, approved: Mapping[str, Approval]) -> None:
    """Refuse code that the site has not approved, by the hash of what would run.

    The server names a bundle's hash, name and version, and Flower loads by those names; so they must all be
    those of the content.

    Raises
    ------
    BundleError
        When the content is not approved, or not what the server calls it.
    """
    run, fab = order.run, order.fab
    found = digest_of(fab.content)
    if found not in approved:
        raise BundleError(f"bundle {found} is not approved")
    if {run.fab_hash, fab.hash_str} != {found}:
        raise BundleError(f"the server calls bundle {found} {run.fab_hash!r} and {fab.hash_str!r}")
    named = (run.fab_id, run.fab_version)
    if named != get_metadata_from_config(get_fab_config(fab.content)):
        raise BundleError(f"the server calls bundle {found} {named}, which it is not")
    if run.primary_task_type not in ("", TaskType.SERVER_APP):
        raise BundleError(f"the run is of type {run.primary_task_type!r}; wanted {TaskType.SERVER_APP}")


def settings_of(order: Order) -> tuple[dict[str, Scalar], Settings]:
    """Read the settings that the run's code will be given.

    Raises
    ------
    ConfigError
        When they cannot be used.
    ExchangeError
        When the run changes settings that the bundle does not have.
    """
    try:
        flat = get_fused_config_from_fab(order.fab.content, order.run)
    except ValueError as error:
        raise ExchangeError(f"the run's settings do not fit its bundle: {error}") from error
    return flat, settings_from_flat(flat)


def check_context(
    context: Context | None, *, run_config: Mapping[str, Scalar], node_config: Mapping[str, Scalar]
) -> None:
    """Refuse when Flower would hand the code other settings than those that were judged.

    Runs of one series share what Flower hands over, and the code itself sends it back after each message.

    Raises
    ------
    ExchangeError
        When settings of the run or of the node differ.
    """
    if context is None:
        return  # made anew, of the settings that were judged
    if dict(context.run_config) != dict(run_config) or dict(context.node_config) != dict(node_config):
        raise ExchangeError("the settings that Flower keeps for this run are not the run's and the site's")


def check_policy(settings: Settings, here: Here, *, kind: str, trained: int) -> None:
    """Refuse what the site's policy does not allow, and sums over persons in a run that asks for none.

    Raises
    ------
    PolicyError
        With every reason.
    ExchangeError
        When the settings of the run ask for no sums.
    """
    here.policy.refuse_run(settings, train_subjects=here.train_subjects)
    if kind == REFERENCE:
        if not settings.federation.references:
            raise ExchangeError("sums over persons were asked for in a run whose settings ask for none")
        here.policy.refuse_reference()
    if kind == TRAIN:
        here.policy.refuse_more_rounds(trained)
