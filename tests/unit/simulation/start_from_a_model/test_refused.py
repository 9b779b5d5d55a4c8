# SPDX-License-Identifier: Apache-2.0
"""A federation that cannot go on from a model, because it or its parts are not there."""

from pathlib import Path

import pytest

from client.site import Site
from pasta_model.errors import CheckpointError
from server.rounds import Federation
from simulation.direct import DirectPost
from tests.support.starts import ALL, OWN, Make, Run


class TestRefused:
    def test_before_any_site_is_asked_and_before_anything_is_written(
        self, settings_of: Make, initial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = settings_of()
        output = Path(settings.run.output)
        output.mkdir()
        (output / "settings.json").write_text("{}")  # of an earlier run, which would be set aside
        monkeypatch.setattr(DirectPost, "ask", None)
        monkeypatch.setattr(DirectPost, "nodes", None)
        (tmp_path / "initial.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"initial\.safetensors: no such file"):
            Federation(DirectPost(settings, ALL), settings).run()
        assert (output / "settings.json").is_file()
        assert not output.with_name("run-1").exists()

    def test_a_site_without_the_parts_is_not_silently_served_from_the_seed(
        self, run: Run, initial, settings_of: Make
    ) -> None:
        """A server that says nothing of the start is refused."""
        from pasta_model.errors import ExchangeError
        from tests.support.tasks import Leader

        settings = settings_of(exchange__trained="norms")
        leader = Leader(settings, "alder")
        with pytest.raises(ExchangeError, match="where it starts from"):
            Site(Path(settings.data.sites) / "alder", settings).train(leader.whole(0, OWN))
