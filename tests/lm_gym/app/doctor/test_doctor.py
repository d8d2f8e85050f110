"""``lm-gym doctor``: what is there, what is missing, what is fast, and an exit status that says so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from lm_gym.app.cli import main
from lm_gym.app.doctor import probe
from lm_gym.app.doctor.packages import installed_packages
from lm_gym.app.doctor.probe import DTYPES, Precision, fastest, probe_precisions
from lm_gym.assets import REVIEWS_LM

MODEL = str(REVIEWS_LM)
Examine = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def examine(capsys: pytest.CaptureFixture[str]) -> Examine:
    """Exit status and report of the command."""

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        status = main(["doctor", "--json", *arguments])
        return status, json.loads(capsys.readouterr().out)

    return run


def test_this_installation_is_whole(examine: Examine) -> None:
    status, found = examine("--model", MODEL)
    assert (status, found["ok"]) == (0, True)
    rows = {(row["extra"], row["name"]): row for row in found["packages"]}
    assert {"python", "torch", "transformers", "gymnasium", "tyro"} <= {name for extra, name in rows if extra is None}
    assert {("sb3", "stable-baselines3"), ("embeddings", "sentence-transformers"), ("lora", "peft")} <= set(rows)
    assert rows[None, "torch"]["installed"] == version("torch")
    assert rows["report", "jinja2"]["tested"] == version("jinja2")
    assert set(found["missing_by_extra"]) <= {"trackio"}  # it needs an older pillow than the one that is tested with
    assert found["devices"][0]["device"] == "cpu"
    assert found["devices"][0]["memory"] > 2**28
    assert [row["dtype"] for row in found["precision"]] == list(DTYPES)
    assert found["model"]["weights"] == 552_448
    assert found["model"]["bytes_to_train"] == 5 * found["model"]["bytes_to_sample"] == 20 * 552_448


def test_a_model_that_does_not_load_is_the_exit_status(examine: Examine, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(MODEL, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    status, found = examine("--model", str(folder))
    assert (status, found["ok"], found["model"]["loads"]) == (2, False, False)
    assert "ModelLoadError" in found["model"]["error"] or "ArtifactError" in found["model"]["error"]


def test_the_tables_name_every_package_and_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", MODEL]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for words in (f"torch {version('torch')} >=2.8", "training step, ms", "base (no chat template)", "is the fastest"):
        assert words in told
    assert told.endswith("everything that is needed is there")


MISSING = """
import importlib.metadata, sys
real = importlib.metadata.version
def version(name):
    if name in {missing!r}:
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)
importlib.metadata.version = version
from lm_gym.app.cli import main
sys.exit(main(["doctor"]))
"""


@pytest.mark.parametrize(
    ("missing", "status", "words"),
    [
        (["peft"], 0, "missing for lora: peft; pip install 'lm-gym[lora]'"),
        (["torch"], 2, "torch (missing); pip install --upgrade"),
    ],
)
def test_what_is_missing_is_named_with_the_line_that_installs_it(missing: list[str], status: int, words: str) -> None:
    """In a process of its own, whose metadata does not know the package."""
    done = subprocess.run(
        [sys.executable, "-c", MISSING.format(missing=missing)], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    assert words in " ".join(done.stdout.split())


def test_a_version_out_of_the_range_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_gym.app.doctor.packages.version", lambda name: "0.0.1")
    assert {one.state for one in installed_packages()} == {"out of range"}


def test_a_broken_torch_is_told_of_and_not_stumbled_over(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('libtorch.so: no such file')")
    command = [sys.executable, "-m", "lm_gym.app.cli", "doctor"]
    paths = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | paths)
    assert done.returncode == 2, done.stderr
    assert "torch (broken)" in done.stdout
    assert "libtorch.so: no such file" in " ".join(done.stdout.split())
    assert "'torch>=2.8'" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_probe_measures_in_time_and_draws_from_no_global_generator() -> None:
    state = torch.random.get_rng_state()
    began = time.perf_counter()
    found = probe_precisions(torch.device("cpu"))
    assert time.perf_counter() - began < 30  # under 10 on an idle machine
    assert torch.equal(torch.random.get_rng_state(), state)
    assert found[0].dtype == "float32"
    assert found[0].step_ms is not None
    assert found[0].step_ms > 0
    assert found[0].matmul_gflops is not None
    assert found[0].matmul_gflops > 0.1


def failing(error: Exception, dtype: torch.dtype) -> Callable[..., float]:
    """The measurement of a step on a device that fails in one precision."""
    measure = probe._step_ms

    def step(device: torch.device, asked: torch.dtype) -> float:
        if asked == dtype:
            raise error
        return measure(device, asked)

    return step


def test_a_precision_that_the_device_lacks_is_not_measured_and_said(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = NotImplementedError("\"addmm_impl_cpu_\" not implemented for 'Half'")
    monkeypatch.setattr(probe, "_step_ms", failing(lacking, torch.float16))
    status, found = examine()
    assert (status, found["fault"]) == (0, "")
    assert [row["dtype"] for row in found["precision"] if row["step_ms"] is None] == ["float16"]
    assert found["precision"][-1]["reason"] == str(lacking)


def test_a_device_that_does_not_compute_is_the_exit_status(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = RuntimeError("CUDA error: no kernel image is available for execution on the device")
    monkeypatch.setattr(probe, "_step_ms", failing(broken, torch.float32))
    status, found = examine()
    assert (status, found["ok"], found["precision"]) == (2, False, [])
    assert str(broken) in found["fault"]
    assert main(["doctor"]) == 2
    assert f"does not compute: {broken}; install the build" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((30.0, 10.0, None), "bfloat16 is the fastest here: a step 3.0 times as fast as in float32"),
        ((10.0, 25.0, 400.0), "float32 is the fastest here; in bfloat16 a step takes 2.5 times as long; in float16"),
        ((None, 1.0, 1.0), "float32 could not be measured"),
    ],
)
def test_the_verdict_follows_the_step_times(steps: tuple[float | None, ...], words: str) -> None:
    found = [Precision(dtype=n, matmul_gflops=None, step_ms=s) for n, s in zip(DTYPES, steps, strict=True)]
    assert fastest(found).startswith(words)
