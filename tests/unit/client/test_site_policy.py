# SPDX-License-Identifier: Apache-2.0
"""A site's policy against a run: what may leave, and which runs are refused, whatever their settings say."""

from pathlib import Path

import pytest
import tomli_w

from client.answers import answer
from pasta_model.errors import PolicyError
from pasta_model.exchange.contents import EVALUATE, JOIN, TRAIN, Invitation, TrainReport
from tests.support.tasks import SMALL, Leader

METRICS = ["train-loss", "valid-mae", "seconds"]


@pytest.fixture
def settings(tmp_path: Path, make_settings, make_store):
    make_store()
    return make_settings(data__sites=str(tmp_path / "sites"), **SMALL)


@pytest.fixture
def ask(tmp_path: Path, settings):
    """Ask the site under a policy."""

    def send(kind: str, number: int = 0, **policy: object) -> TrainReport:
        table = {
            "aggregations": ["fedavg"],
            "min-subjects": 1,
            "max-rounds": 10,
            "metrics": METRICS,
            "metrics-min-subjects": 1,
        } | {name.replace("_", "-"): value for name, value in policy.items()}
        path = tmp_path / "policy.toml"
        path.write_text(tomli_w.dumps({"policy": table}))
        parcel = Invitation("A").parcel() if kind == JOIN else Leader(settings).task(number).parcel()
        node = {"site-store": str(tmp_path / "sites" / "A"), "policy": str(path)}
        reply = answer(kind, parcel, run_config=settings.flat(), node_config=node)
        return reply if kind == JOIN else TrainReport.of(reply)

    return send


def test_all_that_the_policy_names_leaves(ask) -> None:
    report = ask(TRAIN)
    assert None not in (report.train_loss, report.valid_mae, report.seconds)


@pytest.mark.parametrize("metrics", [[], ["valid-mae"], ["seconds", "train-loss"]])
def test_what_the_policy_does_not_name_stays(ask, metrics: list[str]) -> None:
    report = ask(TRAIN, metrics=metrics)
    found = dict(zip(METRICS, (report.train_loss, report.valid_mae, report.seconds), strict=True))
    assert [name for name in METRICS if found[name] is not None] == sorted(metrics, key=METRICS.index)
    assert report.update is not None


def test_metric_over_too_few_subjects_stays(ask) -> None:
    # Three subjects train and one validates.
    report = ask(TRAIN, metrics_min_subjects=2)
    assert report.train_loss is not None
    assert report.valid_mae is None
    report = ask(EVALUATE, number=2, metrics_min_subjects=2)
    assert (report.valid_mae, report.seconds, report.update) == (None, None, None)
    assert ask(EVALUATE, number=2).valid_mae is not None


@pytest.mark.parametrize("kind", [JOIN, TRAIN, EVALUATE])
@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (
            {"aggregations": ["median", "trimmed-mean"]},
            "aggregation.rule is 'fedavg'; the policy allows median",
        ),
        ({"max_rounds": 1}, "federation.rounds is 2; the policy allows 1"),
        ({"min_subjects": 4}, "3 subjects train here; the policy wants at least 4"),
        ({"privacy_required": True}, "privacy.unit is 'none'; the policy wants 'subject'"),
    ],
    ids=["aggregation", "rounds", "subjects", "privacy"],
)
def test_run_that_is_not_allowed_is_refused_whatever_is_asked(
    ask, kind: str, policy: dict, said: str
) -> None:
    with pytest.raises(PolicyError) as error:
        ask(kind, **policy)
    assert said in str(error.value)


def test_answer_of_an_earlier_policy_is_not_given_again_with_what_now_stays(ask) -> None:
    assert ask(TRAIN).valid_mae is not None
    assert ask(TRAIN, metrics=["seconds"]).valid_mae is None
