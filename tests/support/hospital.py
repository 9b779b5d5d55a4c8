# SPDX-License-Identifier: Apache-2.0
"""A hospital's folder of scans and their table, which a test spoils."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Hospital:
    """A folder with scans and their table; a test spoils one or the other."""

    folder: Path
    write_scan: Callable[..., Path]
    rows: list[dict[str, str]] = field(default_factory=list)

    def admit(self, subject: str, **changes: str) -> dict[str, str]:
        row = {
            "participant_id": subject,
            "session_id": "ses-1",
            "site": "alder",
            "diagnosis": "CN",
            "age": "70.5",
            "sex": "F",
            "education": "16",
            "mmse": "n/a",
            "mri": f"{subject}/T1w.nii.gz",
            "pet": f"{subject}/pet.nii",
        } | changes
        self.rows.append(row)
        for kind, gain in (("mri", 300.0), ("pet", 1.0)):
            if row[kind] != "n/a":
                self.write_scan(self.folder / row[kind], seed=len(self.rows), gain=gain)
        return row

    def scan(self, number: int, kind: str) -> Path:
        return self.folder / self.rows[number][kind]

    @property
    def manifest(self) -> Path:
        """The table, written as the rows are now."""
        path = self.folder / "participants.tsv"
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [columns, *([row.get(name, "") for name in columns] for row in self.rows)]
        path.write_text("".join("\t".join(line) + "\n" for line in lines))
        return path


def cut(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
