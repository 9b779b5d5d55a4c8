# SPDX-License-Identifier: Apache-2.0
"""What weights a site has in a run that starts from a model; a site reads no file that a run names."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from client import weights as weights_module
from client.site import Site
from client.weights import START
from pasta_model.checkpoint import kept_layout, new_network
from pasta_model.config import Settings
from pasta_model.errors import ExchangeError, StaleWeightsError
from pasta_model.exchange.contents import TRAIN, Parcel, TrainReport, TrainTask
from pasta_model.exchange.packing import pack
from pasta_model.exchange.steps import Step
from pasta_model.exchange.vectors import digest, float_buffers
from pasta_model.network.parts import members
from tests.support.guarded import answers
from tests.support.tasks import SMALL, Leader

ANYWHERE = "/nowhere/initial.safetensors"


@pytest.fixture
def settings(tmp_path: Path, make_settings, make_store) -> Settings:
    """A run of one site, of which only the norms are trained."""
    make_store()
    return make_settings(
        data__sites=str(tmp_path / "sites"), run__initial=ANYWHERE, exchange__trained="norms", **SMALL
    )


def site(settings: Settings) -> Site:
    return Site(Path(settings.data.sites) / "A", settings)


def start(settings: Settings) -> Path:
    return site(settings).memory.folder / START


class Beginner(Leader):
    """A server whose run starts from a model: every weight of it is a little larger than the seed's."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.model = {n: v + 0.01 for n, v in new_network(settings).state_dict().items()}
        self.weights = pack({slot.name: self.model[slot.name] for slot in self.layout.slots})
        self.base = digest(self.weights.values())
        self.kept = pack({slot.name: self.model[slot.name] for slot in kept_layout(settings).slots})
        self.digest = digest(self.kept.values())

    def everything(self, number: int, **changes: object) -> TrainTask:
        """Send all that is exchanged, and the rest."""
        told = {"start": self.digest, "rest": Step("float32", dict(self.kept))} | changes
        return TrainTask(**(vars(self.whole(number)) | told))

    def later(self, number: int) -> TrainTask:
        """Send the steps alone."""
        return TrainTask(**(vars(self.task(number)) | {"start": self.digest}))


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The weights of every network that is put together."""
    states: list[dict[str, Tensor]] = []
    real = weights_module.new_translator

    def note(settings, state):
        states.append({name: value.clone() for name, value in state.items()})
        return real(settings, state)

    monkeypatch.setattr(weights_module, "new_translator", note)
    return states


def test_a_site_without_memory_holds_nothing(settings: Settings, make_settings) -> None:
    assert site(settings).report().holds == ""
    whole = make_settings(data__sites=settings.data.sites, run__initial=ANYWHERE, **SMALL)
    assert site(whole).report().holds == "", "nor where all is exchanged"
    seed = make_settings(data__sites=settings.data.sites, exchange__trained="norms", **SMALL)
    assert site(seed).report().holds == digest(Leader(seed).weights.values())


def test_the_network_is_the_models_and_later_rounds_need_the_steps_alone(settings: Settings, used) -> None:
    leader = Beginner(settings)
    leader.follow(site(settings).train(leader.everything(0)))
    assert all(torch.equal(used[0][name], leader.model[name]) for name in leader.model)
    assert site(settings).report().holds == leader.base
    task = leader.later(1)
    assert task.rest is None
    site(settings).train(task)
    norms = members(leader.model, ["norms"])
    assert all(torch.equal(used[1][name], leader.model[name]) for name in leader.model.keys() - norms)
    assert not all(torch.equal(used[1][name], leader.model[name]) for name in norms)


def test_an_update_is_the_norms_alone(settings: Settings) -> None:
    leader = Beginner(settings)
    update = TrainReport.of(site(settings).train(leader.everything(0))).update
    norms = members(leader.model, ["norms"])
    assert update.nbytes == 4 * sum(leader.model[name].numel() for name in norms)


class TestMissing:
    @pytest.mark.parametrize("damage", [Path.unlink, lambda p: p.write_bytes(p.read_bytes()[:-1])])
    def test_what_is_gone_or_torn_is_asked_for_again(self, settings: Settings, damage: Callable) -> None:
        leader = Beginner(settings)
        leader.follow(site(settings).train(leader.everything(0)))
        damage(start(settings))
        with pytest.raises(StaleWeightsError, match="does not have what the run starts from"):
            site(settings).train(leader.later(1))
        again = leader.everything(1)
        leader.follow(site(settings).train(again))
        assert start(settings).is_file()

    def test_of_another_model_is_asked_for_again(self, settings: Settings) -> None:
        leader = Beginner(settings)
        site(settings).train(leader.everything(0))
        leader.kept = {name: values + 1 for name, values in leader.kept.items()}
        leader.digest = digest(leader.kept.values())
        with pytest.raises(StaleWeightsError, match="something else"):
            site(settings).train(leader.later(1))

    def test_without_the_parts_a_site_says_that_it_holds_nothing(self, settings: Settings) -> None:
        site(settings).train(Beginner(settings).everything(0))
        start(settings).unlink()
        assert site(settings).report().holds == ""

    def test_measuring_asks_for_it_too(self, settings: Settings) -> None:
        leader = Beginner(settings)
        with pytest.raises(StaleWeightsError):
            site(settings).evaluate(leader.everything(0, rest=None))
        site(settings).evaluate(leader.everything(0))
        site(settings).evaluate(leader.everything(0, rest=None))


class TestMalformed:
    @pytest.fixture
    def refuses(self, settings: Settings) -> Callable[..., None]:
        def refuse(said: str, **changes: object) -> None:
            task = Beginner(settings).everything(0, **changes)
            with pytest.raises(ExchangeError, match=said):
                site(settings).train(TrainTask.of(task.parcel()))
            assert not start(settings).exists()
            assert not list(start(settings).parent.glob("round-*"))
            assert not list(start(settings).parent.parent.rglob(".partial-*"))

        return refuse

    def test_of_another_size(self, settings: Settings, refuses) -> None:
        ((name, values),) = Beginner(settings).kept.items()
        refuses("wanted", rest=Step("float32", {name: values[:-1]}))

    def test_of_another_dtype(self, settings: Settings, refuses) -> None:
        ((name, values),) = Beginner(settings).kept.items()
        refuses("wanted", rest=Step("float32", {name: values.astype(np.float64)}))

    def test_of_more_buffers(self, settings: Settings, refuses) -> None:
        ((name, values),) = Beginner(settings).kept.items()
        refuses("superfluous", rest=Step("float32", {name: values, "float32.001": values}))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_of_no_numbers(self, settings: Settings, refuses, value: float) -> None:
        ((name, values),) = Beginner(settings).kept.items()
        spoilt = np.concatenate([values[:-1], np.float32([value])])
        rest = Step("float32", {name: spoilt})
        refuses("NaN or infinity", rest=rest, start=digest([spoilt]))

    def test_of_other_values_than_named(self, refuses) -> None:
        refuses("not those that the task names", start="f" * 64)

    def test_that_is_not_named(self, refuses) -> None:
        refuses("without their SHA-256", start="")

    def test_task_that_says_nothing_of_the_start(self, refuses) -> None:
        refuses("where it starts from", start="", rest=None)

    @pytest.mark.parametrize("changes", [{"run__initial": ""}, {"exchange__trained": ""}])
    def test_where_there_is_nothing_to_send(self, settings: Settings, make_settings, changes: dict) -> None:
        """A server cannot slip frozen weights into a run whose settings know of none."""
        other = {"data__sites": settings.data.sites, "run__initial": ANYWHERE, "exchange__trained": "norms"}
        run = make_settings(**(SMALL | other | changes))
        leader = Leader(run)
        told = {"start": "f" * 64, "rest": Step("float32", {"float32.000": np.zeros(3, np.float32)})}
        with pytest.raises(ExchangeError, match="where it starts from"):
            site(run).train(TrainTask(**(vars(leader.whole(0)) | told)))


def opened(run: Callable[[], object]) -> set[str]:
    """Names of all files that Python opened, and folders that it listed, while something ran."""
    names: set[str] = set()
    hearing = [True]

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if hearing and event in ("open", "os.scandir", "os.listdir"):
            names.add(str(arguments[0]))

    sys.addaudithook(hear)
    try:
        run()
    finally:
        hearing.clear()
    return names


@pytest.mark.parametrize("content", [None, b"damaged", b"\xff" * 64])
def test_a_site_reads_no_file_that_a_run_names(
    settings: Settings, make_settings, tmp_path: Path, content: bytes | None
) -> None:
    """Whatever lies at the model's path, also here, makes no difference."""
    path = tmp_path / "secret.safetensors"
    if content is not None:
        path.write_bytes(content)
    named = make_settings(
        data__sites=settings.data.sites, run__initial=str(path), exchange__trained="norms", **SMALL
    )
    leader, answer = Beginner(named), []

    def work() -> None:
        assert site(named).report().holds == ""
        answer.append(site(named).train(leader.everything(0)))
        site(named).evaluate(leader.everything(1))

    names = opened(work)
    assert any("index.json" in name for name in names), "the ear is open"
    assert not any("secret" in name for name in names)
    elsewhere = Beginner(settings)
    wanted = site(settings).train(elsewhere.everything(0))
    for name, values in wanted.arrays.items():
        assert np.array_equal(values, answer[0].arrays[name])


def test_the_guard_lets_the_parts_in_and_nothing_but_the_norms_out(make_node, update) -> None:
    node = make_node(exchange__trained="norms", run__initial=ANYWHERE)
    asked = Beginner(node.settings).everything(0).parcel()
    sent = node.ask(TRAIN, answers(update(node)), asked)
    assert TrainReport.of(sent.parcel).update is not None
    (received,) = [entry for entry in node.log if entry["event"] == "received"]
    assert received["arrays"] == len(asked.arrays) == 2, "the norms and the rest"
    sizes = float_buffers(kept_layout(node.settings))
    much = Parcel(update(node).values, {n: np.zeros(size, np.float32) for n, size in sizes.items()})
    refused = node.ask(TRAIN, answers(much), asked)
    assert refused.message.has_error()
    assert "ExchangeError" in refused.message.error.reason
