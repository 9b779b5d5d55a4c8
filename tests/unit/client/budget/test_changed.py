# SPDX-License-Identifier: Apache-2.0
"""`pasta-client budget` of a ledger that was changed, or that is not where it should be."""

import shutil
from pathlib import Path

import pytest

from client.kit import Kit
from client.ledger import Ledger
from pasta_model.data.store import SiteStore
from tests.support.budgets import pay


class TestChanged:
    @pytest.mark.parametrize("words", [(), ("--json",)])
    @pytest.mark.parametrize("how", ["edited", "cut", "deleted", "all deleted"])
    def test_ledger(self, kit: Kit, store: SiteStore, refused, how: str, words: tuple[str, ...]) -> None:
        pay(kit.guard.ledger, store)
        path = kit.guard.ledger
        if how == "edited":
            path.write_bytes(path.read_bytes().replace(b'"steps":4', b'"steps":1'))
        elif how == "cut":
            path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
        elif how == "deleted":
            path.unlink()
        else:
            shutil.rmtree(path.parent)
        said = refused(kit.path, *words)
        assert "put it back from a copy" in said
        assert len(said.splitlines()) == 1

    def test_ledger_of_other_people(self, kit: Kit, store: SiteStore, refused) -> None:
        book = Ledger(kit.guard.ledger, site="A", witness=store.path.parent / "elsewhere.json")
        book.open_for(["sub-x"])
        book.note_plan("first", ["sub-x"], {})
        assert "the ledger of another data set" in refused(kit.path)

    def test_store_whose_ledger_is_in_its_kit(self, kit: Kit, store: SiteStore, refused) -> None:
        pay(kit.guard.ledger, store)
        assert "a kit keeps it elsewhere" in refused(store.path)

    def test_what_is_neither_a_kit_nor_a_store(self, refused, tmp_path: Path) -> None:
        assert "cannot be read" in refused(tmp_path)
