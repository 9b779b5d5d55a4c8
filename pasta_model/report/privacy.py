# SPDX-License-Identifier: Apache-2.0
"""What a run promised about privacy, and what it spent round by round."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pasta_model.report.page import Block, Facts, Paragraph, Picture
from pasta_model.report.style import colour, figure_style, label_axes, to_png

UNITS = {"none": "nobody", "subject": "each person at a site", "site": "each site"}
NONE = (
    "This run promises no differential privacy: what left the sites can tell of the people in it, and so can"
    " the weights."
)
MEANING = (
    "Epsilon bounds how much the release of the model, apart from what is named as not covered, changes what"
    " anybody can conclude about one of them; delta is the chance that the bound fails. Smaller is safer; 0"
    " would tell nothing."
)
SERVER_ACCOUNTANT = "rdp"  # of noise at the server, whatever `privacy.accountant` says
# What epsilon says nothing of; the whole list is in docs/privacy.md.
PUBLIC = {
    "subject": "how many subjects a site has, and that it takes part",
    "site": "which sites take part, and how many",
}
NOTHING_TOLD = "no loss or error was told, so none chose a model"
NOISED = "told with noise, within the epsilon above; they chose no model"
BARE = (
    "losses and validation errors: they were told without noise, and the best model was chosen by them (the"
    " last model was not)"
)
SERVER = (
    "what the server itself is told, which is trusted: each site's update, times, sums of clinical values"
)


@dataclass(frozen=True)
class Privacy:
    """A run's privacy.

    Attributes
    ----------
    unit
        Whom it protects: "none", "subject" or "site".
    epsilon, delta
        Spent by the whole run.
    by_round
        Epsilon after each round, where it is known.
    more
        Other facts: the accountant, and what epsilon does not cover.
    """

    unit: str = "none"
    epsilon: float | None = None
    delta: float | None = None
    by_round: Sequence[float] = ()
    more: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Any, history: Sequence[Mapping[str, Any]]) -> "Privacy":
        """Read it from a run's privacy settings (`PrivacySettings`) and its history.

        Where the history has no epsilon, because sites add the noise and keep their own accounts, the
        epsilon is the most that they were asked to spend. What was told without noise is named as not
        covered: all of it where the unit is the site, or metrics are open.
        """
        if settings.unit == "none":
            return cls()
        spent = [float(entry["epsilon"]) for entry in history if entry.get("epsilon") is not None]
        return cls(
            unit=settings.unit,
            epsilon=spent[-1] if spent else settings.epsilon,
            delta=settings.delta,
            by_round=spent,
            more={
                "epsilon is": "spent" if spent else "the most that a site was asked to spend",
                "accountant": settings.accountant if settings.unit == "subject" else SERVER_ACCOUNTANT,
                **_coverage(settings, history),
            },
        )

    @property
    def facts(self) -> dict[str, str]:
        """What it is, in words."""
        if self.unit == "none":
            return {"differential privacy": "none"}
        epsilon = "not known" if self.epsilon is None else f"{self.epsilon:.3g}"
        delta = "not known" if self.delta is None else f"{self.delta:g}"
        protected = UNITS.get(self.unit, self.unit)
        return {"protects": protected, "epsilon": epsilon, "delta": delta, **self.more}


def _coverage(settings: Any, history: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Say what became of all that was told besides the weights."""
    subject = settings.unit == "subject"
    facts, bare = {"treated as public": PUBLIC[settings.unit]}, [] if subject else [SERVER]
    if not any(entry.get("loss") or entry.get("valid_mae") for entry in history):
        facts["validation errors"] = NOTHING_TOLD
    elif subject and settings.metrics == "noised":
        facts["validation errors"] = NOISED
    else:
        bare.insert(0, BARE)
    if bare:
        facts["not covered"] = "; ".join(bare)
    return facts


def privacy_blocks(privacy: Privacy) -> list[Block]:
    """Return the facts, what they mean, and the curve where rounds are known."""
    words = NONE if privacy.unit == "none" else MEANING
    blocks: list[Block] = [Facts(privacy.facts), Paragraph(words)]
    if privacy.by_round:
        alt = f"Epsilon after each of {len(privacy.by_round)} rounds, up to {privacy.by_round[-1]:.3g}."
        caption = "The budget is spent round by round, and never given back."
        blocks.append(Picture(epsilon_curve(privacy), alt, caption, "chart narrow"))
    return blocks


def epsilon_curve(privacy: Privacy) -> bytes:
    """Draw epsilon by round as a PNG."""
    with figure_style():
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        label_axes(axes, title="Privacy spent", x="round", y=f"epsilon (delta {privacy.delta:g})")
        rounds = range(1, len(privacy.by_round) + 1)
        axes.plot(rounds, list(privacy.by_round), color=colour(0), marker="o", markersize=4, linewidth=2)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return to_png(figure)
