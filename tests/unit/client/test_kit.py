# SPDX-License-Identifier: Apache-2.0
"""A site's start-up kit: every problem at once, paths from its own folder, keys that only the owner reads."""

import ssl
from pathlib import Path

import pytest

from client.guard.supernode import arguments, environment, ready
from client.kit import read_kit, tls_context
from pasta_model.errors import AuditError, ConfigError, StoreError
from tests.support.guarded import open_log


def test_paths_are_relative_to_the_kit(make_ready_kit, monkeypatch) -> None:
    kit = make_ready_kit()
    monkeypatch.chdir("/")
    folder = kit.path.parent
    assert kit.keys.node == folder / "keys" / "node"
    assert kit.guard.policy == folder / "policy.toml"
    assert kit.flower == folder / "flower"
    assert (kit.guard.port, kit.run.size, kit.run.device, kit.versions) == (9094, "base", "cpu", {})
    assert read_kit(folder) == read_kit(folder / "site.toml") == kit


def test_what_the_sites_code_is_told_comes_from_the_kit_alone(make_ready_kit) -> None:
    kit = make_ready_kit()
    told = {"site-store": kit.site.store, "policy": kit.guard.policy, "ledger": kit.guard.ledger}
    assert kit.node_config == {**{name: str(path) for name, path in told.items()}, "device": "cpu"}
    assert kit.guard.ledger == kit.path.parent / "privacy" / "ledger.jsonl"  # the default


class TestMistakes:
    def refused(self, path: Path, **words) -> str:
        with pytest.raises(ConfigError) as error:
            read_kit(path, **words)
        return str(error.value)

    def test_all_of_them_at_once(self, make_ready_kit) -> None:
        kit = make_ready_kit()
        kit.keys.node.chmod(0o644)
        kit.keys.certificate_key.chmod(0o640)
        kit.keys.authority.unlink()
        text = kit.path.read_text(encoding="utf-8")
        text = text.replace("[server]", '[server]\nadress = "x"').replace("quarantine =", "quarantin =")
        kit.path.write_text(text.replace(str(kit.site.store), "elsewhere"), encoding="utf-8")
        said = self.refused(kit.path)
        assert "7 problem(s)" in said
        for line in (
            "server.adress: no such setting; did you mean 'address'?",
            "guard.quarantin: no such setting; did you mean 'quarantine'?",
            "guard.quarantine: is missing",
            "keys.authority: found 'keys/authority', wanted a file that is there",
            f"chmod 600 {kit.keys.node}",
            "its mode is 640",
            "site.store: found 'elsewhere', wanted a prepared store",
        ):
            assert line in said

    def test_without_a_look_at_the_files(self, make_ready_kit) -> None:
        kit = make_ready_kit()
        kit.keys.node.unlink()
        assert "keys.node" in self.refused(kit.path)
        assert read_kit(kit.path, files=False) == kit

    @pytest.mark.parametrize("address", ["", "pasta.example.org", "https://pasta.example.org:9443", "a b:1"])
    def test_an_address_that_is_none(self, make_ready_kit, address: str) -> None:
        kit = make_ready_kit()
        text = kit.path.read_text(encoding="utf-8").replace("localhost:9443", address)
        kit.path.write_text(text, encoding="utf-8")
        assert "server.address" in self.refused(kit.path)

    @pytest.mark.parametrize("name", ["../x", "", "a b", "-x"])
    def test_a_name_that_is_none(self, make_ready_kit, name: str) -> None:
        kit = make_ready_kit()
        text = kit.path.read_text(encoding="utf-8").replace("north-sea", name)
        kit.path.write_text(text, encoding="utf-8")
        assert "site.consortium" in self.refused(kit.path)

    def test_no_kit(self, tmp_path: Path) -> None:
        assert "cannot be read" in self.refused(tmp_path / "site.toml")

    def test_a_path_of_its_own(self, make_ready_kit) -> None:
        kit = make_ready_kit()
        kit.path.write_text('path = "/etc"\n' + kit.path.read_text(encoding="utf-8"), encoding="utf-8")
        assert "path: no such section" in self.refused(kit.path)


class TestConnection:
    def test_it_trusts_the_consortium_and_nobody_else(self, make_ready_kit) -> None:
        context = tls_context(make_ready_kit())
        assert len(context.get_ca_certs()) == 1
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2

    def test_a_key_of_another_certificate_is_refused(self, make_ready_kit) -> None:
        kit = make_ready_kit()
        old = kit.keys.certificate_key.read_bytes()
        make_ready_kit()
        kit.keys.certificate_key.write_bytes(old)
        with pytest.raises(ConfigError, match="cannot be used with its key"):
            tls_context(kit)


class TestStarting:
    def test_flower_is_told_where_to_go_and_nothing_more(self, make_ready_kit) -> None:
        kit = make_ready_kit()
        words = dict(zip(arguments(kit)[::2], arguments(kit)[1::2], strict=True))
        assert words == {
            "--superlink": "localhost:9443",
            "--root-certificates": str(kit.keys.authority),
            "--auth-supernode-private-key": str(kit.keys.node),
            "--host": "127.0.0.1",
            "--port": "9094",
            "--node-config": str(kit.flower / "node.toml"),
        }

    def test_flower_reads_what_the_code_is_told_whatever_the_path(
        self, make_ready_kit, tmp_path: Path
    ) -> None:
        from flwr.common.config import parse_config_args

        kit = make_ready_kit()
        odd = tmp_path / "a \"b\" 'c' Ä\\ =x.toml"
        kit.site.store.rename(odd)
        kit = kit.model_copy(update={"site": kit.site.model_copy(update={"store": odd})})
        words = arguments(kit)
        assert parse_config_args([words[words.index("--node-config") + 1]]) == kit.node_config

    def test_flower_is_quiet_and_at_home_with_us(self, make_ready_kit, monkeypatch) -> None:
        kit = make_ready_kit()
        monkeypatch.setenv("PATH", "/bin")
        told = environment(kit)
        assert told["FLWR_TELEMETRY_ENABLED"] == "0"
        assert told["FLWR_HOME"] == str(kit.flower)
        assert told["PATH"].endswith(":/bin")
        assert (Path(told["PATH"].split(":")[0]) / "flower-superexec").is_file()

    def test_a_store_of_another_site_is_refused(self, make_ready_kit) -> None:
        with pytest.raises(ConfigError, match="is the store of site 'A', the kit is of 'B'"):
            ready(make_ready_kit(site="B"))

    def test_a_log_that_somebody_changed_is_refused(self, make_ready_kit) -> None:
        kit = make_ready_kit()
        for _ in range(3):
            open_log(kit).append({"event": "sent"})
        whole = kit.guard.audit.read_bytes()
        assert ready(kit).verify().lines == 3
        kit.guard.audit.write_bytes(whole.replace(b"sent", b"kept", 1))
        with pytest.raises(AuditError, match="line 1 breaks the chain: it was changed"):
            ready(kit)

    @pytest.mark.parametrize("file", ["policy", "approved"])
    def test_a_file_that_cannot_be_read_is_refused(self, make_ready_kit, file: str) -> None:
        kit = make_ready_kit()
        getattr(kit.guard, file).write_text("x = 1", encoding="utf-8")
        with pytest.raises(ConfigError, match=f"{file}.toml: cannot be used"):
            ready(kit)

    def test_a_store_that_is_gone_is_refused(self, make_ready_kit) -> None:
        kit = make_ready_kit()
        (kit.site.store / "index.json").unlink()
        with pytest.raises(StoreError):
            ready(kit)
