# SPDX-License-Identifier: Apache-2.0
"""A kit whose policy bounds the budget, and `pasta-client budget` with words."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

import client.cli
from client.kit import Kit
from pasta_model.data.store import SiteStore
from tests.support.accounting import remember
from tests.support.budgets import DELTA, LIMIT, RUN
from tests.support.commands import Outcome, everything
from tests.support.guarded import write_kit


@pytest.fixture(autouse=True)
def each_history_is_accounted_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(monkeypatch)


@pytest.fixture
def kit(tmp_path: Path, store: SiteStore) -> Kit:
    return write_kit(tmp_path / "kit", store.path, max_delta=DELTA, max_epsilon=LIMIT, max_rounds=9)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `pasta-client budget` with words."""

    def run(*words: object) -> Outcome:
        monkeypatch.setenv("COLUMNS", "1000")
        monkeypatch.setattr(sys, "argv", ["pasta-client", "budget", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            client.cli.main()
        streams = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), streams.out, streams.err)

    return run


@pytest.fixture
def told(call, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run it for programs; nothing may be written, whatever is asked."""

    def run(*words: object) -> dict[str, Any]:
        before = everything(tmp_path)
        said = call(*words, "--json")
        assert (said.status, said.err) == (0, "")
        assert everything(tmp_path) == before
        return json.loads(said.out, parse_constant=pytest.fail)

    return run


@pytest.fixture
def refused(call, tmp_path: Path) -> Callable[..., str]:
    """Expect one message, exit status 2, and nothing written; return the message."""

    def run(*words: object) -> str:
        before = everything(tmp_path)
        said = call(*words)
        assert said.status == 2, said
        assert everything(tmp_path) == before
        assert len(re.findall(r"(?m)^error: ", said.err)) == 1, said.err
        assert "Traceback" not in said.err + said.out
        return said.err

    return run


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Path]:
    """Settings of a run, with some of its privacy changed."""

    def write(*, rounds: int = 5, **privacy: object) -> Path:
        own = RUN["privacy"] | {name.replace("_", "-"): value for name, value in privacy.items()}
        path = tmp_path / "run.toml"
        path.write_text(tomli_w.dumps(RUN | {"privacy": own, "federation": {"rounds": rounds}}))
        return path

    return write
