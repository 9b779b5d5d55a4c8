# SPDX-License-Identifier: Apache-2.0
"""Vectors on disk are safetensors files, to the library and to us; whole or not at all."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pasta_model.errors import CheckpointError, ExchangeError
from pasta_model.exchange import packing
from pasta_model.exchange.packing import Layout, pack
from pasta_model.exchange.vectors import Vector, digest, float_buffers, vector_writer, write_vector

SHAPES = st.dictionaries(
    st.text("abc.", min_size=1, max_size=5),
    st.lists(st.integers(1, 4), max_size=3).map(tuple),
    min_size=1,
    max_size=6,
)


def state_of(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


STATE = state_of({"b.weight": (3, 4), "a.bias": (5,), "c": ()})
LAYOUT = Layout.of(STATE)


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "BUFFER_BYTES", 16)  # four values


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes=SHAPES)
def test_the_library_reads_what_we_write(tmp_path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    state = state_of(shapes)
    layout, path = Layout.of(state), tmp_path / "v.safetensors"
    written = write_vector(path, layout, pack(state).values(), metadata={"round": "3"})
    found = load_file(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"round": "3"}
    flat = np.concatenate([state[name].numpy().reshape(-1) for name in sorted(state)])
    assert written == hashlib.sha256(flat.tobytes()).hexdigest()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes=SHAPES)
def test_we_read_what_the_library_writes_in_our_order(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]]
) -> None:
    state = state_of(shapes)
    path = tmp_path / "v.safetensors"
    save_file({name: state[name] for name in sorted(state)}, path, metadata={"a": "b"})
    vector = Vector(path, Layout.of(state))
    buffers = pack(state)
    assert [name for name, _ in vector.pieces()] == list(buffers)
    for name, values in vector.pieces():
        np.testing.assert_array_equal(values, buffers[name])
        np.testing.assert_array_equal(vector[name], buffers[name])
    assert vector.digest() == digest(buffers.values())
    assert vector.metadata == {"a": "b"}


def test_what_is_read_is_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    write_vector(path, LAYOUT, pack(STATE).values())
    vector = Vector(path, LAYOUT)
    vector["float32.000"][:] = 0
    assert vector.digest() == digest(pack(STATE).values())


def test_digest_is_of_the_values_not_of_the_buffers() -> None:
    values = np.arange(10, dtype=np.float32)
    assert digest([values]) == digest([values[:3], values[3:]]) == digest([values[::1]])
    assert digest([values]) != digest([values[::-1]])
    assert digest([np.array([0.0], np.float32)]) != digest([np.array([-0.0], np.float32)])


class TestTornFiles:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        write_vector(tmp_path / "v.safetensors", LAYOUT, pack(STATE).values())
        return tmp_path / "v.safetensors"

    @pytest.mark.parametrize("keep", [0, 1, 7, 8, 20, -1, -4, -40])
    def test_cut_short(self, path: Path, keep: int) -> None:
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(CheckpointError, match=r"v\.safetensors: not"):
            Vector(path, LAYOUT)

    def test_too_long(self, path: Path) -> None:
        path.write_bytes(path.read_bytes() + b"\0" * 4)
        with pytest.raises(CheckpointError, match="not the tensors"):
            Vector(path, LAYOUT)

    def test_header_of_terabytes(self, path: Path) -> None:
        path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])
        with pytest.raises(CheckpointError, match="not a readable safetensors file"):
            Vector(path, LAYOUT)

    @pytest.mark.parametrize("header", [b"[1, 2]", b"3", b'"x"', b"null"])
    def test_header_that_is_no_table(self, path: Path, header: bytes) -> None:
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(CheckpointError):
            Vector(path, LAYOUT)

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="not a readable safetensors file"):
            Vector(tmp_path / "nowhere.safetensors", LAYOUT)

    @pytest.mark.parametrize(
        "state",
        [
            {"b.weight": torch.zeros(4, 3), "a.bias": torch.zeros(5), "c": torch.zeros(())},
            {"b.weight": torch.zeros(3, 4), "a.bias": torch.zeros(5)},
            {**STATE, "d": torch.zeros(1)},
            {"b.weight": torch.zeros(3, 4).double(), "a.bias": torch.zeros(5), "c": torch.zeros(())},
        ],
        ids=["another shape", "one less", "one more", "another dtype"],
    )
    def test_other_tensors(self, tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
        save_file({n: state[n] for n in sorted(state)}, tmp_path / "v.safetensors")
        with pytest.raises(CheckpointError, match="not the tensors that these settings exchange"):
            Vector(tmp_path / "v.safetensors", LAYOUT)

    def test_tensors_in_another_order(self, path: Path) -> None:
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        header["c"]["data_offsets"], header["a.bias"]["data_offsets"] = [0, 4], [4, 24]
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
        with pytest.raises(CheckpointError, match="in their order"):
            Vector(path, LAYOUT)


class TestNothingHalfWritten:
    SPOILT: ClassVar[dict[str, Callable[[list[np.ndarray]], object]]] = {
        "too few": lambda pieces: pieces.pop(),
        "too many": lambda pieces: pieces.append(pieces[0]),
        "wrong size": lambda pieces: pieces.__setitem__(2, np.zeros(3, np.float32)),
        "NaN": lambda pieces: pieces[-1].__setitem__(0, np.nan),
        "infinite": lambda pieces: pieces[0].__setitem__(3, -np.inf),
        "float64": lambda pieces: pieces.__setitem__(1, pieces[1].astype(np.float64)),
    }

    @pytest.fixture(params=[False, True], ids=["no file before", "a file before"])
    def path(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
        """A path that is afterwards as it was before."""
        path = tmp_path / "v.safetensors"
        if request.param:
            write_vector(path, LAYOUT, pack(STATE).values())
        before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
        yield path
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before

    @pytest.mark.parametrize("kind", SPOILT)
    def test_pieces_that_are_not_those_of_the_layout(self, path: Path, kind: str) -> None:
        pieces = [piece + np.float32(1) for piece in pack(STATE).values()]
        self.SPOILT[kind](pieces)
        with pytest.raises(ExchangeError):
            write_vector(path, LAYOUT, pieces)

    def test_interruption(self, path: Path) -> None:
        def pieces() -> Iterator[np.ndarray]:
            yield from list(pack(STATE).values())[:3]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_vector(path, LAYOUT, pieces())

    def test_writer_that_is_left_early_leaves_nothing(self, tmp_path: Path) -> None:
        with (
            pytest.raises(ExchangeError, match="buffers are missing"),
            vector_writer(tmp_path / "v.safetensors", LAYOUT) as writer,
        ):
            writer.add(pack(STATE)["float32.000"])
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("state", "said"),
    [({"a": torch.zeros(2, dtype=torch.int64)}, "int64"), ({}, "no tensor")],
    ids=["counts", "nothing"],
)
def test_only_float32_is_exchanged(state: dict[str, torch.Tensor], said: str) -> None:
    with pytest.raises(ExchangeError, match=f"{said}.*wanted float32"):
        float_buffers(Layout.of(state))
