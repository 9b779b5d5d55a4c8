# SPDX-License-Identifier: Apache-2.0
"""`pasta import-checkpoint`: what was trained with the published code comes in, or is refused whole."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pasta_model.checkpoint import load_checkpoint
from tests.support.commands import Outcome
from tests.support.published import make_state

CONFIG = {"slices": 3, "width": 32, "mults": (1, 2), "blocks": 1, "attention": (2,)}
SHAPE = "slices 3, width 32, multipliers 1-2, blocks 1, attention 2, heads 4, groups 32"
State = dict[str, torch.Tensor]


@pytest.fixture
def state() -> State:
    return make_state(**CONFIG)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "models" / "imported.safetensors"


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., Path]:
    """Save a state as the published code does: step, model, opt, ema, scaler."""

    def save(state: State, **changes: object) -> Path:
        whole = {"step": 9, "model": state, "opt": {"state": {}, "param_groups": []}, "scaler": None}
        averaged = {
            **{f"ema_model.{name}": tensor + 1 for name, tensor in state.items()},
            **{f"online_model.{name}": tensor for name, tensor in state.items()},
            "step": torch.tensor([9]),
            "initted": torch.tensor([True]),
        }
        torch.save({**whole, "ema": averaged, **changes}, tmp_path / "model.pt")
        return tmp_path / "model.pt"

    return save


@pytest.fixture
def refused(pasta_refuses: Callable[..., str], out: Path) -> Callable[..., str]:
    """Expect a file to be refused, and an older output to stay as it was."""

    def run(path: Path, *words: str) -> str:
        said = pasta_refuses("import-checkpoint", path, out, *words)
        out.parent.mkdir(exist_ok=True)
        out.write_bytes(b"an older model")
        assert pasta_refuses("import-checkpoint", path, out, *words) == said
        assert str(path) in said
        return said

    return run


def never_used(name: str) -> bool:
    """The header of the list of names: times of resampling blocks, the conditioner's clinical networks."""
    clinical = name.startswith("encoder.") and "tab_embed" in name
    resampling = name.partition(".")[2].startswith(("input_blocks.2.", "output_upsample_blocks."))
    return clinical or ("emb_layers" in name and resampling)


# --- What comes in --------------------------------------------------------------------------


def test_weights_come_in_and_the_model_is_known(
    pasta: Callable[..., Outcome], publish, state: State, out: Path
) -> None:
    path = publish(state)
    before = path.read_bytes()
    said = pasta("import-checkpoint", path, out)
    assert (said.status, said.err) == (0, "")
    used = [tensor for name, tensor in state.items() if not never_used(name)]
    assert f"{out}: {sum(t.numel() for t in used):,} parameters, {SHAPE}" in said.out
    assert f"left out: {len(state) - len(used)} tensors" in said.out
    assert path.read_bytes() == before
    assert [file.name for file in out.parent.iterdir()] == [out.name]

    found = load_checkpoint(out)
    assert sorted(float(t.double().sum()) for t in found.state.values()) == pytest.approx(
        sorted(float(t.double().sum()) for t in used)
    )
    assert found.settings.data.clinical == "adni"
    told = pasta("info", "--model", out)
    assert (told.status, told.err) == (0, "")
    assert f"{sum(t.numel() for t in used) / 1e6:.3f} M" in told.out
    for part in ("slices 3", "width 32", "multipliers 1-2"):
        assert part in told.out, "a model says its shape"


def test_moving_average_if_asked(pasta: Callable[..., Outcome], publish, state: State, out: Path) -> None:
    path = publish(state)
    for name, words in (("raw", []), ("ema", ["--ema"])):
        assert pasta("import-checkpoint", path, out.with_name(name), *words).status == 0
    raw, averaged = (load_checkpoint(out.with_name(name)).state for name in ("raw", "ema"))
    assert raw.keys() == averaged.keys()
    assert all(torch.equal(averaged[name], raw[name] + 1) for name in raw)


def test_what_the_file_cannot_tell_can_be_said(
    pasta: Callable[..., Outcome], publish, state: State, out: Path
) -> None:
    said = pasta("import-checkpoint", publish(state), out, "--shape", "heads 8")
    assert said.status == 0
    assert "heads 8" in said.out
    assert load_checkpoint(out).settings.network.resolved.heads == 8


def test_imported_model_refuses_an_mri_of_another_spacing(
    pasta: Callable[..., Outcome], pasta_refuses, publish, state: State, out: Path, tmp_path, write_scan
) -> None:
    assert pasta("import-checkpoint", publish(state), out).status == 0
    mri = write_scan(tmp_path / "sub-01.nii.gz", gain=300.0)
    said = pasta_refuses("synthesize", "--model", out, mri, tmp_path / "pets")
    assert "found MNI152 3 mm, the model was trained at 1.5 mm" in said


