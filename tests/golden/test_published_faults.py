# SPDX-License-Identifier: Apache-2.0
"""Index of the faults of the published code (METHOD.md), in its order: none of them comes back."""

import math
import re
import subprocess
import tomllib
import tracemalloc
from collections.abc import Iterator
from importlib import import_module
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from pasta_model.checkpoint import Checkpoint, load_checkpoint, new_network, new_translator
from pasta_model.comparison import evaluate_folder, synthetic_path
from pasta_model.config import settings_from_flat
from pasta_model.data.clinical import SCHEMES, Standardisation
from pasta_model.data.grid import template
from pasta_model.data.metaroi import metaroi_map, region_masks
from pasta_model.data.slabs import Batch, SlabLoader
from pasta_model.data.store import SiteStore, prepare_store
from pasta_model.data.volume import Volume, read_volume, write_volume
from pasta_model.diffusion.cycle import Translator, step_loss
from pasta_model.diffusion.losses import metaroi_weight, ssim
from pasta_model.diffusion.schedule import Schedule
from pasta_model.evaluation import score, summarise
from pasta_model.network.dual_arm import Direction, DualArm
from pasta_model.sections import DiffusionSettings, LossSettings
from pasta_model.synthesis import Synthesiser
from pasta_model.training import Place, make_optimizer, train_steps
from server.records import RunFolder
from server.rounds import Federation
from tests.support.standins import SLICES, SMALL, StandIn, draws, random_network, volumes

ROOT = Path(__file__).parents[2]
GRID = template(3.0)
SMALLEST = {"network__shape": SMALL, "sampling__hop": 1}
USUAL = Standardisation((65.0, 0.0, 14.0, 0.0, 0.0, 0.0), (10.0,) * 6)
WHO = {"subject": "s", "session": "bl", "site": "A", "diagnosis": "CN", "method": "m"}


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
    network, generator, trained = StandIn(), draws(), set()
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
    settings = make_settings(training__local_steps=4, training__accumulation=2, **SMALLEST)
    losses: list[float] = []
    train(
        new_translator(settings),
        loader_of(make_store()),
        settings,
        on_step=lambda _, loss: losses.append(loss),
    )
    assert (len(losses), made) == (4, [1])


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
    rates: list[float] = []
    loader = loader_of(make_store())
    for number in (0, 3):  # each with a new optimizer, as after a restart
        translator = new_translator(settings)
        optimizer = make_optimizer(translator.network, settings.training)
        note = lambda *_, o=optimizer: rates.append(o.param_groups[0]["lr"])  # noqa: E731
        train(translator, loader, settings, number=number, optimizer=optimizer, on_step=note)
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


def test_7_every_session_is_evaluated(make_session, tmp_path: Path) -> None:
    sessions = [
        make_session(name, session=visit) for name in ("ann", "bob", "cyd") for visit in ("bl", "m12")
    ]
    for number, session in enumerate(sessions, start=1):
        real, path = read_volume(session.pet, unit="SUVR"), synthetic_path(tmp_path / "out", session)
        path.parent.mkdir(parents=True)
        write_volume(path, Volume(real.data + np.float32(0.1 * number), real.affine, "SUVR"))
    scores = evaluate_folder(sessions, tmp_path / "out", method="m")
    assert [(s.subject, s.session) for s in scores] == [(s.subject, s.session) for s in sessions]
    assert [s.mae for s in scores] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], abs=1e-5)
    assert summarise(scores)[0].mae == pytest.approx(0.35, abs=1e-5)


def test_7_the_regions_error_is_averaged_in_the_region_only() -> None:
    inside = np.logical_or.reduce(list(region_masks(GRID.head).values()))
    mask, affine = np.ones(GRID.head.shape, bool), GRID.head.affine
    real = Volume(np.full(mask.shape, 1.2, np.float32), affine, "SUVR")
    for shift, wanted in ((np.where(inside, 0.0, 0.7), 0.0), (np.where(inside, 0.25, 0.0), 0.25)):
        other = Volume((real.data + shift).astype(np.float32), affine, "SUVR")
        assert score(real, other, mask=mask, **WHO).metaroi_error == pytest.approx(wanted, abs=1e-5)


