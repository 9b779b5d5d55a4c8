# SPDX-License-Identifier: Apache-2.0
"""`pasta plan`: noise and cost by size of site; of a run that protects subjects, and of no other."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w

from pasta_model.privacy.accounting import Release, epsilon
from tests.support.commands import Outcome

PRIVATE = {"unit": "subject", "epsilon": 3.0, "delta": 1e-3, "noise-multiplier": 6.0, "subjects-per-step": 8}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Settings of a run of ten rounds of two steps, with some of its privacy changed."""

    def write(*, shares: str = "subjects", **privacy: object) -> Path:
        own = PRIVATE | {name.replace("_", "-"): value for name, value in privacy.items()}
        sizes = {"federation": {"rounds": 10}, "training": {"local-steps": 2}}
        path = tmp_path / "run.toml"
        path.write_text(tomli_w.dumps({**sizes, "aggregation": {"shares": shares}, "privacy": own}))
        return path

    return write


def rows_of(said: Outcome) -> list[list[str]]:
    assert (said.status, said.err) == (0, "")
    lines = said.out.splitlines()
    return [line.split() for line in lines[1 : next(i for i, x in enumerate(lines) if "Unit:" in x)]]


def test_a_row_a_size_of_site(pasta, run) -> None:
    (small, large) = rows_of(pasta("plan", run(), "--subjects", 16, "--subjects", 64))
    cost = {a: epsilon([Release(6.0, 0.5, 20)], delta=1e-3, accountant=a) for a in ("prv", "rdp")}
    figures = ["16", "3", "0.001", "0.5000", "20", "6.000", f"{cost['prv']:.3f}", f"{cost['rdp']:.3f}"]
    assert small == [*figures, f"{6 / 8:.4f}"]
    assert large[:4] == ["64", "3", "0.001", "0.1250"]


def test_those_who_validate_have_a_row_where_errors_are_noised(pasta, run) -> None:
    path = run(metrics="noised", metrics_noise_multiplier=8.0)
    *_, errors = rows_of(pasta("plan", path, "--subjects", 16))
    whole = Release(8.0, 1.0, 11)  # with every update, and of the last model
    cost = [f"{epsilon([whole], delta=1e-3, accountant=a):.3f}" for a in ("prv", "rdp")]  # type: ignore[arg-type]
    assert errors == ["validate", "3", "0.001", "1.0000", "11", "8.000", *cost]


def test_errors_that_cost_more_than_the_run_promises(pasta_refuses, run) -> None:
    said = pasta_refuses("plan", run(metrics="noised", metrics_noise_multiplier=0.5), "--subjects", 16)
    assert "11 noised validation error(s) at privacy.metrics-noise-multiplier 0.5 cost those who" in said
    assert "wanted at most 3; that holds 0. Set it to " in said


def test_run_without_privacy_has_no_plan(pasta_refuses, run) -> None:
    said = pasta_refuses("plan", run(unit="none"), "--subjects", 16, "--epsilon", 3)
    assert "privacy.unit is 'none': this run adds no noise" in said
    assert 'set [privacy] unit = "subject"' in said


def test_noise_at_the_server_is_planned_elsewhere(pasta_refuses, run) -> None:
    said = pasta_refuses("plan", run(unit="site", shares="equal"), "--subjects", 16)
    assert "privacy.unit is 'site': the server adds noise" in said
    assert "'pasta-server run' shows that plan" in said
    assert "docs/coordinator.md" in said
