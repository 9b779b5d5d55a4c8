# SPDX-License-Identifier: Apache-2.0
"""Packing is the identity, bit by bit, for every dtype."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pasta_model.errors import ExchangeError
from pasta_model.exchange import packing
from pasta_model.exchange.packing import Layout, check_buffers, pack, unpack

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.bool,
    torch.uint8,
]


@st.composite
def states(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """State dicts with every dtype, with NaN and infinity, empty and 0-d tensors, views and layouts."""
    state = {}
    for name in draw(st.lists(st.text("abc.", min_size=1, max_size=4), unique=True, max_size=8)):
        shape = draw(st.lists(st.integers(0, 4), max_size=4))
        dtype = draw(st.sampled_from(DTYPES))
        count = int(np.prod(shape, dtype=int))
        raw = draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
        if dtype == torch.bool:
            raw = bytes(b % 2 for b in raw)
        flat = torch.frombuffer(bytearray(raw), dtype=dtype) if count else torch.zeros(0, dtype=dtype)
        tensor = flat.reshape(shape)
        if tensor.ndim == 4 and draw(st.booleans()):
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        if tensor.ndim == 2 and draw(st.booleans()):
            tensor = tensor.T
        state[name] = tensor
    return state


def bits(tensor: torch.Tensor) -> bytes:
    tensor = tensor.clone(memory_format=torch.contiguous_format)
    return bytes(tensor.untyped_storage()[: tensor.numel() * tensor.element_size()])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(states(), st.sampled_from([8, 24, 64 * 2**20]))
def test_there_and_back_is_the_identity(
    monkeypatch: pytest.MonkeyPatch, state: dict[str, torch.Tensor], limit: int
) -> None:
    monkeypatch.setattr(packing, "BUFFER_BYTES", limit)
    buffers = pack(state)
    assert all(b.ndim == 1 and b.nbytes <= limit for b in buffers.values())
    assert sum(b.nbytes for b in buffers.values()) == sum(
        t.numel() * t.element_size() for t in state.values()
    )
    found = unpack(buffers, Layout.of(state))
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert bits(found[name]) == bits(tensor)


@given(states())
def test_order_of_names_does_not_matter(state: dict[str, torch.Tensor]) -> None:
    turned = dict(reversed(state.items()))
    assert Layout.of(turned) == Layout.of(state)
    assert Layout.of(turned).digest() == Layout.of(state).digest()


def test_a_model_travels_in_one_buffer() -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(3, 3) for _ in range(50)))
    assert list(pack(model.state_dict())) == ["float32.000"]


def test_what_was_unpacked_can_be_trained_without_changing_the_message() -> None:
    state = {"a": torch.ones(3), "b": torch.ones(2)}
    buffers = pack(state)
    found = unpack(buffers, Layout.of(state))
    found["a"] += 1
    assert buffers["float32.000"].tolist() == [1] * 5
    assert found["b"].tolist() == [1, 1]


def test_how_a_tensor_lies_in_memory_is_not_seen_on_the_wire() -> None:
    weights = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    laid = {"a": weights.to(memory_format=torch.channels_last), "b": torch.arange(6.0).reshape(2, 3).T}
    assert not any(tensor.is_contiguous() for tensor in laid.values())
    (buffer,) = pack(laid).values()
    assert buffer.tolist() == [*range(120), 0, 3, 1, 4, 2, 5]


def test_layouts_of_other_networks_have_another_digest() -> None:
    one = Layout.of({"a": torch.zeros(2, 3)})
    others = [{"a": torch.zeros(3, 2)}, {"b": torch.zeros(2, 3)}, {"a": torch.zeros(2, 3).half()}]
    assert all(Layout.of(other).digest() != one.digest() for other in others)


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.pop("float32.000"),
        lambda b: b.update({"float32.001": np.zeros(1, np.float32)}),
        lambda b: b.update({"float32.000": np.zeros(5, np.float32)}),
        lambda b: b.update({"float32.000": np.zeros(6, np.float64)}),
        lambda b: b.update({"float32.000": np.zeros((2, 3), np.float32)}),
        lambda b: b.update({"float32.000": np.zeros(6, ">f4")}),
        lambda b: b.update({"bool.000": np.zeros(2, np.int8)}),
    ],
)
def test_wrong_buffers(change) -> None:
    state = {"a": torch.zeros(2, 3), "flag": torch.zeros(2, dtype=torch.bool)}
    buffers = pack(state)
    check_buffers(buffers, Layout.of(state))
    change(buffers)
    with pytest.raises(ExchangeError, match=r"found .* wanted"):
        unpack(buffers, Layout.of(state))


@given(states(), st.integers(0, 2**8))
def test_layout_of_some_tensors_is_that_of_a_state_of_those(
    state: dict[str, torch.Tensor], chosen: int
) -> None:
    names = {name for bit, name in enumerate(sorted(state)) if chosen >> bit & 1}
    assert Layout.of(state).only(names) == Layout.of({n: t for n, t in state.items() if n in names})
