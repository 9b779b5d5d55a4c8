# SPDX-License-Identifier: Apache-2.0
"""The charts of a report: curves by round, MetaROI scatter, bars by site. Each returns a PNG."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pasta_model.evaluation.columns import METRICS, Metric
from pasta_model.evaluation.estimates import Estimate
from pasta_model.evaluation.groups import groups_of, persons, suppressed
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.summary import ALL_SITES, GroupRow
from pasta_model.report.style import (
    DIAGNOSES,
    INK,
    colour,
    figure_style,
    label_axes,
    method_colour,
    to_png,
)

GLOBAL = "global"
CURVES = {"loss": ("Training loss", "loss"), "valid_mae": ("Validation MAE", "MAE (SUVR)")}


def curves(history: Sequence[Mapping[str, Any]]) -> bytes:
    """Training loss and validation MAE by round: a thin line a site, a thick one for all.

    Parameters
    ----------
    history
        One mapping a round: "round", "loss" and "valid_mae" by site, each of them optional.
        A site named "global" is the thick line; without one it is the mean of the sites, if they are several.
    """
    with figure_style():
        figure = Figure(figsize=(10.2, 3.9), layout="constrained")
        frames = figure.subplots(1, 2)
        for axes, (key, (title, unit)) in zip(frames, CURVES.items(), strict=True):
            label_axes(axes, title=title, x="round", y=unit)
            _lines(axes, history, key)
        handles, labels = frames[0].get_legend_handles_labels()
        if not handles:
            handles, labels = frames[1].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))
        return to_png(figure)


def metaroi_scatter(scores: Sequence[SubjectScore], *, method: str, smallest: int = 0) -> bytes:
    """MetaROI SUVR of the real PET against the synthetic one: a point a session, by diagnosis.

    The legend does not tell numbers of fewer than `smallest` persons, nor what would tell them.
    """
    names = ("metaroi_real", "metaroi_synthetic")
    chosen = [s for s in scores if s.method == method and None not in map(s.values.get, names)]
    sizes = {name: persons(own) for name, own in groups_of(chosen, "diagnosis").items()}
    hidden = suppressed(sizes, smallest=smallest)
    real, synthetic = (np.array([s.values[name] for s in chosen], dtype=np.float64) for name in names)
    with figure_style():
        figure = Figure(figsize=(5.9, 5.4), layout="constrained")
        axes = figure.add_subplot()
        label_axes(axes, title=f"MetaROI: {method}", x="real PET (SUVR)", y="synthetic PET (SUVR)")
        for index, diagnosis in enumerate(_diagnoses(chosen)):
            shade, marker = DIAGNOSES.get(diagnosis, (colour(index + 2), "D"))
            here = np.array([s.diagnosis == diagnosis for s in chosen])
            number = "" if diagnosis in hidden else f" (n = {here.sum()})"
            axes.scatter(
                real[here], synthetic[here], s=42, color=shade, marker=marker, alpha=0.85,
                edgecolors="white", linewidths=0.6, label=f"{diagnosis}{number}",
            )  # fmt: skip
        if chosen:
            _identity(axes, np.concatenate([real, synthetic]))
            axes.legend(title=_agreement(real, synthetic), loc="upper left", alignment="left")
        return to_png(figure)


def metric_bars(rows: Sequence[GroupRow]) -> bytes:
    """Means by site: a chart a metric, a group of bars a site, a bar a method with its interval."""
    kept = [row for row in rows if row.kind in {"site", "all"}]
    methods = list(dict.fromkeys(row.method for row in kept))
    with figure_style():
        figure = Figure(figsize=(10.2, 6.4), layout=ConstrainedLayoutEngine(h_pad=0.1))
        frames = figure.subplots(2, 2).ravel()
        for axes, metric in zip(frames, METRICS, strict=True):
            _bars(axes, metric, kept, methods)
        handles, labels = frames[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        return to_png(figure)


def _lines(axes: Axes, history: Sequence[Mapping[str, Any]], key: str) -> None:
    rounds = [int(entry.get("round", number)) for number, entry in enumerate(history, start=1)]
    by_round = [dict(entry.get(key) or {}) for entry in history]
    names = list(dict.fromkeys(name for entry in by_round for name in entry))
    sites = sorted(name for name in names if name != GLOBAL)
    if not names:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color="#7b8794")
        return
    values = np.array([[entry.get(site, np.nan) for site in sites] for entry in by_round], dtype=float)
    for index, site in enumerate(sites):
        axes.plot(
            rounds, values[:, index], color=colour(index), linewidth=1.4, marker="o", markersize=3, label=site
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if GLOBAL not in names and len(sites) == 1:
        return
    thick = [entry.get(GLOBAL, _mean(row)) for entry, row in zip(by_round, values, strict=True)]
    label = GLOBAL if GLOBAL in names else "mean of the sites"
    axes.plot(rounds, thick, color=INK, linewidth=2.6, label=label)


def _mean(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _diagnoses(scores: Sequence[SubjectScore]) -> list[str]:
    found = {s.diagnosis for s in scores}
    return [d for d in DIAGNOSES if d in found] + sorted(found - set(DIAGNOSES))


def _identity(axes: Axes, values: NDArray[np.float64]) -> None:
    margin = max(0.04 * float(np.ptp(values)), 0.01)
    ends = (float(values.min()) - margin, float(values.max()) + margin)
    axes.plot(ends, ends, color="#7b8794", linestyle="--", linewidth=1.2, zorder=0, label="identity")
    axes.set(xlim=ends, ylim=ends, aspect="equal")


def _agreement(real: NDArray[np.float64], synthetic: NDArray[np.float64]) -> str:
    spread = real.size > 2 and bool(np.ptp(real) > 0 and np.ptp(synthetic) > 0)
    r = f"{np.corrcoef(real, synthetic)[0, 1]:.2f}" if spread else "not defined"
    error = float(np.mean(np.abs(synthetic - real)))
    bias = float(np.mean(synthetic - real))
    return f"r = {r}\nMAE = {error:.3f} SUVR\nbias = {bias:+.3f} SUVR"


def _bars(axes: Axes, metric: Metric, rows: Sequence[GroupRow], methods: Sequence[str]) -> None:
    sites = list(dict.fromkeys(row.group for row in rows))
    width = 0.8 / max(len(methods), 1)
    for index, method in enumerate(methods):
        shown = [(row.group, metric.estimate(row)) for row in rows if row.method == method]
        cells = [(sites.index(site), found) for site, found in shown if found.value is not None]
        places = [site + (index - (len(methods) - 1) / 2) * width for site, _ in cells]
        axes.bar(
            places, [found.value or 0.0 for _, found in cells], width=0.92 * width,
            color=method_colour(method, methods), label=method,
        )  # fmt: skip
        for place, (_, found) in zip(places, cells, strict=True):
            if found.low is not None and found.high is not None:
                axes.vlines(place, found.low, found.high, color=INK, linewidth=1.1)
    direction = "higher" if metric.higher_is_better else "lower"
    axes.set_title(f"{metric.heading}: {direction} is better")
    axes.set_xticks(range(len(sites)), sites)
    axes.grid(visible=False, axis="x")
    if ALL_SITES in sites and len(sites) > 1:
        axes.axvline(sites.index(ALL_SITES) - 0.5, color="#cbd2d9", linewidth=1)
    _zoom(axes, [metric.estimate(row) for row in rows], metric)


def _zoom(axes: Axes, estimates: Sequence[Estimate], metric: Metric) -> None:
    """Start the axis below the smallest value where bars from 0 would all look the same."""
    ends = [end for e in estimates for end in (e.value, e.low, e.high) if end is not None]
    if metric.higher_is_better and ends and min(ends) > 0:
        axes.set_ylim(bottom=min(ends) - 0.75 * (max(ends) - min(ends)) - 0.02 * min(ends))
        axes.set_ylabel("axis does not start at 0", fontsize=8, color="#7b8794")


def strips(numbers: Mapping[str, Sequence[float]], *, flagged: Sequence[bool]) -> bytes:
    """Draw each figure of quality over a cohort: a strip of points, flagged sessions in orange.

    Parameters
    ----------
    numbers
        Figure to its value for each session; NaN where it is missing.
    flagged
        Whether a session has a flag, in the same order.
    """
    colours = np.where(np.asarray(flagged), DIAGNOSES["MCI"][0], DIAGNOSES["CN"][0])
    height = np.linspace(-0.3, 0.3, len(flagged))
    with figure_style():
        rows = -(-len(numbers) // 3)
        figure = Figure(figsize=(10.2, 1.15 * rows), layout="constrained")
        for place, (name, values) in enumerate(numbers.items(), start=1):
            axes = figure.add_subplot(rows, 3, place)
            axes.scatter(values, height, c=colours.tolist(), s=16, alpha=0.85, linewidths=0)
            axes.set_title(name.replace("_", " "), fontsize=9)
            axes.set_yticks([])
            axes.set_ylim(-0.7, 0.7)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.tick_params(labelsize=8)
        return to_png(figure)
