# SPDX-License-Identifier: Apache-2.0
"""The site's list of approved bundles, and the commands by which a person reads and changes it."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_files

import client.cli
from client.approvals import approve, bundle_of, keep_waiting, read_approved, waiting_bundle, withdraw
from client.bundles import digest_of, read_bundle
from client.kit import Kit
from pasta_model.config import Settings
from pasta_model.errors import BundleError
from tests.support.commands import Outcome
from tests.support.guarded import build, open_log, project_of, write_kit

BUNDLE = build(Settings(), a=b"1\n")
OTHER = build(Settings(), a=b"2\n")


@pytest.fixture
def kit(tmp_path) -> Kit:
    """A kit without keys: approving needs none."""
    return write_kit(tmp_path / "kit", tmp_path / "store")


@pytest.fixture
def pasta_client(monkeypatch, capsys) -> Callable[..., Outcome]:
    """Run `pasta-client` with words; `answer` is typed when it asks."""

    def run(*words: object, answer: str | None = None) -> Outcome:
        monkeypatch.setenv("COLUMNS", "300")
        monkeypatch.setattr(sys, "argv", ["pasta-client", *map(str, words)])
        if answer is not None:
            monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: answer)
        with pytest.raises(SystemExit) as stop:
            client.cli.main()
        streams = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), streams.out, streams.err)

    return run


class TestTheList:
    def test_approve_and_withdraw(self, kit: Kit) -> None:
        path = kit.guard.approved
        assert read_approved(path) == {}
        for content in (BUNDLE, OTHER):
            approve(path, read_bundle(content))
        assert read_approved(path).keys() == {digest_of(BUNDLE), digest_of(OTHER)}
        gone = withdraw(path, digest_of(BUNDLE)[:10].upper())
        assert gone.hash == digest_of(BUNDLE)
        assert read_approved(path).keys() == {digest_of(OTHER)}

    def test_names_that_toml_must_escape(self, kit: Kit, monkeypatch) -> None:
        odd = 'Zoë "Z" \\ 🧠\x1b'
        monkeypatch.setattr("getpass.getuser", lambda: odd)
        approve(kit.guard.approved, read_bundle(BUNDLE))
        (approval,) = read_approved(kit.guard.approved).values()
        assert approval.by == odd.replace("\x1b", "<U+001B>")

    @pytest.mark.parametrize("word", ["", "abc", "0" * 12])
    def test_a_hash_that_is_none_or_too_short_to_be_meant(self, kit: Kit, word: str) -> None:
        approve(kit.guard.approved, read_bundle(BUNDLE))
        with pytest.raises(BundleError, match=digest_of(BUNDLE)[:12]):
            withdraw(kit.guard.approved, word)


class TestQuarantine:
    def test_a_bundle_is_found_by_its_hash_or_its_file(self, kit: Kit, tmp_path) -> None:
        assert keep_waiting(kit.guard.quarantine, BUNDLE)
        file = tmp_path / "x.fab"
        file.write_bytes(OTHER)
        assert bundle_of(digest_of(BUNDLE)[:8], kit.guard.quarantine) == BUNDLE
        assert bundle_of(str(file), kit.guard.quarantine) == OTHER

    def test_only_the_owner_looks_into_it(self, kit: Kit) -> None:
        keep_waiting(kit.guard.quarantine, BUNDLE)
        assert kit.guard.quarantine.stat().st_mode & 0o077 == 0

    def test_one_whose_content_was_exchanged_is_refused(self, kit: Kit) -> None:
        keep_waiting(kit.guard.quarantine, BUNDLE)
        (kit.guard.quarantine / f"{digest_of(BUNDLE)}.fab").write_bytes(OTHER)
        with pytest.raises(BundleError, match="not what its name says"):
            bundle_of(digest_of(BUNDLE), kit.guard.quarantine)

    def test_no_file_outside_is_looked_at(self, kit: Kit, monkeypatch) -> None:
        keep_waiting(kit.guard.quarantine, BUNDLE)
        (kit.guard.quarantine.parent / "x.fab").write_bytes(BUNDLE)
        looked = []
        monkeypatch.setattr(Path, "read_bytes", lambda path: looked.append(path) or BUNDLE)
        assert waiting_bundle(kit.guard.quarantine, "../x") is None
        assert looked == []
        assert waiting_bundle(kit.guard.quarantine, digest_of(BUNDLE)) == BUNDLE


class TestApproveCommand:
    def test_it_shows_and_asks(self, kit: Kit, pasta_client) -> None:
        keep_waiting(kit.guard.quarantine, BUNDLE)
        said = pasta_client("approve", kit.path, digest_of(BUNDLE)[:12], answer="y")
        assert said.status == 0, said
        assert digest_of(BUNDLE) in said.out
        assert "pasta/pasta-federated 0.1.0" in said.out
        assert re.search(r"client/a\.py +2 +new +yes", said.out)
        assert re.search(r"aggregation\.rule +'fedavg' +'fedavg'", said.out)
        assert "0 files are the same as installed here, 1 are changed, 1 are new" in said.out
        assert read_approved(kit.guard.approved).keys() == {digest_of(BUNDLE)}
        (entry,) = open_log(kit).entries()
        assert (entry["event"], entry["bundle"]) == ("approved", digest_of(BUNDLE))

    def test_without_a_yes_nothing_is_approved(self, kit: Kit, pasta_client) -> None:
        keep_waiting(kit.guard.quarantine, BUNDLE)
        assert pasta_client("approve", kit.path, digest_of(BUNDLE), answer="n").status != 0
        assert not kit.guard.approved.exists()
        assert list(open_log(kit).entries()) == []

    def test_the_difference_is_shown_when_it_is_asked_for(self, kit: Kit, pasta_client, tmp_path) -> None:
        file = tmp_path / "x.fab"
        file.write_bytes(build(Settings(), b=b"import os  # [red]x[/]\n"))
        said = pasta_client("approve", kit.path, file, "--diff", "--yes")
        assert "+import os  # [red]x[/]" in said.out
        assert "import os" not in pasta_client("approve", kit.path, file, "--yes").out

    def test_another_app_is_told(self, kit: Kit, pasta_client, tmp_path) -> None:
        file = tmp_path / "x.fab"
        project = project_of(Settings()).replace(b"client.client_app:app", b"client.evil:app")
        file.write_bytes(build_fab_from_files({"pyproject.toml": project, "client/evil.py": b""})[0])
        said = pasta_client("approve", kit.path, file, "--yes")
        assert "runs here: client.evil:app   NOT client.client_app:app" in said.out

    def test_the_list_and_a_withdrawal(self, kit: Kit, pasta_client) -> None:
        assert "nothing is approved, nothing waits" in pasta_client("approve", kit.path, "--list").out
        for content in (BUNDLE, OTHER):
            keep_waiting(kit.guard.quarantine, content)
        pasta_client("approve", kit.path, digest_of(BUNDLE), "--yes")
        said = pasta_client("approve", kit.path, "--list").out
        assert re.search(f"{digest_of(BUNDLE)} +pasta/pasta-federated", said)
        assert re.search(f"{digest_of(OTHER)} +waits in quarantine", said)
        assert pasta_client("approve", kit.path, "--withdraw", digest_of(BUNDLE)[:8]).status == 0
        assert read_approved(kit.guard.approved) == {}
        assert [entry["event"] for entry in open_log(kit).entries()] == ["approved", "withdrawn"]

    def test_no_bundle_is_one_message(self, kit: Kit, pasta_client) -> None:
        said = pasta_client("approve", kit.path, "0123456789")
        assert said.status == 2
        assert "no bundle in" in said.err
        assert pasta_client("approve", kit.path).status == 2


class TestAuditCommand:
    @pytest.fixture(autouse=True)
    def exchanges(self, kit: Kit) -> None:
        log, figures = open_log(kit), {"run": "11", "kind": "train", "bundle": "ab"}
        log.append({"event": "received", "direction": "in", "bytes": 1000, "arrays": 2, **figures})
        sent = {"values": ["round", "site"], "withheld": ["seconds"], "bytes": 2500, "arrays": 3}
        log.append({"event": "sent", "direction": "out", **sent, **figures})
        why = {"reason": "not [b]allowed[/b]", "reference": "0123abcd"}
        log.append({"event": "refused", "direction": "in", **why, **figures})

    def test_a_whole_log(self, kit: Kit, pasta_client) -> None:
        said = pasta_client("audit", kit.path)
        assert said.status == 0, said
        assert re.search(r"sent +11 +train +2,500 +3 +round, site; kept back: seconds", said.out)
        assert "not [b]allowed[/b] (reference 0123abcd)" in said.out
        assert re.search(r"11 +1 +1 +0 +1 +1,000 +2,500", said.out)
        assert "chain of 3 lines holds" in said.out
        assert f"3 {open_log(kit).verify().hash}" in said.out
        assert "kept back" not in pasta_client("audit", kit.path, "--last", "1").out

    def test_for_programs(self, kit: Kit, pasta_client) -> None:
        told = json.loads(pasta_client("audit", kit.path, "--json").out)
        assert (told["holds"], told["lines"], told["hash"]) == (True, 3, open_log(kit).verify().hash)
        assert told["runs"]["11"] == {
            "received": 1,
            "sent": 1,
            "refused": 1,
            "bytes in": 1000,
            "bytes out": 2500,
        }
        assert [entry["event"] for entry in told["entries"]] == ["received", "sent", "refused"]

    def test_a_broken_one_names_its_line(self, kit: Kit, pasta_client) -> None:
        whole = kit.guard.audit.read_bytes()
        kit.guard.audit.write_bytes(whole.replace(b'"bytes":2500', b'"bytes":2501'))
        said = pasta_client("audit", kit.path)
        assert said.status == 2
        assert "line 2 breaks the chain: it was changed after it was written" in said.err
        assert "holds" not in said.out
        kit.guard.audit.write_bytes(whole + b'{"run":"11"}\n3\n[]\n{"reason":1}\n')
        assert "line 4 breaks the chain" in pasta_client("audit", kit.path).err
        kit.guard.audit.write_bytes(whole.replace(b'"bytes":2500', b'"bytes":2501'))
        said = pasta_client("audit", kit.path, "--json")
        assert said.status == 2
        assert (json.loads(said.out)["holds"], json.loads(said.out)["broken_line"]) == (False, 2)
