# SPDX-License-Identifier: Apache-2.0
"""`pasta-sim demo` from end to end: stopped twice with Ctrl-C, gone on with, finished, and run once more.

The command is the real one, in a process of its own, with a cohort of 18 twins in place of 180.
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pasta_model.checkpoint import load_checkpoint
from pasta_model.data.manifest import Session, read_manifest, read_splits
from pasta_model.evaluation.tables import read_scores
from tests.support.runs import COHORT

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DEADLINE_S = 600.0
SITES = ["alder", "birch", "cedar"]
METHODS = ["mean PET", "alone", "federated"]
# Everything of the demo but the size of its cohort.
COMMAND = f"""
import signal

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits deaf ears
from simulation import demo_settings
from simulation.twins.cohort import CohortSettings

demo_settings.demo_cohort = lambda **_: CohortSettings.model_validate({COHORT.model_dump()!r})
from simulation.cli import main

main()
"""
SETTINGS = """
[federation]
rounds = 3
min-sites = 3
validation-slabs = 1

[training]
local-steps = 1
batch-size = 1
warmup-steps = 0
dtype = "float32"

[loss]
cycle = false

[sampling]
steps = 1
hop = 15
"""


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


class Runner:
    """Starts the demo like a terminal does: in a group of processes that Ctrl-C reaches as one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "demo"
        (folder / "settings.toml").write_text(SETTINGS)

    def run(self, *, stop_at: str | None = None) -> Outcome:
        """Run to the end, or press Ctrl-C as soon as a file of this pattern is there."""
        words = ["demo", "--seed", "5", "--output", str(self.output)]
        words += ["--config", str(self.folder / "settings.toml")]
        streams = [self.folder / "out.txt", self.folder / "err.txt"]
        with streams[0].open("w") as out, streams[1].open("w") as err:
            process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, *words],
                stdout=out,
                stderr=err,
                cwd=self.folder,
                env=os.environ | {"COLUMNS": "200"},
                start_new_session=True,
            )
            try:
                if stop_at is not None:
                    self._await(process, stop_at)
                    os.killpg(process.pid, signal.SIGINT)
                process.wait(DEADLINE_S)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        return Outcome(process.returncode, *(stream.read_text() for stream in streams))

    def _await(self, process: subprocess.Popen[bytes], pattern: str) -> None:
        end = time.monotonic() + DEADLINE_S
        while not any(self.output.glob(pattern)):
            assert process.poll() is None, (self.folder / "err.txt").read_text()
            assert time.monotonic() < end, f"no {pattern} within {DEADLINE_S:g} s"
            time.sleep(0.02)


def times(folder: Path, *patterns: str) -> dict[str, int]:
    """When each file of these patterns was written."""
    files = [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]
    assert files
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


PREPARED = ("cohort/**/*", "sites/*/*")
TRAINED = ("sites/**/*", "federated/**/*", "alone/**/*", "flower/**/*")
SYNTHESISED = ("synthetic/alone/**/*", "synthetic/federated/**/*")


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_demo_survives_ctrl_c_and_tells_the_whole_story(
    runner: Runner, left_behind: Callable[[], list[str]]
) -> None:
    demo = runner.output

    # 1. Stopped in the middle of the federation.
    stopped = runner.run(stop_at="federated/rounds/after-00001")
    assert left_behind() == []
    assert stopped.status == 130, stopped
    assert "Traceback" not in stopped.err
    assert not (demo / "report.html").exists()
    prepared = times(demo, *PREPARED)
    first_round = kept_history(demo / "federated")[0]

    # 2. Stopped in the middle of the sites alone.
    stopped = runner.run(stop_at="alone/*/rounds/after-00001")
    assert left_behind() == []
    assert stopped.status == 130, stopped
    assert "Traceback" not in stopped.err
    assert not (demo / "report.html").exists()

    # 3. To the end: nothing that was whole is made again.
    done = runner.run()
    assert left_behind() == []
    assert done.status == 0, done
    assert times(demo, *PREPARED) == prepared
    history = [json.loads(line) for line in (demo / "federated" / "history.jsonl").read_text().splitlines()]
    untold = {name: value for name, value in history[0].items() if name != "bytes"}  # a sum, not kept
    assert untold == first_round, "the same to the millisecond: it was not trained again"
    assert [sorted(record["valid_mae"]) for record in history] == [SITES] * 4
    check_scores_and_table(demo, done.out)
    check_report(demo)
    check_synthetic_pets(demo)

    # 4. Once more: everything is there already.
    whole = times(demo, *PREPARED, *TRAINED, *SYNTHESISED)
    again = runner.run()
    assert left_behind() == []
    assert again.status == 0, again
    assert times(demo, *PREPARED, *TRAINED, *SYNTHESISED) == whole
    assert table_of(again.out) == table_of(done.out)


