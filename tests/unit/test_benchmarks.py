# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks compare is the same function, and their tables say what was measured."""

import torch

from benchmarks.plain import PLAIN_SETTINGS, plain_network
from benchmarks.quality import FAULTY, REFERENCE, Cell, table
from benchmarks.run import stages
from benchmarks.synthesis import table as synthesis_table
from benchmarks.training_step import table as step_table
from pasta_model.checkpoint import new_network, new_translator
from pasta_model.config import settings_from_flat
from pasta_model.network.dual_arm import Direction

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
