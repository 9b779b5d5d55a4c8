# SPDX-License-Identifier: Apache-2.0
"""Index of the faults of the published code (METHOD.md), 1 to 6: training. 7 to 10 are in `_of_files`."""

import math
import tracemalloc
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import pytest
import torch
from skimage.metrics import structural_similarity

from pasta_model.checkpoint import new_network, new_translator
from pasta_model.data.clinical import SCHEMES, Standardisation
from pasta_model.data.grid import template
from pasta_model.data.metaroi import metaroi_map
from pasta_model.data.slabs import Batch, SlabLoader
from pasta_model.data.store import SiteStore
from pasta_model.diffusion.cycle import Translator, step_loss
from pasta_model.diffusion.losses import metaroi_weight, ssim
from pasta_model.diffusion.schedule import Schedule
from pasta_model.network.dual_arm import Direction, DualArm
from pasta_model.sections import DiffusionSettings, LossSettings
from pasta_model.training import Place, make_optimizer, train_steps
from tests.support.standins import SLICES, SMALL, StandIn, draws, random_network, volumes

GRID = template(3.0)
SMALLEST = {"network__shape": SMALL, "sampling__hop": 1}
USUAL = Standardisation((65.0, 0.0, 14.0, 0.0, 0.0, 0.0), (10.0,) * 6)


def slabs(count: int = 2) -> Batch:
    generator = draws(5)
    mri, pet, m = (torch.rand(count, SLICES, 16, 16, generator=generator) for _ in range(3))
    return Batch(2 * mri - 1, 2 * pet - 1, m, torch.randn(count, 4, generator=generator))


def loader_of(store: SiteStore) -> SlabLoader:
    return SlabLoader(store, split="train", slab_slices=SLICES, scheme=SCHEMES["adni"], standardisation=USUAL)


def train(
    translator: Translator, loader: object, settings: object, *, number: int = 0, **words: object
) -> None:
    optimizer = words.pop("optimizer", None) or make_optimizer(translator.network, settings.training)
    train_steps(translator, loader, optimizer, settings=settings, place=Place("A", number), **words)


def test_1_training_and_sampling_show_the_network_the_same_timesteps() -> None:
    network, generator = StandIn(), draws()
    translator = Translator(network, Schedule(DiffusionSettings()))
    slab = torch.zeros(1, SLICES, 1, 1)
    for _ in range(1500):  # each of the 100 is missed with probability 3e-7
        translator.translate(slab, slab, None, direction=Direction.MRI_TO_PET, generator=generator)
    trained, network.shown = set(network.shown), []
    for solver in ("ddim", "dpm++2m"):
        volumes(network, solver=solver, steps=100, hop=3).sample(
            torch.zeros(3, 1, 1), None, generator=draws()
        )
    assert set(network.shown) == trained == set(range(0, 1000, 10))


def test_2_the_cycles_condition_is_the_slab_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[torch.Tensor] = []
    made: list[torch.Tensor] = []
    condition, denoise = DualArm.condition, DualArm.denoise

    def reading(self, source, *, direction):
        read.append(source)
        return condition(self, source, direction=direction)

    def making(self, *values, **words):
        made.append(denoise(self, *values, **words))
        return made[-1]

    monkeypatch.setattr(DualArm, "condition", reading)
    monkeypatch.setattr(DualArm, "denoise", making)
    batch = slabs()
    translator = Translator(random_network(), Schedule(DiffusionSettings()))
    step_loss(translator, batch, settings=LossSettings(), generator=draws())
    for found, wanted in zip(read, (batch.mri, made[0], batch.pet, made[2]), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_3_convolutions_compute_in_the_configured_dtype(make_settings, dtype: str) -> None:
    translator = new_translator(make_settings(training__dtype=dtype, **SMALLEST))
    seen: set[torch.dtype] = set()
    for module in translator.network.modules():
        if isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d):
            module.register_forward_hook(lambda m, i, out: seen.add(out.dtype))
    batch = slabs()
    batch = Batch(batch.mri, batch.pet, batch.metaroi, torch.zeros(2, 9))
    step_loss(translator, batch, settings=LossSettings(), generator=draws()).backward()
    assert seen == {getattr(torch, dtype)}


def test_4_the_loader_is_an_iterator_made_once(make_store, make_settings, monkeypatch) -> None:
    made: list[int] = []
    real = SlabLoader.batches

    def batches(self, batch_size, *, rng):
        made.append(batch_size)
        return real(self, batch_size, rng=rng)

    monkeypatch.setattr(SlabLoader, "batches", batches)
    settings = make_settings(training__local_steps=3, **SMALLEST)
    losses: list[float] = []
    train(
        new_translator(settings),
        loader_of(make_store()),
        settings,
        on_step=lambda _, loss: losses.append(loss),
    )
    assert (len(losses), made) == (3, [1])


