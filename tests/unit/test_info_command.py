# SPDX-License-Identifier: Apache-2.0
"""`pasta info`: what a network costs, in numbers that can be checked against the published ones."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import Outcome

# Counted in the list of names and shapes of a published checkpoint; METHOD: 44.548 M and 89.096 M.
PUBLISHED_ARM = 44_547_855
NEVER_USED = 2_696_064


@pytest.fixture
def told(pasta: Callable[..., Outcome]) -> Callable[..., str]:
    """What `pasta info` prints."""

    def run(*words: object) -> str:
        said = pasta("info", *words)
        assert (said.status, said.err) == (0, "")
        return said.out

    return run


def number(text: str, row: str, unit: str) -> float:
    """The number of the first row whose name matches."""
    found = re.search(rf"(?m)^\s*{row}.*?\s([\d,.]+) {unit}", text)
    assert found, (row, text)
    return float(found[1].replace(",", ""))


def test_base_is_the_published_network(told: Callable[..., str]) -> None:
    said = told("--size", "base")
    assert re.search(r"\b44\.548\b", said)
    assert re.search(r"\b89\.096\b", said)
    assert "15 x 96 x 112" in said
    used = 2 * PUBLISHED_ARM - NEVER_USED
    assert f"{used / 1e6:.3f} M" in said
    assert number(said, "on the wire", "MB") == pytest.approx(4 * used / 1e6, abs=0.1)
    names = ("time embedding", "time in", "clinical in", "attention", "resampling", "stem", "residual")
    parts = sum(number(said, name, "M") for name in names)
    assert parts == pytest.approx(number(said, ".*PET arm", "M"), abs=0.004)
    for row in ("multiply-adds.*conditioning", "denoising"):
        # METHOD: 86.3 GFLOP an arm and pass, of which doubling on the small grid saves a part.
        assert 35 < number(said, row, "G") <= 43.2


def test_memory_grows_with_the_batch(told: Callable[..., str]) -> None:
    one, two = (told("--size", "small", "--batch-size", n) for n in (1, 2))
    assert number(one, "weights, gradients", "GB") == number(two, "weights, gradients", "GB") > 0
    assert 1.8 < number(two, "activations", "GB") / number(one, "activations", "GB") < 2.1
    whole = number(one, "weights, gradients", "GB") + number(one, "activations", "GB")
    assert number(one, "training step of 1", "GB") == pytest.approx(whole, abs=0.011)


@pytest.mark.parametrize("size", ["tiny", "small"])
@pytest.mark.parametrize("spacing", [1.5, 3])
def test_every_size_and_spacing(size: str, spacing: float, told: Callable[..., str]) -> None:
    said = told("--size", size, "--spacing", spacing)
    assert f"15 x {'96 x 112' if spacing == 1.5 else '48 x 56'}" in said


def test_model_says_its_rounds_and_shape(make_model: Callable[..., Path], told: Callable[..., str]) -> None:
    path = make_model()
    said = told("--model", path)
    assert str(path) in said.replace("\n", "")
    assert re.search(r"rounds trained\W+7\b", said)
    assert "slices 5, width 8" in said
    assert "5 x 48 x 56" in said


WRONG = {
    "--size huge": "'tiny', 'small' or 'base'",
    "--spacing 2": "1.5 or 3.0",
    "--batch-size 0": "--batch-size",
    "--model nowhere.safetensors": "no such file",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_told(words: str, pasta_refuses: Callable[..., str]) -> None:
    assert WRONG[words] in pasta_refuses("info", *words.split())
