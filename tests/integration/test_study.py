# SPDX-License-Identifier: Apache-2.0
"""A study as a user runs it: killed again and again, it ends as an undisturbed one."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from pasta_model.data.tables import read_table
from pasta_model.errors import Problems
from pasta_model.evaluation.tables import read_scores

pytestmark = [pytest.mark.integration, pytest.mark.slow]

METHODS = ("fedavg", "alone", "mean PET", "U-Net")
STUDY = f"""
name = "A small study"
seeds = [4]
methods = [{", ".join(f'"{name}"' for name in METHODS)}]

[cohort.twins]
seed = 9
sites = [
    {{ name = "alder", subjects = 8 }},
    {{ name = "birch", subjects = 6, vendor = "GE" }},
    {{ name = "cedar", subjects = 4 }},
]

[partition]
held-out = ["cedar"]

[split]
valid = 0.2
test = 0.3

[measure]
samples = 2
smallest-group = 2

[settings.network]
shape = "slices 5, width 8, multipliers 1, blocks 1, attention none, heads 1, groups 4, patch 4"

[settings.sampling]
steps = 2
hop = 4

[settings.federation]
rounds = 2

[settings.training]
local-steps = 2
batch-size = 2
warmup-steps = 1
learning-rate = 0.01
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "study.toml"
    path.write_text(STUDY, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def undisturbed(file: Path) -> Path:
    output = file.parent / "undisturbed"
    done = start(file, output)
    assert done.wait(600) == 0
    return output


def start(file: Path, output: Path) -> subprocess.Popen[bytes]:
    program = Path(sys.executable).with_name("pasta-sim")
    words = [str(program), "study", str(file), "--output", str(output), "--device", "cpu"]
    return subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL)


def digests(output: Path) -> dict[str, str]:
    """What a study leaves that must not depend on how it was run; a model's file also says where it lies."""
    found = sorted(output.glob("synthetic/**/*_pet.nii.gz"))
    found += [output / "measures" / "scores.tsv", output / "table.tsv"]
    told = {str(p.relative_to(output)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}
    for kind in ("runs/*/run/model.safetensors", "runs/*/run/*/model.safetensors"):
        for path in sorted(output.glob(kind)):
            state = load_file(path)
            values = b"".join(name.encode() + state[name].tobytes() for name in sorted(state))
            told[str(path.relative_to(output))] = hashlib.sha256(values).hexdigest()
    assert len(told) > 20, "something was to be compared"
    return told


def test_a_study_leaves_table_report_and_card(undisturbed: Path) -> None:
    _, rows = read_table(undisturbed / "table.tsv", Problems("table"))
    assert {row["method"] for row in rows.values()} == set(METHODS)
    for row in rows.values():
        assert float(row["mae_low"]) <= float(row["mae"]) <= float(row["mae_high"])
        assert (row["mae_minus_main"] == "n/a") == (row["method"] == "fedavg")
    scores = read_scores(undisturbed / "measures" / "scores.tsv")
    assert {s.site for s in scores} == {"alder", "birch", "cedar"}
    assert len([s for s in scores if s.site == "cedar" and s.method == "alone"]) == 4
    page = (undisturbed / "report.html").read_text(encoding="utf-8")
    assert len(page) < 25_000_000
    assert "digital twin" in page
    assert all(method in page for method in METHODS)
    assert "not a medical device" in (undisturbed / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_a_killed_study_ends_as_if_nothing_had_been(file: Path, undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    killed = 0
    for stage in ("sites/birch/index.json", "runs/*/run/history.jsonl", "synthetic/*"):
        running = start(file, output)
        waited = time.monotonic()
        while not list(output.glob(stage)) and running.poll() is None and time.monotonic() - waited < 600:
            time.sleep(0.05)
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            killed += 1
        running.wait()
    assert killed >= 2
    assert start(file, output).wait(600) == 0
    assert digests(output) == digests(undisturbed)


def test_interrupting_a_study_is_no_failure_and_other_people_are_refused(
    file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(STUDY.replace("seed = 9", "seed = 10"), encoding="utf-8")
    program = Path(sys.executable).with_name("pasta-sim")
    before = digests(undisturbed)
    said = subprocess.run(
        [str(program), "study", str(other), "--output", str(undisturbed)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert said.returncode == 2
    assert "a study of other people, seeds or settings" in " ".join(said.stderr.split())
    assert "Traceback" not in said.stderr
    assert digests(undisturbed) == before
