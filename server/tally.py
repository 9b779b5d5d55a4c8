# SPDX-License-Identifier: Apache-2.0
"""What came back in one attempt at a round: numbers, failures, bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pasta_model.exchange.contents import TrainReport
from server.records import RoundRecord


@dataclass
class Tally:
    """The count of an attempt; dictionaries are by site."""

    loss: dict[str, float] = field(default_factory=dict)
    mae: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    down: dict[str, int] = field(default_factory=dict)
    up: dict[str, int] = field(default_factory=dict)

    def note(self, name: str, report: TrainReport) -> None:
        """Keep the numbers that the site let go."""
        self.failures.pop(name, None)
        for values, value in (
            (self.loss, report.train_loss),
            (self.mae, report.valid_mae),
            (self.seconds, report.seconds),
        ):
            if value is not None:
                values[name] = value

    def fail(self, name: str, why: str) -> None:
        """Strike a site's numbers, and say why."""
        self.failures[name] = why
        for values in (self.loss, self.mae, self.seconds):
            values.pop(name, None)

    def scalars(self) -> dict[str, float]:
        """Return the numbers as TensorBoard names them."""
        return {f"loss/{n}": v for n, v in self.loss.items()} | {
            f"valid_mae/{n}": v for n, v in self.mae.items()
        }

    def record(
        self,
        number: int,
        shares: Mapping[str, float],
        seconds: float,
        norms: Mapping[str, float] | None = None,
        *,
        epsilon: float | None = None,
        references: Mapping[str, Sequence[str]] | None = None,
    ) -> RoundRecord:
        """Return the line of the history; `epsilon` is what all rounds up to this one have spent."""
        return RoundRecord(
            round=number,
            loss=_sorted(self.loss),
            valid_mae=_sorted(self.mae),
            shares=_sorted(shares),
            norms=_sorted(norms or {}),
            failures=dict(sorted(self.failures.items())),
            site_seconds=_sorted(self.seconds),
            seconds=seconds,
            bytes_down=dict(sorted(self.down.items())),
            bytes_up=dict(sorted(self.up.items())),
            epsilon=epsilon,
            references=references or {},
        )


def _sorted(values: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(values.items()))