def test_4_slabs_are_read_from_disk_and_the_store_is_never_in_memory(make_store, tmp_path: Path) -> None:
    make_store()
    loader_of(SiteStore(tmp_path / "sites" / "A")).at([(0, 0)])  # what is imported or cached once
    tracemalloc.start()
    store = SiteStore(tmp_path / "sites" / "A")
    opened, _ = tracemalloc.get_traced_memory()
    loader = loader_of(store)
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    for start in range(20):
        loader.at([(start % 3, start)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    slab = SLICES * 48 * 56 * 4  # bytes, float32
    assert opened < 50_000
    assert peak - before < 10 * slab < store._mri.nbytes / 3


def test_4_a_subject_costs_less_than_14_mb(make_store) -> None:
    store = make_store()
    voxels = math.prod(template(1.5).size)
    assert (store._mri.itemsize + store._pet.itemsize) * voxels < 14e6


class Fixed:
    """A loader of the same four slabs, one or two at a time."""

    def batches(self, batch_size: int, *, rng: object) -> Iterator[Batch]:
        whole = slabs(4)
        parts = (whole.mri, whole.pet, whole.metaroi, torch.zeros(4, 9))
        for split in zip(*(part.split(batch_size) for part in parts), strict=True):
            yield Batch(*split)
        yield from repeat(Batch(*split))  # for the reader, who is ahead


class Certain(Schedule):
    """No chance: always timestep 500, and noise that is none."""

    def sample_timesteps(self, batch: int, *, generator: torch.Generator) -> torch.Tensor:
        return torch.full((batch,), 500)

    def add_noise(self, x0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return super().add_noise(x0, torch.zeros_like(noise), timesteps)


def test_5_two_accumulated_slabs_are_a_batch_of_two(make_settings) -> None:
    def weights(batch_size: int, accumulation: int) -> dict[str, torch.Tensor]:
        settings = make_settings(
            training__batch_size=batch_size, training__accumulation=accumulation, training__max_grad_norm=1e9,
            training__learning_rate=0.05, loss__cycle=True, **SMALLEST,
        )  # fmt: skip
        network = new_network(settings)
        for parameter in network.parameters():
            parameter.data += 0.02  # fresh heads are zero, and would hide what lies before them
        translator = Translator(network, Certain(settings.diffusion))
        optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
        train(translator, Fixed(), settings, optimizer=optimizer)
        return network.state_dict()

    together, accumulated, half = weights(2, 1), weights(1, 2), weights(1, 1)
    for name, wanted in together.items():
        torch.testing.assert_close(accumulated[name], wanted, rtol=1e-4, atol=1e-5)
    assert max((half[n] - together[n]).abs().max() for n in half) > 1e-3


def test_5_a_resumed_run_goes_on_with_the_learning_rate(make_store, make_settings) -> None:
    settings = make_settings(training__warmup_steps=2, federation__rounds=4, **SMALLEST)  # 8 steps
    loader, rates = loader_of(make_store()), list[float]()

    def noting(optimizer: torch.optim.Optimizer):
        return lambda *_: rates.append(optimizer.param_groups[0]["lr"])

    for number in (0, 3):  # each with a new optimizer, as after a restart
        translator = new_translator(settings)
        optimizer = make_optimizer(translator.network, settings.training)
        train(translator, loader, settings, number=number, optimizer=optimizer, on_step=noting(optimizer))
    cosine = [0.05 + 0.475 * (1 + math.cos(math.pi * step / 6)) for step in (4, 5)]
    assert rates == pytest.approx([0.5e-3, 1e-3, *(1e-3 * c for c in cosine)])


def test_5_weight_decay_reaches_the_optimizer(make_settings) -> None:
    settings = make_settings(training__weight_decay=0.25, **SMALLEST)
    network = new_network(settings)
    optimizer = make_optimizer(network, settings.training)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {decays[id(p)] for p in network.parameters() if p.ndim > 1} == {0.25}
    assert len(decays) == len(list(network.parameters()))


def test_6_soft_borders_of_a_region_weigh_more_than_one() -> None:
    m = torch.from_numpy(metaroi_map(GRID.crop)).flatten().sort().values
    border = m[(m > 0.001) & (m < 0.999)]
    assert len(border) > 1000
    weight = metaroi_weight(m, strength=9.0)
    assert (metaroi_weight(border, strength=9.0) > 1).all()
    assert weight.min() >= 1
    assert weight.max() <= 10
    assert (weight.diff() >= 0).all()


def test_6_ssim_has_the_constants_of_range_two() -> None:
    x, y = slabs().pet[0, 0], slabs().mri[0, 0]
    ours = ssim(x[None, None], (x + 0.3 * y)[None, None]).item()

    def oracle(data_range: float) -> float:
        pair = x.double().numpy(), (x + 0.3 * y).double().numpy()
        words = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
        return structural_similarity(*pair, data_range=data_range, **words)[1][5:-5, 5:-5].mean()

    assert ours == pytest.approx(oracle(2.0), abs=1e-5)
    assert abs(ours - oracle(1.0)) > 1e-4