def kept_history(run: Path) -> list[dict]:
    """The rounds that the newest checkpoint of a run knows of."""
    newest = max(run.glob("rounds/after-*"))
    return json.loads((newest / "state.json").read_text())["history"]


def table_of(out: str) -> list[str]:
    lines = out.splitlines()
    (start,) = (n for n, line in enumerate(lines) if "not patients" in line)
    return [line for line in lines[start:] if not line.startswith("report:")]


def held_out(demo: Path) -> list[Session]:
    splits = read_splits(demo / "splits.tsv")
    sessions = [s for site in SITES for s in read_manifest(demo / "cohort" / site / "participants.tsv")]
    return [session for session in sessions if splits[session.subject] == "test"]


def check_scores_and_table(demo: Path, out: str) -> None:
    scores = read_scores(demo / "scores.tsv")
    subjects = {session.subject: session.site for session in held_out(demo)}
    assert sorted(subjects.values()) == SITES, "one subject of each site is held out"
    assert sorted((s.subject, s.method) for s in scores) == sorted(
        (subject, method) for subject in subjects for method in METHODS
    )
    table = "\n".join(table_of(out))
    rows = re.findall(r"^ *([a-z ]*?) +(\d) +(mean PET|alone|federated) +([\d.]+)", table, re.MULTILINE)
    blocks = [*SITES, "all sites", "mean over sites"]
    assert [row[0] for row in rows] == [name for block in blocks for name in (block, "", "")]
    assert [row[2] for row in rows] == METHODS * 5
    assert [row[1] for row in rows] == ["1"] * 9 + ["3"] * 6
    shown = {(SITES[n // 3], row[2]): row[3] for n, row in enumerate(rows[:9])}
    assert shown == {(s.site, s.method): f"{s.values['mae']:.4f}" for s in scores}
    for score in scores:
        assert 0 < score.values["mae"] < 3
        assert 0 < score.values["psnr"] < 100
        assert -1 <= score.values["ssim"] <= 1
    assert len(re.findall("^[✓✗~] ", out, re.MULTILINE)) == 8, "four metrics against two baselines"
    assert f"report: {demo / 'report.html'}" in out


def check_report(demo: Path) -> None:
    html = (demo / "report.html").read_text()
    assert "default-src &#39;none&#39;" in html, "its policy lets it load nothing"
    outside = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    sources = re.findall(r'<img[^>]*\ssrc="([^"]{0,40})', outside)
    subjects = held_out(demo)
    assert len(sources) == len(subjects) + 3, "a picture a case, bars, curves, scatter"
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in sources)
    assert outside.count("<option") == len(subjects), "each of them is in the viewer"
    assert not re.search(r"https?://(?!www\.w3\.org/)|url\(|@import", outside)
    assert "not a patient" in html
    card = (demo / "MODEL_CARD.md").read_text()
    assert "not a medical device" in card
    for name in (*SITES, *METHODS, *{session.diagnosis for session in subjects}):
        assert name in outside
        assert name in card


def check_synthetic_pets(demo: Path) -> None:
    for session in held_out(demo):
        mri = nib.load(session.mri)
        models = {
            "federated": demo / "federated" / "model.safetensors",
            "alone": demo / "alone" / session.site / "model.safetensors",
        }
        for method, model in models.items():
            assert load_checkpoint(model).settings.federation.rounds == 3
            folder = demo / "synthetic" / method / session.site / session.subject / session.session / "pet"
            (path,) = folder.glob("*_desc-synthetic_pet.nii.gz")
            pet = nib.load(path)
            np.testing.assert_array_equal(pet.affine, mri.affine)
            assert pet.shape == mri.shape
            suvr = np.asarray(pet.dataobj)
            assert np.isfinite(suvr).all()
            assert suvr.min() == 0
            brain = suvr[np.asarray(mri.dataobj) > 0]
            assert 0.2 < brain.mean() < 4, "SUVR, not the network's units"
            assert suvr.max() < 20
            sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
            assert sidecar["Synthetic"] is True
            assert sidecar["Units"] == "SUVR"
            assert sidecar["Seed"] == 5
            assert sidecar["Sampling"]["steps"] == 1
            assert sidecar["ModelSha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
