# SPDX-License-Identifier: Apache-2.0
"""Work that the demo hands to other processes."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pasta_model.config import Settings
from pasta_model.data.manifest import Session
from pasta_model.derivatives import SynthesisJob, synthesise_sessions
from simulation.baselines import train_alone


def train_alone_site(store: Path, settings: Settings, output: Path) -> None:
    """Train one site alone, unless that is done."""
    if not (output / "last.safetensors").is_file():
        train_alone(store, settings, output)


def alone_rounds(outputs: Iterable[Path]) -> int:
    """How many rounds the sites alone have done, the closing measurement counted as one."""
    rounds = 0
    for output in outputs:
        history = output / "history.jsonl"
        rounds += len(history.read_text(encoding="utf-8").splitlines()) if history.is_file() else 0
    return rounds


def synthesise_site(job: SynthesisJob, sessions: Sequence[Session]) -> None:
    """Synthesise the sessions of one site with one model."""
    synthesise_sessions(job, sessions)
