# SPDX-License-Identifier: Apache-2.0
"""The table and the picture of `benchmarks.privacy`, from the kept rows of subjects.

A site's numbers are means over its held-out subjects, and the table's are means over sites, with the worst
site beside them. Intervals are bootstraps over the held-out subjects of each site (95 %); they say nothing of
another seed of training, nor of another classifier.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Row = dict[str, Any]
Floats = NDArray[np.float64]
DRAWS = 1000
ORDINARILY = 0.0  # the epsilon of ordinary training: a schedule of its own, so no point of a curve
PLACES = {1.0: 0, 3.0: 1, 8.0: 2, np.inf: 3, ORDINARILY: 4}
HEAD = (
    "| method | sigma | MAE (SUVR) | worst site | to the first row | MetaROI error (SUVR) | worst"
    " | AD/CN accuracy | AUC |"
)


class Site:
    """What is known of one hospital's held-out subjects under one method, by subject."""

    def __init__(self, rows: Sequence[Row], real: dict[str, list[Row]], name: str) -> None:
        own = [row for row in rows if row["site"] == name]
        truth = {r["subject"]: r for r in real["test"] if r["site"] == name}
        self.mae: Floats = np.array([row.get("mae", 0.0) for row in own])
        self.metaroi = np.array([abs(_composite(r) - _composite(truth[r["subject"]])) for r in own])
        sure = [row for row in own if row["diagnosis"] != "MCI"]
        self.demented = np.array([row["diagnosis"] == "Dementia" for row in sure])
        taught = [r for r in real["train"] if r["site"] == name and r["diagnosis"] != "MCI"]
        reader = make_pipeline(StandardScaler(), LogisticRegression())
        reader.fit(_features(taught), [r["diagnosis"] == "Dementia" for r in taught])
        self.chance: Floats = reader.predict_proba(_features(sure))[:, 1]

    def numbers(self, rng: np.random.Generator | None = None) -> Floats:
        """MAE, MetaROI error, balanced accuracy, AUC; of a bootstrap sample if `rng` is given."""
        everybody, sure = np.arange(len(self.mae)), np.arange(len(self.chance))
        if rng is not None:
            everybody = rng.choice(everybody, len(everybody))
            sick, well = np.flatnonzero(self.demented), np.flatnonzero(~self.demented)
            sure = np.concatenate([rng.choice(sick, len(sick)), rng.choice(well, len(well))])
        read = reading(self.chance[sure], self.demented[sure])
        return np.array([self.mae[everybody].mean(), self.metaroi[everybody].mean(), *read])


def reading(chance: Floats, demented: NDArray[np.bool_]) -> tuple[float, float]:
    """Balanced accuracy, and the area under the curve: how often the sick one of a pair has more."""
    sick, well = chance[demented], chance[~demented]
    pairs = sick[:, None] - well[None]
    accuracy = ((sick > 0.5).mean() + (well <= 0.5).mean()) / 2
    return float(accuracy), float((pairs > 0).mean() + (pairs == 0).mean() / 2)


def _composite(row: Row) -> float:
    return float(np.mean(list(row["regions"].values())))


def _features(rows: Sequence[Row]) -> Floats:
    return np.array([[row["regions"][name] for name in sorted(row["regions"])] for row in rows])


def summary(rows: Sequence[Row], real: dict[str, list[Row]]) -> dict[str, Floats]:
    """Return `mean` over sites, `worst` site, and the `low` and `high` of the mean; see `Site.numbers`."""
    sites = [Site(rows, real, name) for name in sorted({row["site"] for row in rows})]
    found = np.array([site.numbers() for site in sites])
    rng = np.random.default_rng(0)
    draws = np.array([np.mean([s.numbers(rng) for s in sites], axis=0) for _ in range(DRAWS)])
    worst = np.concatenate([found[:, :2].max(axis=0), found[:, 2:].min(axis=0)])
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    return {"mean": found.mean(axis=0), "worst": worst, "low": low, "high": high}


def paired(rows: Sequence[Row], first: Sequence[Row]) -> tuple[float, float, float]:
    """Mean difference of the MAE to another method on the same subjects, low and high of it."""
    other = {(row["site"], row["subject"]): row["mae"] for row in first}
    names = sorted({row["site"] for row in rows})
    gaps = [
        np.array([r["mae"] - other[name, r["subject"]] for r in rows if r["site"] == name]) for name in names
    ]
    rng = np.random.default_rng(0)
    draws = [np.mean([rng.choice(gap, len(gap)).mean() for gap in gaps]) for _ in range(DRAWS)]
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(np.mean([gap.mean() for gap in gaps])), float(low), float(high)


