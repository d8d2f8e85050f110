"""What is installed: one import root that holds every module and the assets, and arrows that point down."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAPPED = {"lm_gym": "lm_gym", "agents": "lm_gym/agents", "reward_models": "lm_gym/reward_models"}
SHIPPED = ("*.py", "*.css", "py.typed", "*.safetensors", "*.json", "*.j2", "*.js", "*.svg")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, so that building leaves nothing in the checkout."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in (*MAPPED, "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    return copy


@pytest.fixture(scope="module")
def built(checkout: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."],
        cwd=checkout,
        check=True,
        capture_output=True,
    )
    return checkout / "dist"


def expected_files() -> set[str]:
    files = set()
    for folder, package in MAPPED.items():
        for pattern in SHIPPED:
            for path in (ROOT / folder).rglob(pattern):
                files.add(f"{package}/{path.relative_to(ROOT / folder)}")
    return files


def test_wheel_has_one_root_and_every_module(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in names} == {"lm_gym"}
    assert names == expected_files()
    assert "lm_gym/assets/reviews_lm/model.safetensors" in names


def test_sdist_can_be_built_from(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    on_disk = {f"{folder}/{name}" for folder in MAPPED for name in _relative(ROOT / folder)}
    assert on_disk <= names


def _relative(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for pattern in SHIPPED for path in folder.rglob(pattern)}


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).parent / "lint-imports"),
        "--config",
        str(ROOT / "pyproject.toml"),
        "--no-cache",
    ]
    return subprocess.run(command, cwd=tree, env={"PYTHONPATH": "."}, capture_output=True, text=True, check=False)


def test_an_upward_import_is_caught(built: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path)
    assert lint(tmp_path).returncode == 0
    with (tmp_path / "lm_gym" / "rewards.py").open("a") as module:
        module.write("\nimport lm_gym.agents.update.functional\n")
    found = lint(tmp_path)
    assert found.returncode != 0
    assert "lm_gym.rewards -> lm_gym.agents.update.functional" in " ".join(found.stdout.split())
