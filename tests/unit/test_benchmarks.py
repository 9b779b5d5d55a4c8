# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks compare is the same function, and their tables say what was measured."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import nn

from benchmarks.plain import PLAIN_SETTINGS, plain_network
from benchmarks.privacy import no_noise
from benchmarks.privacy_methods import METHODS, NOISELESS, ORDINARILY, WAYS, Method
from benchmarks.privacy_table import reading, summary
from benchmarks.private_step import Steps
from benchmarks.private_step import table as private_step_table
from benchmarks.quality import FAULTY, REFERENCE, Cell, table
from benchmarks.run import stages
from benchmarks.synthesis import table as synthesis_table
from benchmarks.training_step import table as step_table
from pasta_model.checkpoint import new_network, new_translator
from pasta_model.config import settings_from_flat
from pasta_model.network.dual_arm import Direction
from pasta_model.privacy.mechanism import Mechanism

SHAPE = "slices 3, width 8, multipliers 1-2, blocks 1, attention 2, heads 2, groups 4"


def test_plain_network_is_the_same_function() -> None:
    own = {"network.shape": SHAPE, "training.dtype": "float32", "sampling.hop": 1}
    generator = torch.Generator().manual_seed(0)
    state = {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in new_network(settings_from_flat(own)).state_dict().items()
    }
    x, clinical = torch.randn(2, 3, 16, 24, generator=generator), torch.randn(2, 9, generator=generator)

    def run(settings: dict[str, bool | str]) -> torch.Tensor:
        network = new_translator(settings_from_flat(settings), state).network
        with torch.inference_mode():
            read = network.condition(x, direction=Direction.MRI_TO_PET)
            return network.denoise(x, torch.tensor([990, 0]), read, clinical, direction=Direction.MRI_TO_PET)

    ours = run(own)
    with plain_network():
        plain = run({**own, **PLAIN_SETTINGS})
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def row(cell: Cell, subject: str, *, mae: float) -> dict:
    told = {"fusion": cell.fusion, "solver": cell.solver, "steps": cell.steps, "hop": cell.hop}
    told |= {"shown": cell.shown, "samples": cell.samples, "subject": subject}
    return told | {"mae": mae, "ssim": 0.8, "metaroi": 0.1, "roughness": 0.9, "spectrum": 2.0}


def test_cells_are_compared_on_the_same_subjects() -> None:
    ours = Cell("every-step", "dpm++2m", 5, 7)
    rows = [row(REFERENCE, "a", mae=0.2), row(REFERENCE, "b", mae=9.0), row(ours, "a", mae=0.1)]
    line = next(line for line in table(rows).splitlines() if line.startswith("| every-step"))
    # 96 slices, slabs of 15: starts 0, 7, ..., 77 and 81, 13 slabs; the conditioner and five steps.
    assert line.startswith("| every-step | dpm++2m | 5 | 7 | 78 | 1 | 0.1000 (-50.0%) | 0.8000 (+0.0%) |")


def test_cells_are_the_published_procedure_or_ours() -> None:
    sampling = REFERENCE.sampling()
    assert (sampling.fusion, sampling.noise, sampling.hop, sampling.steps) == ("end", "slab", 1, 100)
    assert not sampling.published_timesteps
    assert FAULTY.sampling().published_timesteps
    assert Cell("every-step", "ddim", 5, 7).sampling().noise == "volume"


def test_tables_give_ratios_to_the_first_row() -> None:
    rows = [
        {"name": "plain", "seconds": 100.0, "memory": 2e9},
        {"name": "ours", "seconds": 1.0, "memory": 1e9},
    ]
    found = {"hardware": "a machine", "size": "base", "rows": rows}
    assert "| ours | 1.0 | 100 |" in synthesis_table(found)
    rows.append({"name": "bfloat16", "seconds": None, "why": "no such units here"})
    steps = {**found, "peak_dtype": "torch.float32", "peak": 1e12, "batch_size": 1, "flops": 5e11}
    assert "| ours | 1.00 | 100.00 x | 1.00 | 50% |" in step_table(steps)
    assert "| bfloat16 | not measured: no such units here |" in step_table(steps)


def test_a_gpu_machine_trains_base(tmp_path) -> None:
    train = stages(tmp_path, "cuda")["train"]
    assert train[train.index("--size") + 1] == "base"
    assert "--size" not in stages(tmp_path, "cpu")["train"]
    assert "privacy" in stages(tmp_path, "cpu")
    assert "--device" in stages(tmp_path, "cuda")["private_step"]


