# SPDX-License-Identifier: Apache-2.0
"""A run's card, completed at a site: the run's facts, new results, and only PETs of that run."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pasta_model.config import Settings
from pasta_model.data.manifest import Session, write_manifest
from pasta_model.data.volume import read_volume, write_volume
from pasta_model.derivatives import sidecar_path, synthetic_path
from pasta_model.report.card import ModelCard
from pasta_model.report.card_facts import FACTS, write_facts
from pasta_model.report.privacy import Privacy
from tests.support.commands import Outcome

Pasta = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a run of the coordinator leaves beside its models."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps(Settings().flat()))
    card = ModelCard(
        "PASTA, federated: north-sea", "federated", (), (), data={"from": "MRI"}, training={"rounds": "9"},
        sites={"alder": 41, "birch": None}, privacy=Privacy("subject", 3.0, 1e-5),
        limits=("Nobody has measured here.",), commands=("pasta-server run",),
    )  # fmt: skip
    write_facts(folder / FACTS, card)
    return folder


@pytest.fixture
def sessions(make_session: Callable[..., Session]) -> list[Session]:
    """Five people, one of them alone at site B."""
    made = [make_session(f"sub-0{n}", site="AAAAB"[n], split="test") for n in range(5)]
    for session in made:
        path, real = synthetic_path(session.pet.parents[1] / "ours", session), read_volume(session.pet)
        path.parent.mkdir(parents=True)
        write_volume(path, replace(real, data=real.data * np.float32(0.9)))
        shaping = {k: v for k, v in Settings().flat().items() if not k.startswith("sampling.")}
        sidecar_path(path).write_text(json.dumps({"Settings": shaping}))
    return made


@pytest.fixture
def words(tmp_path: Path, sessions: list[Session], run: Path, out: Path) -> list[object]:
    write_manifest(tmp_path / "participants.tsv", sessions)
    folders = [tmp_path / "participants.tsv", f"ours={tmp_path / 'ours'}"]
    return ["evaluate", *folders, "--run", run, "--output", out, "--workers", 1, "--no-report"]


def test_the_card_has_the_run_and_the_results(words: list[object], out: Path, pasta: Pasta) -> None:
    said = pasta(*words, "--smallest", 2)
    assert (said.status, said.err) == (0, "")
    assert "MODEL_CARD.md" in said.out
    text = (out / "MODEL_CARD.md").read_text(encoding="utf-8")
    for words_of_the_run in (
        "north-sea",
        "| alder | 41 |",
        "| birch | withheld",
        "rounds",
        "epsilon",
        "pasta-server run",
    ):
        assert words_of_the_run in text
    assert "**measured on**: 5 persons; held out by the splits of the manifest" in text
    assert "pasta evaluate participants.tsv ours=ours --run run" in text, "and not where that lies"
    assert "Nobody has measured here" not in text
    assert "worst MAE of CN (5): " in text, "where it fails"
    (all_sites,) = (line for line in text.splitlines() if line.startswith("| all sites |"))
    assert " to " in all_sites, "with intervals"
    for site in "AB":  # A's would tell B's by difference
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {site} |"))
        assert "not available" in line
        assert " to " not in line
    assert "sub-0" not in text, "people are not named"


def test_the_card_says_when_nothing_was_checked(
    tmp_path: Path, words: list[object], out: Path, pasta: Pasta
) -> None:
    table = tmp_path / "participants.tsv"
    table.write_text(table.read_text().replace("\ttest", "\tn/a"))
    pasta(*words)
    text = (out / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "whether a method was trained on these subjects was not checked" in text


@pytest.mark.parametrize(
    ("name", "wanted"),
    [(FACTS, "a run writes it when it ends"), ("settings.json", "wanted the folder of a run")],
)
def test_a_folder_that_lacks_something_is_refused_before_any_work(
    words: list[object], run: Path, name: str, wanted: str, pasta_refuses: Callable[..., str]
) -> None:
    (run / name).unlink()
    assert wanted in pasta_refuses(*words)
    (run / name).write_text('{"x": 1}')
    assert "take" in pasta_refuses(*words)


def test_pets_of_another_run_do_not_complete_the_card(
    words: list[object], sessions: list[Session], tmp_path: Path, pasta_refuses: Callable[..., str]
) -> None:
    first, second = (sidecar_path(synthetic_path(tmp_path / "ours", s)) for s in sessions[:2])
    first.unlink()
    second.write_text(json.dumps({"Settings": Settings().flat() | {"run.seed": 77}}))
    said = pasta_refuses(*words)
    assert "2 problem(s)" in said
    assert "sub-00_bl: " in said
    assert "does not say which model made the PET" in said
    assert "sub-01_bl: " in said
    assert "a model of other settings made the PET" in said
