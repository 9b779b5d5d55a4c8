# SPDX-License-Identifier: Apache-2.0
"""A site's policy: what a run must keep to here, whatever its settings say (`policy.toml`).

Only the site writes this file. No setting of a run changes what is read from it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from client.tables import read_table
from pasta_model.config import Settings
from pasta_model.errors import PolicyError, Problems
from pasta_model.federated_sections import PrivacySettings
from pasta_model.sections import Section

Rule = Literal["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "median", "trimmed-mean"]
Metric = Literal["train-loss", "valid-mae", "seconds"]


class Policy(Section):
    """What the site allows.

    Attributes
    ----------
    aggregations
        What the server may make of the updates (`aggregation.rule`).
    min_subjects
        The site takes part only with at least so many training subjects.
    max_rounds
        A run may be set to at most so many rounds, and gets at most so many updates.
    privacy_required
        Only runs that protect every subject at the site itself (`privacy.unit = "subject"`).
    max_epsilon, max_delta
        What may be spent of a subject, by all private runs together, as the site's ledger counts it.
    metrics, metrics_min_subjects
        Which metrics may leave, and only where they cover so many subjects. Sums of a clinical column over
        fewer subjects stay, too.
    cross_evaluation
        Whether the server may send this site's updates to the other sites, to measure them there.
    reference
        Whether sums over persons may leave, of their PETs or of features of their MRIs (`query.reference`). A
        run that asks is not refused for that; the question is.
    """

    aggregations: list[Rule]
    min_subjects: Annotated[int, Field(ge=1)]
    max_rounds: Annotated[int, Field(ge=1)]
    privacy_required: bool = False
    max_epsilon: Annotated[float, Field(gt=0)] = 8.0
    max_delta: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    metrics: list[Metric]
    metrics_min_subjects: Annotated[int, Field(ge=1)]
    cross_evaluation: bool = False
    reference: bool = False

    def refuse_run(self, settings: Settings, *, train_subjects: int) -> None:
        """Refuse a run that the policy does not allow.

        Parameters
        ----------
        settings
            Of the run.
        train_subjects
            How many subjects train at this site.

        Raises
        ------
        PolicyError
            With a line for everything that is not allowed.
        """
        problems = Problems("the site's policy does not allow this run")
        rule, rounds = settings.aggregation.rule, settings.federation.rounds
        if rule not in self.aggregations:
            problems.add(f"aggregation.rule is {rule!r}; the policy allows {', '.join(self.aggregations)}")
        if rounds > self.max_rounds:
            problems.add(f"federation.rounds is {rounds}; the policy allows {self.max_rounds}")
        if train_subjects < self.min_subjects:
            problems.add(
                f"{train_subjects} subjects train here; the policy wants at least {self.min_subjects}"
            )
        for problem in self._privacy_problems(settings.privacy):
            problems.add(problem)
        if settings.federation.cross_evaluation and not self.cross_evaluation:
            problems.add("federation.cross-evaluation would show this site's updates to the other sites")
        problems.raise_if_any(PolicyError)

    def _privacy_problems(self, privacy: PrivacySettings) -> Iterator[str]:
        if privacy.unit != "subject":
            if self.privacy_required:
                yield f"privacy.unit is {privacy.unit!r}; the policy wants 'subject'"
            return
        if privacy.epsilon > self.max_epsilon:
            yield f"privacy.epsilon is {privacy.epsilon:g}; the policy allows {self.max_epsilon:g}"
        if privacy.delta > self.max_delta:
            yield f"privacy.delta is {privacy.delta:g}; the policy allows {self.max_delta:g}"
        if privacy.metrics == "open" and self.privacy_required:
            yield "privacy.metrics is 'open', which nothing protects; the policy wants privacy"

    def refuse_more_rounds(self, trained: int) -> None:
        """Refuse to train once more in a run in which the site has trained as often as it may.

        A server could ask more often than the settings of its run say.

        Raises
        ------
        PolicyError
            When no round is left.
        """
        if trained >= self.max_rounds:
            raise PolicyError(
                f"this run got {trained} updates from here already; the policy allows {self.max_rounds}"
            )

    def refuse_reference(self) -> None:
        """Refuse to send sums over persons where the site does not want to.

        Raises
        ------
        PolicyError
            Saying which line of the policy it is.
        """
        if not self.reference:
            raise PolicyError(
                "sums over this site's persons were asked for; the policy does not let them leave"
                " (reference = true would)"
            )

    def may_leave(self, metric: str, *, subjects: int) -> bool:
        """Whether a metric over so many subjects may leave the site."""
        return metric in self.metrics and subjects >= self.metrics_min_subjects


def read_policy(path: Path) -> Policy:
    """Read a policy.

    Raises
    ------
    ConfigError
        When the file cannot be read, or with a line for every problem. Whoever guards a site refuses then.
    """
    return read_table(path, Policy, section="policy")
