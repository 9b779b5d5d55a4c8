# SPDX-License-Identifier: Apache-2.0
"""The last look at a message before it leaves a site: only what the run's settings say may pass."""

from pasta_model.checkpoint import exchanged_layout
from pasta_model.config import Settings
from pasta_model.data.clinical import SCHEMES
from pasta_model.errors import ExchangeError
from pasta_model.exchange.contents import (
    EVALUATE,
    JOIN,
    METRICS,
    REFERENCE,
    SITES,
    TRAIN,
    NodeReport,
    Parcel,
    SiteReport,
    TrainReport,
)
from pasta_model.exchange.reference import ReferenceReport
from pasta_model.exchange.vectors import float_buffers


def check_departure(kind: str, parcel: Parcel, settings: Settings) -> None:
    """Let a reply pass that is exactly of its type.

    Parameters
    ----------
    kind
        The type of the message that is answered.
    parcel
        The answer.
    settings
        Of the run: they say which weights are exchanged and how they are written.

    Raises
    ------
    ExchangeError
        When names, dtypes, shapes or sizes are not those of the type, or a number is not finite.
    """
    _protected(kind, parcel, settings)
    if kind == SITES:
        NodeReport.of(parcel)
    elif kind == JOIN:
        _site_report(SiteReport.of(parcel), settings)
    elif kind == REFERENCE:
        ReferenceReport.of(parcel).refuse_other(settings)
    elif kind == TRAIN:
        report = TrainReport.of(parcel)
        if report.update is None:
            raise ExchangeError("an answer to training holds no update")
        _update(report, settings)
    elif kind == EVALUATE:
        if TrainReport.of(parcel).update is not None:
            raise ExchangeError("an answer to an evaluation holds weights")
    else:
        raise ExchangeError(f"messages of type {kind!r} are not exchanged")


def _protected(kind: str, parcel: Parcel, settings: Settings) -> None:
    """Refuse what a run that protects subjects has no mechanism for."""
    if settings.privacy.unit != "subject":
        return
    covered = {"withheld": set[str](), "noised": {"valid-mae"}, "open": set(METRICS)}[
        settings.privacy.metrics
    ]
    bare = sorted(parcel.values.keys() & set(METRICS) - covered)
    if bare:
        raise ExchangeError(f"{', '.join(bare)} would leave a private run, and no mechanism covers it")
    if kind == JOIN and any(sums.any() for sums in parcel.arrays.values()):
        raise ExchangeError("clinical sums would leave a private run; wanted zeros")


def _site_report(report: SiteReport, settings: Settings) -> None:
    columns = (len(SCHEMES[settings.data.clinical].columns),)
    for name, values in vars(report.moments).items():
        if values.shape != columns or values.dtype.kind not in "iuf":
            raise ExchangeError(f"clinical sums {name!r} are {values.dtype} {values.shape}, wanted {columns}")


def _update(report: TrainReport, settings: Settings) -> None:
    assert report.update is not None
    if report.update.codec != settings.exchange.uplink:
        raise ExchangeError(
            f"weights are written as {report.update.codec}, wanted {settings.exchange.uplink}"
        )
    report.update.check(float_buffers(exchanged_layout(settings)))
