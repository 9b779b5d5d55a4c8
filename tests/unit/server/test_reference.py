# SPDX-License-Identifier: Apache-2.0
"""The sites' sums added up: in order, of enough sites, without what is poisoned, and never a site's alone."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import safe_open

from pasta_model.config import Settings
from pasta_model.exchange.contents import REFERENCE, Parcel
from pasta_model.exchange.reference import ReferenceReport, ReferenceTask
from pasta_model.familiarity import model as familiarity_model
from pasta_model.familiarity.features import COUNT
from pasta_model.familiarity.sums import FeatureSums
from pasta_model.norms.model import Norms
from pasta_model.norms.sums import NormSums, scaled_age
from server import reference
from server.commands.status import headline
from server.reference import Origin, References, origin_of
from server.watch import Watch
from tests.support.people import GRID, SPACING, ball, let_brains_be_balls
from tests.support.sites import make_settings

BRAIN = ball(GRID.crop)


@pytest.fixture(autouse=True)
def balls(monkeypatch: pytest.MonkeyPatch) -> None:
    let_brains_be_balls(monkeypatch)
    monkeypatch.setattr(familiarity_model, "PERSONS_PER_FEATURE", 0)


def norms(site: str, persons: int = 6) -> Parcel:
    rng = np.random.default_rng([*map(ord, site)])
    x = np.array([scaled_age(age) for age in rng.uniform(60, 90, persons)])
    y = np.where(BRAIN, 1.2 - 0.05 * x[:, None, None, None] + rng.normal(0, 0.1, (persons, *BRAIN.shape)), 0)
    volumes = y.sum(0), np.tensordot(x, y, 1), (y**2).sum(0)
    sums = NormSums(SPACING, 8.0, persons, float(x.sum()), float((x**2).sum()), *volumes)
    return ReferenceReport(site, sums).parcel()


def features(site: str, persons: int = 12) -> Parcel:
    table = np.random.default_rng([*map(ord, site)]).normal(1.0, 2.0, (persons, COUNT))
    return ReferenceReport(site, FeatureSums.of(table)).parcel()


class Post:
    """Answers with parcels, or with reasons, or not at all; `asked` are the questions that came."""

    settle_checks = 0

    def __init__(self, answers: Mapping[str, Parcel | str], *, absent: str = "") -> None:
        self.answers = dict(answers)
        self.absent = absent
        self.asked: list[ReferenceTask] = []

    def nodes(self) -> dict[int, str]:
        return {ord(name): "" for name in "ABCD" if name not in self.absent}

    def ask(self, parcels, message_type: str) -> Iterator[tuple[str, Parcel | str]]:
        assert message_type == REFERENCE
        assert [node for node, _ in parcels.values()] == [ord(name) for name in parcels]
        tasks = {name: ReferenceTask.of(parcel) for name, (_, parcel) in parcels.items()}
        self.asked += tasks.values()
        for name, answer in self.answers.items():  # in the order in which they come
            if name in tasks:
                yield name, answer


def members(training: str = "AB", *, subjects: int = 20) -> SimpleNamespace:
    joined = {
        name: SimpleNamespace(node=ord(name), report=SimpleNamespace(train_subjects=subjects))
        for name in training
    }
    return SimpleNamespace(training=joined, joined=joined)


@pytest.fixture
def gather(tmp_path: Path) -> Callable[..., dict[str, list[str]]]:
    """Gather into `run`; `gather.watch` told of it."""

    def run(post: Post, training: str = "AB", *, subjects: int = 20, **changes) -> dict[str, list[str]]:
        asked = {"federation__reference": "norms"} | changes
        settings: Settings = make_settings(tmp_path, tmp_path / "run", **asked)
        run.settings, run.folder = settings, tmp_path / "run"
        run.folder.mkdir(exist_ok=True)
        watch = Watch(run.folder, settings)
        who = members(training, subjects=subjects)
        return References(post, settings, folder=run.folder, members=who, watch=watch).gather()

    return run


def status(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())["references"]


def both(*names: str) -> dict[str, Parcel]:
    return {name: norms(name) for name in names}


def content(path: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """All that a file says, whatever the order of the words in its header."""
    with safe_open(path, framework="numpy") as file:
        return file.metadata(), {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


class TestNorms:
    def test_they_are_those_of_the_pooled_sums(self, gather) -> None:
        assert gather(Post(both("A", "B"))) == {"norms": ["A", "B"]}
        found = Norms.load(gather.folder / "norms.safetensors")
        parts = [ReferenceReport.of(norms(name)).sums for name in "AB"]
        wanted = Norms.of(NormSums.pool(parts), sites=("A", "B"))
        assert (found.persons, found.sites) == (12, ("A", "B"))
        for name in ("level", "slope", "spread", "brain"):
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
        np.testing.assert_allclose(found.level[BRAIN].mean(), 1.2, atol=0.01)

    def test_the_file_says_whose_they_are(self, gather) -> None:
        gather(Post(both("A", "B")), run__name="first")
        path = gather.folder / "norms.safetensors"
        assert origin_of(path) == Origin(("A", "B"), 12, "first", gather.settings.digest())
        with safe_open(path, framework="numpy") as file:
            assert json.loads(file.metadata()["federation"])["settings"] == gather.settings.digest()

    def test_the_order_in_which_they_come_does_not_matter(self, gather) -> None:
        gather(Post(both("A", "B", "C")), "ABC")
        path = gather.folder / "norms.safetensors"
        first = content(path)
        path.unlink()
        gather(Post(both("C", "A", "B")), "ABC")
        assert content(path) == first

    def test_status_says_who_is_in_them_and_why_others_are_not(self, gather) -> None:
        answers = both("A", "B") | {"C": "code 100: PolicyError (reference 0123abcd in the site's log)"}
        gather(Post(answers, absent="D"), "ABCD")
        wanted = {
            "sites": ["A", "B"],
            "persons": 12,
            "left_out": {
                "C": "code 100: PolicyError (reference 0123abcd in the site's log)",
                "D": "not connected",
            },
        }
        assert status(gather.folder) == {"norms": wanted}
        lines = [json.loads(line) for line in (gather.folder / "events.jsonl").read_text().splitlines()]
        (line,) = [line for line in lines if line["event"] == "sums"]
        assert {name: line[name] for name in wanted} == wanted
        shown = {"run": "r", "state": "finished", "round": 1, "rounds": 1, "round_seconds": []}
        shown |= {"waiting_for": [], "time": 0, "references": {"norms": wanted}}
        assert any(
            line.startswith("norms: 12 persons of A, B; without C: code 100: PolicyError")
            and line.endswith("without D: not connected")
            for line in headline(shown, now=0.0)
        )

    def test_only_sites_that_train_are_asked(self, gather) -> None:
        post = Post(both("A", "B", "C"))
        gather(post, "AB")
        assert [task.site for task in post.asked] == ["A", "B"]

    def test_nothing_is_asked_in_a_run_that_asks_for_nothing(self, gather) -> None:
        post = Post(both("A", "B"))
        assert gather(post, federation__reference="none") == {}
        assert post.asked == []

    def test_once_they_are_there_nobody_is_asked_again(self, gather) -> None:
        gather(Post(both("A", "B")))
        before = (gather.folder / "norms.safetensors").read_bytes()
        post = Post(both("A", "B", "C"))
        assert gather(post, "ABC") == {"norms": ["A", "B"]}
        assert post.asked == []
        assert (gather.folder / "norms.safetensors").read_bytes() == before
        assert status(gather.folder)["norms"]["sites"] == ["A", "B"]

    def test_a_damaged_file_is_made_again(self, gather) -> None:
        gather(Post(both("A", "B")))
        path = gather.folder / "norms.safetensors"
        before = content(path)
        path.write_bytes(path.read_bytes()[:100])
        gather(Post(both("A", "B")))
        assert content(path) == before


class TestFamiliarity:
    def test_it_is_that_of_the_pooled_sums(self, gather) -> None:
        post = Post({name: features(name) for name in "BA"})
        assert gather(post, federation__reference="familiarity") == {"familiarity": ["A", "B"]}
        rows = [np.random.default_rng([ord(n)]).normal(1.0, 2.0, (12, COUNT)) for n in "AB"]
        found = familiarity_model.load_familiarity(gather.folder / "familiarity.safetensors")
        assert found.persons == 24
        np.testing.assert_allclose(found.mean, np.concatenate(rows).mean(0))
        np.testing.assert_allclose(found.covariance, np.cov(np.concatenate(rows).T))
        origin = origin_of(gather.folder / "familiarity.safetensors")
        assert origin == Origin(("A", "B"), 24, "pasta", gather.settings.digest())

    def test_both_are_two_questions(self, gather) -> None:
        class Two(Post):
            def ask(self, parcels, message_type):
                what = ReferenceTask.of(next(iter(parcels.values()))[1]).what
                self.answers = {name: (norms if what == "norms" else features)(name) for name in "AB"}
                return super().ask(parcels, message_type)

        post = Two({})
        assert gather(post, federation__reference="both") == {"norms": ["A", "B"], "familiarity": ["A", "B"]}
        assert [(task.site, task.what) for task in post.asked] == [
            ("A", "norms"), ("B", "norms"), ("A", "familiarity"), ("B", "familiarity"),
        ]  # fmt: skip


def poisoned(change: Callable[[Parcel], object]) -> Parcel:
    parcel = norms("C")
    change(parcel)
    return parcel


POISON = {
    "NaN": (lambda p: p.arrays["uptake"].__setitem__((9, 9, 9), np.nan), "NaN or infinity"),
    "Cauchy and Schwarz": (lambda p: p.arrays["uptake_squared"].fill(0), "less than their sums allow"),
    "negative": (lambda p: p.values.update(persons=-6), "wanted a count"),
    "few": (lambda p: p.values.update(persons=4), "sums over 4 person(s), wanted at least 5"),
    "shape": (lambda p: p.arrays.update(uptake=p.arrays["uptake"][1:]), "wanted (48, 56, 48)"),
    "another grid": (
        lambda p: p.arrays.update(
            {name: np.zeros((96, 112, 96), np.float32) for name in p.arrays}
        ) or p.values.update(spacing=1.5),
        "wanted (3.0, 8.0) mm",
    ),
    "another site": (lambda p: p.values.update(site="A"), "answered for site 'A'"),
    "another answer": (lambda p: (p.values.clear(), p.values.update(site="C")), "wanted one of norms"),
}  # fmt: skip


class TestPoison:
    @pytest.mark.parametrize("kind", POISON)
    def test_it_is_left_out_with_a_reason_and_the_others_are_as_without_it(self, gather, kind: str) -> None:
        change, said = POISON[kind]
        assert gather(Post(both("A", "B") | {"C": poisoned(change)}), "ABC") == {"norms": ["A", "B"]}
        assert said in status(gather.folder)["norms"]["left_out"]["C"]
        with_it = Norms.load(gather.folder / "norms.safetensors")
        (gather.folder / "norms.safetensors").unlink()
        gather(Post(both("A", "B")), "AB")
        without = Norms.load(gather.folder / "norms.safetensors")
        np.testing.assert_array_equal(with_it.level, without.level)

    def test_more_persons_than_the_site_joined_with(self, gather) -> None:
        answers = both("A", "B") | {"C": norms("C", persons=21)}
        assert gather(Post(answers), "ABC")["norms"] == ["A", "B"]
        why = status(gather.folder)["norms"]["left_out"]["C"]
        assert why == "sums over 21 persons, joined with 20 subjects"

    def test_familiarity_where_norms_were_asked_for(self, gather) -> None:
        gather(Post(both("A", "B") | {"C": features("C")}), "ABC")
        assert "answered for site 'C', familiarity" in status(gather.folder)["norms"]["left_out"]["C"]


class TestNotMade:
    @pytest.mark.parametrize("answers", [{}, both("A"), both("A") | {"B": "no answer within 3 s"}])
    def test_of_fewer_sites_than_a_round_needs(self, gather, answers) -> None:
        assert gather(Post(answers)) == {"norms": []}
        assert not (gather.folder / "norms.safetensors").exists()
        told = status(gather.folder)["norms"]
        assert (told["sites"], told["persons"]) == ([], 0)
        assert f"sums of {len(both('A') if answers else {})} site(s)" in told["why"]
        assert "wanted at least 2" in told["why"]
        assert any("norms: not made; sums of" in line for line in headline(_shown(told), now=0.0))

    def test_of_too_few_persons(self, gather) -> None:
        answers = {"A": norms("A", persons=5)}
        assert gather(Post(answers), federation__min_sites=1) == {"norms": []}
        assert "norms of 5 cognitively normal persons" in status(gather.folder)["norms"]["why"]
        assert not list(gather.folder.glob("*.safetensors"))


def _shown(told: dict) -> dict:
    shown = {"run": "r", "state": "finished", "round": 1, "rounds": 1, "round_seconds": []}
    return shown | {"waiting_for": [], "time": 0, "references": {"norms": told}}


class TestWhatStaysOnTheDisk:
    def test_no_sites_sums_when_all_is_done(self, gather) -> None:
        gather(Post(both("A", "B")))
        kept = sorted(path.name for path in gather.folder.rglob("*"))
        assert kept == ["events.jsonl", "norms.safetensors", "status.json"]

    @pytest.mark.parametrize("answers", [both("A"), both("A") | {"B": "refused"}])
    def test_nor_when_nothing_was_made(self, gather, answers) -> None:
        gather(Post(answers))
        assert sorted(path.name for path in gather.folder.rglob("*")) == ["events.jsonl", "status.json"]

    def test_nor_when_it_stops_in_the_middle(self, gather) -> None:
        class Stopped(Post):
            def ask(self, parcels, message_type):
                yield "A", norms("A")
                (kept,) = gather.folder.glob(".partial-*")
                assert [path.name for path in kept.iterdir()] == ["A.safetensors"]
                assert kept.stat().st_mode & 0o77 == 0
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            gather(Stopped({}))
        assert not [path for path in gather.folder.rglob("*") if "safetensors" in path.name]

    def test_a_full_disk_does_not_end_the_run(self, gather, monkeypatch) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(reference, "save_file", full)
        assert gather(Post(both("A", "B"))) == {"norms": []}
        assert "No space left" in status(gather.folder)["norms"]["why"]


def test_origin_of_nothing(tmp_path: Path) -> None:
    assert origin_of(tmp_path / "norms.safetensors") is None
