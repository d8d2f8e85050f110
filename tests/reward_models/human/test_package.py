"""The public names of people, and that the package is light until one is used."""

from __future__ import annotations

import inspect
import subprocess
import sys

import lm_gym.reward_models.human as package


def test_every_exported_name_exists_and_is_documented() -> None:
    for name in package.__all__:
        assert inspect.getdoc(getattr(package, name)), name
    assert set(package.__all__) == {name for names in package._HOMES.values() for name in names}


def test_the_package_is_light() -> None:
    code = "import sys, lm_gym.reward_models.human as h; bad = {'sqlalchemy', 'fastapi', 'torch'} & set(sys.modules); "
    subprocess.run([sys.executable, "-c", code + "assert not bad, bad"], check=True)
    heavy = subprocess.run(
        [
            sys.executable,
            "-c",
            code + "h.LabelStore.open(':memory:'); import sqlalchemy as s; assert 'sqlalchemy' not in sys.modules",
        ],
        check=False,
        capture_output=True,
    )
    assert heavy.returncode == 1
