# SPDX-License-Identifier: Apache-2.0
"""PETs by rivals: PASTA's face, PASTA's fusion and solver, and volumes that can be computed apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pasta_model.config import sampling_of
from pasta_model.data.clinical import SCHEMES
from pasta_model.data.grid import template
from pasta_model.data.scaling import PET_SCALE, mri_scale
from pasta_model.data.volume import read_volume
from pasta_model.diffusion.fusion import fuse, fusion_weights, slab_starts
from pasta_model.errors import CheckpointError, ConfigError, VolumeError
from pasta_model.seeding import torch_generator
from pasta_model.synthesis import Synthesiser
from simulation.rivals.kinds import RIVALS
from simulation.rivals.models import load_rival, save_rival
from simulation.rivals.synthesis import RivalSynthesiser

GRID = template(3.0)
KNOWN = {"age": 71.0, "sex": 1.0, "education": 16.0, "mmse": 27.0}


@pytest.fixture
def shaken(trained):
    """Train a rival a little, and move its weights so that all it is told shows in the PET."""

    def make(name: str, **changes):
        file = trained(name, f"out-{name}", steps=1, **changes) / "model.safetensors"
        model, draw = load_rival(file), torch.Generator().manual_seed(0)
        state = {n: t + 0.05 * torch.randn(t.shape, generator=draw) for n, t in model.state.items()}
        save_rival(file, replace(model, state=state))
        return file

    return make


def by_hand(file, mri, *, hop, steps=1, seed=0, name=""):
    """One chain of DDIM on slabs that are fused after each step, without the classes of `diffusion`."""
    model = load_rival(file)
    translator = model.translator()
    alphas = translator.schedule.alphas_cumprod
    source = torch.from_numpy(GRID.to_network(mri_scale(mri.data).to_network(mri.data)))
    clinical = torch.from_numpy(model.standardisation.vector(KNOWN, SCHEMES["adni"]))[None]
    starts = slab_starts(48, 5, hop)
    weights = torch.from_numpy(fusion_weights(48, 5, starts))
    x = torch.randn(source.shape, generator=torch_generator(seed, "synthesis", name))
    times = translator.schedule.sampling_timesteps(steps)
    for number, here in enumerate(times):
        slabs = []
        for start in starts:
            mri_slab, noised = (v[None, start : start + 5] for v in (source, x))
            read = translator.network.condition(mri_slab, direction=None)
            with torch.no_grad():
                made = translator.network.denoise(
                    noised, torch.tensor([here]), read, clinical, direction=None
                )
            slabs.append(made[0])
        x0 = fuse(torch.stack(slabs), starts, weights)
        if number + 1 < len(times):
            a, b = (float(alphas[t]) for t in (here, times[number + 1]))
            x = b**0.5 * x0 + (1 - b) ** 0.5 * (x - a**0.5 * x0) / (1 - a) ** 0.5
    return GRID.to_head(PET_SCALE.to_file(x0.numpy()).clip(min=0))


@pytest.mark.parametrize("name", ["U-Net", "pix2pix"])
def test_one_pass_is_the_fused_network_whatever_the_seed(name, shaken, mri, quick) -> None:
    file, scan = shaken(name), read_volume(mri)
    maker = RivalSynthesiser(file)
    assert isinstance(maker, Synthesiser)
    assert maker.network_steps == 1
    pets = [maker.synthesise(scan, KNOWN, seed=seed, name=f"sub-{seed}").data for seed in (1, 2)]
    np.testing.assert_array_equal(pets[0], pets[1])
    np.testing.assert_allclose(pets[0], by_hand(file, scan, hop=4), atol=2e-4)
    assert pets[0].std() > 0.01
    other = maker.synthesise(scan, KNOWN | {"mmse": 10.0})
    assert np.abs(other.data - pets[0]).max() > 1e-4


def test_concatenation_walks_the_chain_of_pasta(shaken, mri) -> None:
    file, scan = shaken("concatenation"), read_volume(mri)
    sampling = sampling_of(load_rival(file).settings, changes={"antithetic": False, "steps": 3})
    maker = RivalSynthesiser(file, sampling=sampling)
    assert maker.network_steps == 3
    found = maker.synthesise(scan, KNOWN, seed=4, name="sub-1")
    wanted = by_hand(file, scan, hop=4, steps=3, seed=4, name="sub-1")
    np.testing.assert_allclose(found.data, wanted, atol=1e-3)
    assert found.unit == "SUVR"
    np.testing.assert_array_equal(found.affine, scan.affine)
    other = maker.synthesise(scan, KNOWN, seed=5, name="sub-1")
    assert np.abs(other.data - found.data).max() > 1e-3


def test_samples_spread_where_there_is_noise_only(shaken, mri) -> None:
    scan = read_volume(mri)
    for name, spreads in (("concatenation", True), ("U-Net", False)):
        file = shaken(name)
        sampling = sampling_of(load_rival(file).settings, changes={"samples": 2})
        made = RivalSynthesiser(file, sampling=sampling).synthesise_samples(scan, KNOWN)
        assert (made.spread is not None) == spreads


def test_three_planes_are_averaged(shaken, mri) -> None:
    file, scan = shaken("U-Net", data__planes="all"), read_volume(mri)
    settings = load_rival(file).settings
    each = [
        RivalSynthesiser(file, sampling=sampling_of(settings, changes={"planes": plane}))
        for plane in ("axial", "coronal", "sagittal", "all")
    ]
    *single, together = (
        maker._volumes.sample(*_read(maker, scan), generator=torch_generator(0)) for maker in each
    )
    torch.testing.assert_close(together, torch.stack(single).mean(dim=0))


def _read(maker, scan):
    source, vector, _ = maker._read(scan, KNOWN)
    return source, vector


def test_what_no_rival_can_do_is_refused(shaken, mri, write_scan, tmp_path) -> None:
    file = shaken("concatenation")
    settings = load_rival(file).settings
    with pytest.raises(ConfigError, match="no conditioner, so no preview"):
        RivalSynthesiser(file).preview(read_volume(mri))
    with pytest.raises(ConfigError, match=r"sampling.start 500: .* which concatenation has not"):
        RivalSynthesiser(file, sampling=sampling_of(settings, changes={"start": 500}))
    with pytest.raises(ConfigError, match=r"trained on data\.planes 'axial'"):
        RivalSynthesiser(file, sampling=sampling_of(settings, changes={"planes": "coronal"}))
    elsewhere = write_scan(tmp_path / "elsewhere.nii", affine=np.diag([3.0, 3.0, 3.0, 1.0]))
    with pytest.raises(VolumeError, match="lies on no grid"):
        RivalSynthesiser(file).synthesise(read_volume(elsewhere), {})


def test_weights_of_another_size_are_one_message(shaken) -> None:
    file = shaken("U-Net")
    model = load_rival(file)
    save_rival(file, replace(model, width=model.width + 2))
    with pytest.raises(CheckpointError, match="its weights do not fit U-Net"):
        RivalSynthesiser(file)


@pytest.mark.parametrize("name", list(RIVALS))
def test_half_precision_trains_and_synthesises_nearly_the_same(name, shaken, mri) -> None:
    scan = read_volume(mri)
    half = shaken(name, training__dtype="bfloat16", training__channels_last=False)
    model = load_rival(half)
    exact = replace(
        model,
        settings=model.settings.model_copy(
            update={"training": model.settings.training.model_copy(update={"dtype": "float32"})}
        ),
    )
    pets = [RivalSynthesiser(half).synthesise(scan, KNOWN).data]
    save_rival(half, exact)
    pets.append(RivalSynthesiser(half).synthesise(scan, KNOWN).data)
    assert 0 < np.abs(pets[0] - pets[1]).mean() < 0.02