def test_7_the_best_model_is_kept_not_the_last(make_settings, tmp_path: Path) -> None:
    settings = make_settings(run__output=str(tmp_path), **SMALLEST)
    progress = SimpleNamespace(standardisation=USUAL, best_mae=math.inf, best_round=-1)
    for number, mae in enumerate((0.3, 0.1, 0.2)):
        progress.next_round = number
        progress.state = {
            n: torch.full_like(t, number) for n, t in new_network(settings).state_dict().items()
        }
        Federation._compare(SimpleNamespace(folder=RunFolder(settings)), progress, {"A": mae}, {"A": 1.0})
    kept = load_checkpoint(tmp_path / "model.safetensors")
    assert kept.round == 1
    assert {float(t.mean()) for t in kept.state.values()} == {1.0}


def test_8_suvr_means_the_same_in_every_volume(make_session, write_scan, tmp_path: Path) -> None:
    flat = {"quiet": 1.5, "loud": 1.5}
    sessions = []
    for name, value in flat.items():
        pet = np.full(GRID.head.shape, value)
        pet[20:30, 20:30, 20:30] = {"quiet": 1.4, "loud": 6.0}[name]  # another maximum, another minimum
        sessions.append(make_session(name, pet=write_scan(tmp_path / f"{name}.nii", data=pet)))
    store = prepare_store(tmp_path / "store", sessions, spacing=3.0)
    corners = [store.slab(i, 0, 1)[1][0, 0, 0] for i in range(2)]
    assert corners == [0.0, 0.0]  # SUVR 1.5, half of the scale's 3
    assert store.slab(1, 20, 1)[1].max() == pytest.approx(3.0)  # SUVR 6 is not clipped


def test_8_training_and_synthesis_see_the_same_crop_on_the_same_scale(
    make_session, make_settings, tmp_path
) -> None:
    session = make_session("ann")
    store = prepare_store(tmp_path / "store", [session], spacing=3.0)
    settings = make_settings(**SMALLEST)
    synthesiser = Synthesiser(Checkpoint(new_network(settings).state_dict(), settings, USUAL, 1))
    source, _, _ = synthesiser._read(read_volume(session.mri), {})
    trained_on, pet = store.slab(0, 0, store.slices)
    np.testing.assert_allclose(source.numpy(), trained_on, atol=1e-3)  # the store is float16
    # And a PET that the network returns exactly comes out as the file's.
    real = read_volume(session.pet).data[GRID.slices]
    made = synthesiser._suvr(torch.from_numpy(pet), GRID)[GRID.slices]
    np.testing.assert_allclose(made, real, atol=2e-3)


@pytest.mark.parametrize("name", ["pet.nii", "pet.nii.gz"])
def test_9_nifti_keeps_origin_and_orientation(tmp_path: Path, name: str) -> None:
    affine = np.array([[1.5, 0, 0, -84.25], [0, 2, 0, -120.5], [0, 0, 3, -72.75], [0, 0, 0, 1]])
    data = np.random.default_rng(0).uniform(size=(3, 4, 5)).astype(np.float32)
    write_volume(tmp_path / name, Volume(data, affine, "SUVR"))
    found = nib.load(tmp_path / name)
    for matrix in (found.affine, found.get_sform(), found.get_qform()):
        np.testing.assert_allclose(matrix, affine, atol=1e-5)
    np.testing.assert_array_equal(found.get_fdata(dtype=np.float32), data)


def test_10_no_path_of_a_home_directory_in_the_code() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, text=True)
    names = [name for name in listed.stdout.split("\0") if name] or [str(p) for p in ROOT.glob("*/**/*.py")]
    home = re.compile(r"/home/\w|/Users/\w|/root/|/mnt/\w|[A-Z]:\\+Users")
    suffixes = {".py", ".toml", ".md", ".sh", ".yaml", ".yml", ".j2", ".cff", ".json", ""}
    code = [ROOT / n for n in names if Path(n).suffix in suffixes and not n.startswith("tests/")]
    assert len(code) > 60
    found = [
        str(p) for p in code if p.is_file() and home.search(p.read_text(encoding="utf-8", errors="replace"))
    ]
    assert found == []


def test_10_there_are_command_lines_a_roi_mask_and_tests() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    for entry in scripts.values():
        module, _, function = entry.partition(":")
        assert callable(getattr(import_module(module), function))
    commands = import_module("pasta_model.cli").app.registered_commands
    wanted = {"validate", "split", "store", "synthesize", "evaluate", "info", "import_checkpoint"}
    assert wanted <= {command.callback.__name__ for command in commands}
    assert len(region_masks(GRID.crop)) == 5
    assert min(mask.sum() for mask in region_masks(GRID.crop).values()) > 50
    assert settings_from_flat({}).loss.metaroi_strength == 9.0