def results(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the kept results of a method, one a seed."""
    paths = sorted((folder / "results").glob(f"{name}-[0-9]*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def table(folder: Path, names: Sequence[str]) -> str:
    """Return what there is, as Markdown; several seeds are pooled.

    Pairs of methods are compared on the same subjects, which says more than two intervals that overlap.
    """
    real = json.loads((folder / "real.json").read_text(encoding="utf-8"))
    lines = [HEAD, "|---" * HEAD.count(" | ") + "|---|"]
    for name in names:
        found = results(folder, name)
        if not found:
            continue
        rows = _pooled(found)
        seeds = f" ({len(found)} seeds)" if len(found) > 1 else ""
        sigma = found[0].get("plan", {}).get("noise_multiplier")
        told = [name + seeds, f"{sigma:.2f}" if sigma else ""]
        base = results(folder, names[0])
        gap = paired(rows, base[0]["rows"]) if base and name != names[0] else None
        lines.append(_line(told, summary(rows, real), gap))
    lines.append(_line(["the real PETs themselves", ""], summary(real["test"], real), None, real=True))
    return "\n".join(lines)


def _line(
    told: list[str], s: dict[str, Floats], gap: tuple[float, float, float] | None, *, real: bool = False
) -> str:
    def cell(i: int, digits: int) -> str:
        return f"{s['mean'][i]:.{digits}f} ({s['low'][i]:.{digits}f}-{s['high'][i]:.{digits}f})"

    errors = [""] * 5
    if not real:
        apart = f"{gap[0]:+.4f} ({gap[1]:+.4f} to {gap[2]:+.4f})" if gap else ""
        errors = [cell(0, 4), f"{s['worst'][0]:.4f}", apart, cell(1, 4), f"{s['worst'][1]:.4f}"]
    read = [f"{cell(i, 2)}, worst {s['worst'][i]:.2f}" for i in (2, 3)]
    return f"| {' | '.join([*told, *errors, *read])} |"


def picture(folder: Path, curves: Mapping[str, Mapping[float, str]], flats: Mapping[str, str]) -> None:
    """Draw each number by epsilon into `folder/privacy.png`.

    Parameters
    ----------
    curves
        Names of methods by epsilon (see `PLACES`), by what stands in the legend.
    flats
        Names of methods that spend nothing, by what stands in the legend.
    """
    real = json.loads((folder / "real.json").read_text(encoding="utf-8"))
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    axes = figure.subplots(1, 3)
    titles = ("MAE in the brain (SUVR)", "MetaROI error (SUVR)", "AD against CN, AUC")
    for shift, (label, by_epsilon) in enumerate(curves.items()):
        there = {e: results(folder, name) for e, name in by_epsilon.items()}
        kept = {e: summary(_pooled(found), real) for e, found in sorted(there.items()) if found}
        ordinary = {e: kept.pop(e) for e in (ORDINARILY,) if e in kept}
        for axis, i in zip(axes, (0, 1, 3), strict=True):
            _points(axis, kept, i, shift=shift, marker="o", label=label)
            _points(axis, ordinary, i, shift=shift, marker="x")
    for (label, name), style in zip(flats.items(), ("--", ":", "-."), strict=False):
        if found := results(folder, name):
            for axis, i in zip(axes, (0, 1, 3), strict=True):
                axis.axhline(summary(_pooled(found), real)["mean"][i], color="black", ls=style, label=label)
    axes[2].axhline(summary(real["test"], real)["mean"][3], color="gray", label="the real PETs")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, xlabel="epsilon (delta 0.001, unit: subject)", xlim=(-0.4, 4.4))
        axis.set_xticks(list(PLACES.values()), ["1", "3", "8", "infinity", "ordinary"])
    figure.legend(*axes[2].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(folder / "privacy.png", dpi=110)


def _points(axis: Any, kept: Mapping[float, dict[str, Floats]], i: int, *, shift: int, **style: Any) -> None:
    """Draw one number of one curve, beside those of the other curves."""
    if kept:
        at = [PLACES[e] + 0.08 * (shift - 1.5) for e in kept]
        mean, low, high = (np.array([s[n][i] for s in kept.values()]) for n in ("mean", "low", "high"))
        axis.errorbar(at, mean, (mean - low, high - mean), capsize=2, color=f"C{shift}", **style)


def _pooled(found: Sequence[dict[str, Any]]) -> list[Row]:
    return [row for result in found for row in result["rows"]]
