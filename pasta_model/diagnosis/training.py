# SPDX-License-Identifier: Apache-2.0
"""The network of one fold: trained with a fixed budget, applied to who was held out.

Shapes: N scans, (z, x, y) each; B of a batch; K clinical numbers; C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pasta_model.diagnosis.intensities import Standard
from pasta_model.diagnosis.network import ScanClassifier, new_classifier
from pasta_model.diagnosis.settings import DiagnosisSettings
from pasta_model.errors import TrainingError
from pasta_model.seeding import torch_generator

Scans = NDArray[np.float16]
MAX_GRAD_NORM = 1.0
WARM_UP = 0.1  # of the steps


@dataclass(frozen=True, eq=False)
class Examples:
    """Training sessions.

    Attributes
    ----------
    scans, clinical
        (N, z, x, y) and (N, K).
    labels
        (N,), from 0 to C - 1.
    people
        Whose each session is.
    """

    scans: Scans
    clinical: NDArray[np.float32]
    labels: NDArray[np.intp]
    people: Sequence[str]

    def weights(self) -> NDArray[np.float64]:
        """How often each session is drawn, (N,): each class alike, in it each person alike."""
        pairs = list(zip(self.labels.tolist(), self.people, strict=True))
        persons = {label: len({person for found, person in pairs if found == label}) for label, _ in pairs}
        return np.array([1.0 / (persons[label] * pairs.count((label, person))) for label, person in pairs])


def train_network(
    examples: Examples,
    standard: Standard,
    *,
    classes: int,
    spacing: float,
    settings: DiagnosisSettings,
    seed: int,
) -> ScanClassifier:
    """Train for the number of steps of the settings; the last weights are the result.

    Weights at the start, order of the persons, mirrors and shifts depend on the seed alone, not on the input:
    what differs between inputs is what the scans show.

    Raises
    ------
    TrainingError
        When the loss is not finite.
    """
    z, x, y = examples.scans.shape[1:]
    network = new_classifier(
        (z, x, y),
        classes=classes,
        clinical=examples.clinical.shape[1],
        width=settings.width,
        seed=seed,
    ).to(settings.device)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _share(step, settings.steps))
    look = _Look(standard, settings.device)
    drawn = torch_generator(seed, "diagnosis", "training")
    weights = torch.from_numpy(examples.weights())
    for step in range(settings.steps):
        rows = torch.multinomial(weights, settings.batch_size, replacement=True, generator=drawn).numpy()
        scans = _moved(look(examples.scans[rows]), round(settings.shift / spacing), drawn)
        clinical, labels = (
            torch.from_numpy(each[rows]).to(settings.device) for each in (examples.clinical, examples.labels)
        )
        with _computing(settings):
            loss = F.cross_entropy(network(scans, clinical), labels)
        if not bool(torch.isfinite(loss)):
            raise TrainingError(f"diagnosis: the loss of step {step} is not finite; lower the learning rate")
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), MAX_GRAD_NORM)
        optimiser.step()
        rate.step()
    return network


@torch.no_grad()
def read_scans(
    network: ScanClassifier,
    scans: Scans,
    clinical: NDArray[np.float32],
    standard: Standard,
    *,
    settings: DiagnosisSettings,
) -> NDArray[np.float64]:
    """Return the probabilities of scans, (N, C); each read as it lies and mirrored, and averaged."""
    network.eval()
    look = _Look(standard, settings.device)
    found = []
    for start in range(0, len(scans), settings.batch_size):
        rows = slice(start, start + settings.batch_size)
        batch, values = look(scans[rows]), torch.from_numpy(clinical[rows]).to(settings.device)
        with _computing(settings):
            both = [network(each, values) for each in (batch, batch.flip(_ACROSS))]
        found.append(torch.stack([logits.double().softmax(dim=1) for logits in both]).mean(dim=0).cpu())
    return np.asarray(torch.cat(found).numpy(), np.float64)


_ACROSS = 3  # the axis from left to right, of (B, 1, z, x, y)


class _Look:
    """Standardise scans on their way to the device, (N, z, x, y) to (N, 1, z, x, y)."""

    def __init__(self, standard: Standard, device: str) -> None:
        self._mean, self._factor = (
            torch.from_numpy(each).to(device) for each in (standard.mean, standard.factor)
        )

    def __call__(self, scans: Scans) -> Tensor:
        given = torch.from_numpy(scans).to(self._mean.device).float()
        return ((given - self._mean) * self._factor)[:, None]


def _moved(scans: Tensor, most: int, drawn: torch.Generator) -> Tensor:
    """Mirror half of the scans, and move each by up to `most` voxels along each axis; zeros come in."""
    wide = F.pad(scans, [most] * 6)
    moved = []
    for scan in wide:
        at = torch.randint(2 * most + 1, (3,), generator=drawn).tolist()
        z, x, y = (slice(start, start + size) for start, size in zip(at, scans.shape[2:], strict=True))
        part = scan[:, z, x, y]
        moved.append(part.flip(_ACROSS - 1) if torch.rand(1, generator=drawn) < 0.5 else part)
    return torch.stack(moved)


def _share(step: int, steps: int) -> float:
    """Share of the learning rate: up in a straight line, down by a cosine."""
    up = min(1.0, (step + 1) / max(1.0, WARM_UP * steps))
    return up * 0.5 * (1.0 + float(np.cos(np.pi * step / steps)))


def _computing(settings: DiagnosisSettings) -> torch.autocast:
    return torch.autocast(
        torch.device(settings.device).type,
        dtype=torch.bfloat16,
        enabled=settings.dtype == "bfloat16",
    )
