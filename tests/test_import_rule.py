"""The import rule of ARCHITECTURE.md, seen to pass on the code as it is and to fail where it is broken."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "model", "storage", "render")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages, with the contracts of pyproject.toml."""
    copy = tmp_path_factory.mktemp("sources")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    program = "from importlinter.cli import lint_imports_command as lint; lint()"
    command = [sys.executable, "-c", program, "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_code_keeps_the_rule(sources: Path) -> None:
    result = lint_imports(sources)
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("package", "statement", "contract"),
    [
        ("render", "import flows.cli", "an arrow is followed, never reversed"),
        ("storage", "import model.config", "an arrow is followed, never reversed"),
        ("model", "import render.scene", "model reads records, it never renders"),
        ("render", "import zarr", "render is pure"),
        ("storage", "import torch", "storage does not import torch"),
        ("model", "import prefect", "only flows imports Prefect and Dask"),
    ],
)
def test_a_violation_is_caught(sources: Path, package: str, statement: str, contract: str) -> None:
    planted = sources / package / "planted.py"
    planted.write_text(f"{statement}\n")
    try:
        result = lint_imports(sources)
    finally:
        planted.unlink()
    assert result.returncode == 1
    broken = [line for line in result.stdout.splitlines() if line.endswith("BROKEN")]
    assert len(broken) >= 1
    assert contract in " ".join(broken)
