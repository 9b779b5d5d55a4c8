# SPDX-License-Identifier: Apache-2.0
"""Which diagnoses are to be told apart."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """Diagnoses to tell apart, from the healthiest to the most ill."""

    name: str
    classes: tuple[str, ...]

    def label(self, diagnosis: str) -> int:
        """Return the place of a diagnosis among the classes."""
        return self.classes.index(diagnosis)


CN_DEMENTIA = Task("CN / Dementia", ("CN", "Dementia"))
CN_MCI_DEMENTIA = Task("CN / MCI / Dementia", ("CN", "MCI", "Dementia"))
TASKS = {task.name: task for task in (CN_DEMENTIA, CN_MCI_DEMENTIA)}
