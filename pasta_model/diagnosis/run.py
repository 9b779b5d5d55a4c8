# SPDX-License-Identifier: Apache-2.0
"""Diagnosis from each kind of scan: the same folds and budget for all, resumable."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from pasta_model.diagnosis.cases import Case
from pasta_model.diagnosis.results import DiagnosisResult
from pasta_model.diagnosis.settings import DiagnosisSettings


def diagnose(
    cases: Sequence[Case],
    inputs: Sequence[str],
    *,
    seen: Collection[str],
    settings: DiagnosisSettings | None = None,
    seed: int = 0,
    output: Path | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DiagnosisResult:
    """Train and apply every reader on every input, and score the predictions."""
    raise NotImplementedError
