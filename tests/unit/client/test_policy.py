# SPDX-License-Identifier: Apache-2.0
"""A site's policy: what it refuses, with every reason, and that a mistake in it is told."""

from pathlib import Path

import pytest

from client.policy import Policy, read_policy
from pasta_model.errors import ConfigError, PolicyError
from tests.support.guarded import POLICY, write_policy


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return changed(tmp_path)


def changed(folder: Path, **changes: object) -> Policy:
    write_policy(folder, **changes)
    return read_policy(folder / "policy.toml")


def test_what_it_allows(policy: Policy, make_settings) -> None:
    policy.refuse_run(make_settings(federation__rounds=3), train_subjects=1)
    policy.refuse_run(make_settings(aggregation__rule="median"), train_subjects=1)


def test_every_reason_at_once(tmp_path: Path, make_settings) -> None:
    policy = changed(tmp_path, min_subjects=10, privacy_required=True, cross_evaluation=False)
    settings = make_settings(
        aggregation__rule="fedyogi", federation__rounds=4, federation__cross_evaluation=True
    )
    with pytest.raises(PolicyError) as error:
        policy.refuse_run(settings, train_subjects=9)
    said = str(error.value)
    assert "5 problem(s)" in said
    for line in (
        "aggregation.rule is 'fedyogi'; the policy allows fedavg, median",
        "federation.rounds is 4; the policy allows 3",
        "9 subjects train here; the policy wants at least 10",
        "privacy.unit is 'none'; the policy wants 'subject'",
        "would show this site's updates to the other sites",
    ):
        assert line in said


def test_private_run_within_the_budget(tmp_path: Path, make_settings) -> None:
    policy = changed(tmp_path, privacy_required=True, max_epsilon=3.0, max_delta=1e-5)
    private = {"privacy__unit": "subject", "federation__rounds": 3}
    policy.refuse_run(make_settings(**private, privacy__epsilon=3.0, privacy__delta=1e-5), train_subjects=9)
    with pytest.raises(PolicyError) as error:
        policy.refuse_run(
            make_settings(**private, privacy__epsilon=3.1, privacy__metrics="open"), train_subjects=9
        )
    assert "privacy.epsilon is 3.1; the policy allows 3" in str(error.value)
    assert "privacy.delta is 0.0001; the policy allows 1e-05" in str(error.value)
    assert "privacy.metrics is 'open', which nothing protects" in str(error.value)


def test_limits_are_included(tmp_path: Path, make_settings) -> None:
    policy = changed(tmp_path, min_subjects=10, max_rounds=4)
    policy.refuse_run(make_settings(federation__rounds=4), train_subjects=10)
    policy.refuse_more_rounds(3)
    with pytest.raises(PolicyError, match="got 4 updates from here already"):
        policy.refuse_more_rounds(4)


def test_metrics(tmp_path: Path) -> None:
    policy = changed(tmp_path, metrics=["valid-mae"], metrics_min_subjects=5)
    assert policy.may_leave("valid-mae", subjects=5)
    assert not policy.may_leave("valid-mae", subjects=4)
    assert not policy.may_leave("train-loss", subjects=500)
    assert not policy.may_leave("anything-else", subjects=500)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"aggregations": ["fedsum"]}, "aggregations.0: found 'fedsum'"),
        ({"aggregations": "fedavg"}, "aggregations: found 'fedavg'"),
        ({"min_subjects": 0}, "min-subjects: found 0"),
        ({"min_subjects": True}, "min-subjects: found True"),
        ({"max_rounds": -1}, "max-rounds: found -1"),
        ({"max_rounds": "500"}, "max-rounds: found '500'"),
        ({"max_epsilon": float("inf")}, "max-epsilon"),
        ({"metrics": ["loss"]}, "metrics.0: found 'loss'"),
        ({"metric": []}, "metric: no such setting; did you mean 'metrics'?"),
        ({"metrics": None}, "metrics: is missing"),
        ({"min_subjects": None}, "min-subjects: is missing"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_assumed(tmp_path: Path, change, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        changed(tmp_path, **change)
    assert said in str(error.value)
    assert str(tmp_path / "policy.toml") in str(error.value)


def test_another_section_is_refused(tmp_path: Path) -> None:
    write_policy(tmp_path)
    path = tmp_path / "policy.toml"
    path.write_text(path.read_text(encoding="utf-8") + "[polcy]\nmin-subjects = 100\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"polcy: no such section; wanted \[policy\]"):
        read_policy(path)


def test_the_support_table_is_a_whole_policy() -> None:
    fields = {field.alias for field in Policy.model_fields.values()}
    assert fields - POLICY.keys() == {"cross-evaluation", "reference"}