# --- What is refused ------------------------------------------------------------------------


class Danger:
    """Makes a folder when it is unpickled without care."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("it-ran",)


BYTES = {
    "cut": lambda whole: whole[: len(whole) // 2],
    "cut by a byte": lambda whole: whole[:-1],
    "empty": lambda whole: b"",
    "text": lambda whole: b"hello",
    "random": lambda whole: np.random.default_rng(0).bytes(4000),
    "pickle that runs code": lambda whole: b"cos\nmkdir\n(S'it-ran'\ntR.",
}


@pytest.mark.parametrize("fault", BYTES)
def test_file_that_cannot_be_read(fault: str, publish, state, refused, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = publish(state)
    path.write_bytes(BYTES[fault](path.read_bytes()))
    assert "cannot be read" in refused(path)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("place", ["model", "opt", "ema"])
def test_file_that_holds_code(place: str, publish, state, refused, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "cannot be read" in refused(publish(state, **{place: Danger()}))
    assert not (tmp_path / "it-ran").exists()


def test_code_would_have_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without care the same file does run its code, so that the tests above prove something."""
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Danger()}, "model.pt")
    torch.load("model.pt", weights_only=False)
    assert (tmp_path / "it-ran").is_dir()


def test_file_that_is_missing(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "no such file" in refused(tmp_path / "none.pt")


@pytest.mark.parametrize("content", [[1], 3, {}, {"model": 3}, {"model": {}}, {"step": 3}])
def test_file_without_a_state(content: object, tmp_path: Path, refused: Callable[..., str]) -> None:
    torch.save(content, tmp_path / "model.pt")
    assert "wanted" in refused(tmp_path / "model.pt")


def test_arms_of_another_size_name_every_tensor(publish, state: State, refused: Callable[..., str]) -> None:
    """The PET's arm of one size, the MRI's of another: its block 4 is of no use to the former."""
    other = make_state(**{**CONFIG, "blocks": 2, "width": 64})
    theirs = {name: tensor for name, tensor in other.items() if name.startswith("encoder.")}
    ours = {name: tensor for name, tensor in state.items() if name.startswith("model.")}
    said = refused(publish({**ours, **theirs}))
    named = set(re.findall(r"(?m)^  - (\S+): unexpected$", said))
    assert named == theirs.keys() - state.keys()
    misshapen = {n for n in theirs.keys() & state.keys() if theirs[n].shape != state[n].shape}
    assert set(re.findall(r"(?m)^  - (\S+): shape", said)) == {n for n in misshapen if not never_used(n)}


def test_missing_and_unexpected_tensors_are_listed(publish, state: State, refused) -> None:
    missing = [name for name in state if name.startswith("encoder.middle_block.") and not never_used(name)]
    for name in missing:
        del state[name]
    state |= {"model.extra": torch.zeros(3), "beta_schedule": torch.zeros(1000)}
    said = refused(publish(state))
    assert f"{len(missing) + 2} problem(s)" in said
    assert all(f"  - {name}: missing" in said for name in missing)
    assert all(f"  - {name}: unexpected" in said for name in ("model.extra", "beta_schedule"))


TELLING = ("0.0.weight", "1.0.out_layers.3.weight", "2.0.h_upd.op.weight", "3.0.out_layers.3.weight")


@pytest.mark.parametrize("name", TELLING)
def test_tensor_that_tells_the_size_is_missing_or_damaged(name: str, publish, state: State, refused) -> None:
    name = f"model.input_blocks.{name}"
    assert name in refused(publish(state | {name: torch.zeros(())})), "damaged"
    del state[name]
    assert name in refused(publish(state)), "missing"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value: float, publish, state: State, refused) -> None:
    state["encoder.out.2.weight"][0, 0, 0, 0] = value
    said = refused(publish(state))
    assert "encoder.out.2.weight: holds values that are not finite" in said
    assert "1 problem(s)" in said


def test_moving_average_that_is_not_there(publish, state: State, refused: Callable[..., str]) -> None:
    assert "import it without --ema" in refused(publish(state, ema={}), "--ema")


@pytest.mark.parametrize("words", ["heads 5", "groups 7", "colour 3", "width 48", "heads many"])
def test_shape_that_cannot_be(words: str, publish, state: State, pasta_refuses, out: Path) -> None:
    said = pasta_refuses("import-checkpoint", publish(state), out, "--shape", words)
    assert words.split(maxsplit=1)[0] in said or "wanted (48," in said


def test_output_that_cannot_be_written(publish, state: State, pasta_refuses, tmp_path: Path) -> None:
    path = publish(state)
    (tmp_path / "folder").mkdir()
    assert "is a folder" in pasta_refuses("import-checkpoint", path, tmp_path / "folder")
    assert "a file is where a folder" in pasta_refuses("import-checkpoint", path, path / "out.safetensors")
