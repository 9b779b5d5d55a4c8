# SPDX-License-Identifier: Apache-2.0
"""The rules of the house, which a review would otherwise have to repeat."""

import ast
import io
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("client", "pasta_model", "server", "simulation")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 50
HEADER = "# SPDX-License-Identifier: Apache-2.0"
HEAVY = ("diffusers", "flwr", "matplotlib", "monai", "nibabel", "nilearn", "pandas", "ray", "scipy", "torch")
# Each of them unpickles, unless a switch says otherwise.
UNPICKLING = ("torch.load", "numpy.load", "np.load", "pandas.read_pickle", "pd.read_pickle")

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


@each_file
def test_file_says_its_licence_and_fits_its_room(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == HEADER
    assert len(lines) <= MAX_FILE_LINES, f"{len(lines)} lines: give a part of it a room of its own"


@each_file
def test_functions_fit_a_screen(path: Path) -> None:
    too_long = [
        f"{function.name} has {length} lines"
        for function, length in _function_lengths(path)
        if length > MAX_FUNCTION_LINES
    ]
    assert not too_long


@each_file
def test_nothing_is_unpickled(path: Path) -> None:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [
                name for name in names if name.split(".")[0] in {"pickle", "cloudpickle", "dill", "joblib"}
            ]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in UNPICKLING:
            safe = {"weights_only": "True", "allow_pickle": "False"}
            switches = {(word.arg, ast.unparse(word.value)) for word in node.keywords}
            if not switches & safe.items():
                found.append(
                    f"line {node.lineno}: {ast.unparse(node.func)} without weights_only or allow_pickle"
                )
    assert not found


@pytest.mark.parametrize("package", ["pasta_model", "client", "server", "simulation"])
def test_command_lines_start_fast(package: str) -> None:
    command = f"import sys, {package}.cli; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.split()) & set(HEAVY)
    assert not loaded, f"import {', '.join(sorted(loaded))} inside the command that needs it"


def test_bundle_holds_the_code_and_nothing_else() -> None:
    from flwr.cli.build import build_fab_from_disk

    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(ROOT))) as bundle:
        names = set(bundle.namelist())
    code = {str(path.relative_to(ROOT)) for path in FILES}
    assert names == code | {".info/CONTENT", "LICENSE", "README.md", "pyproject.toml"}


def test_flower_installs_no_dependency_at_run_time() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"].values()
    wanted = [*project["project"]["dependencies"], *(name for extra in extras for name in extra)]
    names = {re.split(r"[\[<>=~! ]", requirement)[0] for requirement in wanted} - {project["project"]["name"]}
    assert set(project["tool"]["uv"]["exclude-dependencies"]) == names


def _function_lengths(path: Path) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    """Yield each function with its lines, its docstring not counted."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            has_docstring = ast.get_docstring(node, clean=False) is not None
            docstring = (first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0
            yield node, (node.end_lineno or 0) - node.lineno + 1 - docstring
