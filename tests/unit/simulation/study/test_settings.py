# SPDX-License-Identifier: Apache-2.0
"""A study's file: what it may say, and that everything wrong in it is told at once."""

from pathlib import Path

import pytest

from pasta_model.errors import ConfigError
from simulation.study.methods import METHODS
from simulation.study.settings import StudySettings, read_study, shaping

TWINS = "[cohort.twins]\nseed = 1\n"


def study(tmp_path: Path, text: str) -> StudySettings:
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    return read_study(path)


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as error:
        study(tmp_path, text)
    return str(error.value)


def test_every_method_has_settings_that_can_be_run(tmp_path: Path) -> None:
    names = ", ".join(f'"{name}"' for name in METHODS)
    found = study(tmp_path, f"methods = [{names}]\n{TWINS}")
    for name, method in found.chosen().items():
        flat = found.settings_of(method, run_seed=5).flat()
        assert flat["run.seed"] == 5, name
        assert {k: flat[k] for k in method.changes} == dict(method.changes), name
    assert len({m.folder for m in found.chosen().values()}) == len(METHODS), "folders must not meet"


def test_settings_of_all_methods_give_way_to_those_of_one(tmp_path: Path) -> None:
    text = (
        'methods = ["fedavg", "strong"]\n[settings.aggregation]\nproximal-mu = 0.5\n'
        '[method.strong]\nlike = "fedprox"\nsettings = { "aggregation.proximal-mu" = 2.0 }\n' + TWINS
    )
    found = study(tmp_path, text)
    mus = {n: found.settings_of(m).aggregation.proximal_mu for n, m in found.chosen().items()}
    assert mus == {"fedavg": 0.5, "strong": 2.0}
    assert "aggregation.proximal-mu = 2.0" in found.chosen()["strong"].about


def test_tables_are_relative_to_the_file(tmp_path: Path) -> None:
    found = study(tmp_path, '[cohort]\nmanifests = ["adni/participants.tsv"]\n')
    assert found.cohort.manifests == (tmp_path / "adni" / "participants.tsv",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds = [1]\n", "cohort"),
        ("[cohort]\n", "wanted either twins or manifests"),
        (f'[cohort]\nmanifests = ["a.tsv"]\n{TWINS}', "wanted either twins or manifests"),
        (f'methods = ["fedavg", "fedawg"]\n{TWINS}', "'fedawg' is no method"),
        (f'methods = ["fedavg", "fedavg"]\n{TWINS}', "wanted each once"),
        (f'methods = ["pooled"]\n{TWINS}', "measure names fedavg"),
        (f'methods = ["preview"]\n[measure]\nmain = "preview"\n{TWINS}', "uses the model of 'fedavg'"),
        (f"[settings.training]\nlocal-stepz = 3\n{TWINS}", "did you mean 'training.local-steps'"),
        (f'[method.fedavg]\nlike = "pooled"\n{TWINS}', "is one already"),
        (f'methods = ["fedavg"]\n[method.mine]\nlike = "yours"\n{TWINS}', "'yours' is no method"),
        (f"[partition]\nalpha = 0.0\n{TWINS}", "partition.alpha"),
        (f'[partition]\nby = "colour"\n{TWINS}', "partition.by"),
        (f"[split]\ntest = 0.0\n{TWINS}", "split.test"),
        (f"unknown = 1\n{TWINS}", "unknown"),
        (f'seeds = [-1, "a"]\n{TWINS}', "seeds.1"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(tmp_path: Path, text: str, said: str) -> None:
    message = refused(tmp_path, text)
    assert said in message
    assert "study.toml" in message


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = f'methods = ["fedawg", "pulled"]\n[measure]\nmain = "mine"\n{TWINS}'
    message = refused(tmp_path, text)
    assert all(word in message for word in ("'fedawg'", "'pulled'", "names mine"))


def test_methods_of_one_folder_are_refused_whatever_the_case(tmp_path: Path) -> None:
    own = ("fedprox 1e-3", "fedprox 1e+3", "Strong", "strong", "FedAvg")
    tables = "".join(f'[method."{name}"]\nlike = "fedprox"\n' for name in own)
    names = ", ".join(f'"{name}"' for name in ("fedavg", *own))
    message = refused(tmp_path, f"methods = [{names}]\n{tables}{TWINS}")
    assert "'fedprox 1e-3' and 'fedprox 1e+3' would share the folder 'fedprox-1e-3'" in message
    assert "'Strong' and 'strong'" in message
    assert "'fedavg' and 'FedAvg'" in message


def test_a_missing_file_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_study(tmp_path / "no.toml")


def test_methods_and_seeds_may_be_added_to_a_study_and_people_may_not(tmp_path: Path) -> None:
    first = study(tmp_path, f'methods = ["fedavg"]\n{TWINS}')
    more = study(
        tmp_path, f'seeds = [2026, 3]\nmethods = ["fedavg", "pooled"]\n[measure]\nsamples = 2\n{TWINS}'
    )
    others = study(tmp_path, 'methods = ["fedavg"]\n[cohort.twins]\nseed = 2\n')
    assert shaping(first) == shaping(more)
    assert shaping(first) != shaping(others)
