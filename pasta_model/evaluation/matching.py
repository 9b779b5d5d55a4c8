# SPDX-License-Identifier: Apache-2.0
"""Which file of a folder is a session's: named as `pasta synthesize` does, or in any other way that tells."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pasta_model.data.manifest import Session
from pasta_model.derivatives import synthetic_path

_MOST_SHOWN = 3


@dataclass(frozen=True)
class Found:
    """The file of a session, or the problem in words; `several` where more than one could be meant."""

    path: Path | None
    problem: str = ""
    several: bool = False


@dataclass(frozen=True)
class Matches:
    """Which PETs belong to which session.

    Attributes
    ----------
    found
        Session's name to method to file.
    missing
        Method to session's name to what was found in place of a PET.
    problems
        What cannot be meant: several files of one session, or one file of several.
    """

    found: Mapping[str, Mapping[str, Path]]
    missing: Mapping[str, Mapping[str, str]]
    problems: Sequence[str]


def match(sessions: Sequence[Session], folders: Mapping[str, Path]) -> Matches:
    """Find the synthetic PET of every session in every method's folder."""
    found: dict[str, dict[str, Path]] = {session.name: {} for session in sessions}
    missing: dict[str, dict[str, str]] = {method: {} for method in folders}
    problems = []
    for method, folder in folders.items():
        files, owners = VolumeFolder(folder), dict[Path, str]()
        for session in sessions:
            one = files.find(session)
            if one.path is None and not one.several:
                missing[method][session.name] = one.problem
            elif problem := one.problem or _taken(one.path, session, owners):
                problems.append(f"{session.name}: {method}: {problem}")
            elif one.path is not None:
                owners[one.path] = session.name
                found[session.name][method] = one.path
    return Matches(found, missing, problems)


def _taken(path: Path | None, session: Session, owners: Mapping[Path, str]) -> str:
    """Say why a file is not this session's synthetic PET; empty when it is."""
    if path is not None and path in owners:
        return f"{path} has the name of {owners[path]} too; wanted a file a session"
    if path is not None and session.pet.is_file() and path.samefile(session.pet):
        return f"{path} is the real PET itself; wanted a synthetic one"
    return ""


@dataclass(frozen=True)
class VolumeFolder:
    """A folder of volumes of any method, one a session, by name.

    A file belongs to a session when its name, or else its path below the folder, holds the subject's and
    the session's name as whole words: "sub-1" is not in "sub-10".
    """

    folder: Path

    @cached_property
    def files(self) -> list[Path]:
        """All NIfTI files below the folder; hidden ones, which are unfinished, do not count."""
        found = [p for pattern in ("*.nii", "*.nii.gz") for p in self.folder.rglob(pattern)]
        below = ((path, path.relative_to(self.folder)) for path in found)
        return sorted(path for path, inner in below if not any(part.startswith(".") for part in inner.parts))

    def find(self, session: Session) -> Found:
        """Find the one file of a session."""
        ours = synthetic_path(self.folder, session)
        if ours.is_file():
            return Found(ours)
        words = [session.subject, *([session.session] if session.session else [])]
        named = [path for path in self.files if _holds(path.name, words)]
        matching = named or [path for path in self.files if _holds(self._below(path), words)]
        if len(matching) == 1:
            return Found(matching[0])
        if matching:
            problem = f"{len(matching)} files have its name ({self._some(matching)}); wanted one"
            return Found(None, problem, several=True)
        return Found(None, self._nothing(session, words))

    def _nothing(self, session: Session, words: Sequence[str]) -> str:
        near = [path for path in self.files if _holds(self._below(path), words[:1])]
        if near:
            return (
                f"no file names both {session.subject} and {session.session}; of the subject there is"
                f" {self._some(near)}"
            )
        return (
            f"no synthetic PET among {len(self.files)} NIfTI files here; run 'pasta synthesize' first, or"
            f" name the files after subject and session ({'_'.join(words)}...nii.gz)"
        )

    def _below(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _some(self, paths: Sequence[Path]) -> str:
        names = [self._below(path) for path in paths[:_MOST_SHOWN]]
        return ", ".join(names) + (", ..." if len(paths) > _MOST_SHOWN else "")


def _holds(text: str, words: Sequence[str]) -> bool:
    """Whether every word is in the text and is not part of a longer one."""
    return all(re.search(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", text) for word in words)