def test_ordinary_training_has_no_privacy(tmp_path) -> None:
    private, ordinary = (Method("norms", e).settings(tmp_path, 0) for e in (3.0, ORDINARILY))
    assert (private.privacy.unit, private.privacy.epsilon) == ("subject", 3.0)
    assert ordinary.privacy.unit == "none"
    for settings in (private, ordinary):
        assert settings.exchange.trained_parts == ("norms",)
        assert settings.run.initial.endswith("last.safetensors")
    assert Method("scratch", 3.0).settings(tmp_path, 0).run.initial == ""
    assert len({m.name for m in METHODS}) == len(METHODS)


def test_an_epsilon_of_infinity_is_a_private_run_without_its_noise(tmp_path) -> None:
    own = {"run.name", "run.output", "privacy.epsilon"}
    for way in WAYS:
        private, noiseless = (Method(way, e).settings(tmp_path, 0).flat() for e in (3.0, NOISELESS))
        assert {name for name, value in private.items() if noiseless[name] != value} == own
        assert Method(way, NOISELESS) in METHODS
    assert Method("norms", NOISELESS).name == "pre-trained, norms, epsilon infinity"

    def released() -> torch.Tensor:
        weights = nn.Parameter(torch.zeros(1000))
        optimizer = torch.optim.SGD([weights], lr=1.0)
        made = Mechanism(optimizer, noise_multiplier=1.0, max_grad_norm=2.0, expected_subjects=4.0)
        weights.grad = torch.arange(1000) / 1000
        made.add()
        made.step()
        return -weights.detach()

    clipped = torch.arange(1000) / (torch.arange(1000).float().norm()) * 2.0 / 4.0
    with no_noise():
        assert torch.allclose(released(), clipped, atol=1e-6)
    assert (released() - clipped).std() > 0.4  # 2 / 4


def subject(number: int, *, sick: bool, loss: float) -> dict:
    regions = dict.fromkeys("ab", 1.3 - (loss if sick else 0.0) + 0.01 * number)
    told = {"site": "alder", "subject": f"{number}", "diagnosis": "Dementia" if sick else "CN"}
    return told | {"mae": 0.1, "regions": regions}


def test_privacy_table_reads_synthetic_pets_with_what_real_ones_taught() -> None:
    def cohort(loss: float) -> list[dict]:
        return [subject(n, sick=n % 2 == 0, loss=loss) for n in range(8)]

    real = {"train": cohort(0.4), "test": cohort(0.4)}
    good, blind = summary(cohort(0.4), real), summary(cohort(0.0), real)
    assert good["mean"].tolist() == [pytest.approx(0.1), 0.0, 1.0, 1.0]
    # Nobody looks demented: half of the truth is missed, and each sick one is 0.4 off.
    assert blind["mean"][:3].tolist() == [pytest.approx(0.1), pytest.approx(0.2), 0.5]
    assert blind["low"][1] <= 0.2 <= blind["high"][1]


def test_reading_is_balanced_accuracy_and_auc() -> None:
    rng = np.random.default_rng(0)
    chance, demented = rng.integers(0, 11, 40) / 10, rng.random(40) < 0.3
    wanted = balanced_accuracy_score(demented, chance > 0.5), roc_auc_score(demented, chance)
    assert reading(chance, demented) == pytest.approx(wanted)


def test_a_private_step_is_timed_against_ordinary_ones() -> None:
    settings = settings_from_flat({"network.shape": SHAPE, "training.dtype": "float32", "sampling.hop": 1})
    steps = Steps(settings, subjects=2, slabs=1)
    before = [p.detach().clone() for p in steps.translator.network.parameters()]
    for way in steps.ways().values():
        way()
        after = [p.detach().clone() for p in steps.translator.network.parameters()]
        assert any((a != b).any() for a, b in zip(after, before, strict=True))
        before = after
    rows = [{"size": "tiny", "dtype": "float32", "subjects": 2, "slabs": 1}]
    rows[0] |= {"private": 1.1, "accumulated": 1.0, "one large batch": 0.5}
    rows.append({"subjects": 4, "way": "private", "growth": 2e6, "peak": 3e6})
    said = private_step_table({"hardware": "a machine", "rows": rows})
    assert "| `tiny` | float32 | 2 x 1 | 1.10 | **1.10** | 2.20 |" in said
    assert "| 4 | private | 2 | 3 |" in said
