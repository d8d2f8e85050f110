"""Places for label stores: a SQLite file, and a database of a real PostgreSQL server where one is installed."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HELPER = Path(__file__).resolve().parents[2] / "helpers" / "postgres_server.py"
_numbers = itertools.count()


def _helper() -> Any:
    spec = importlib.util.spec_from_file_location("postgres_server", HELPER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[str]:
    """The socket's folder of a server that runs while these tests do."""
    helper = _helper()
    if reason := helper.why_not():
        pytest.skip(reason)
    pytest.importorskip("psycopg", reason="needs the extra 'postgres'")
    with helper.server() as folder:
        yield folder


@pytest.fixture
def postgres_url(postgres_folder: str) -> str:
    """An empty database."""
    import psycopg

    name = f"labels_{next(_numbers)}"
    with psycopg.connect(host=postgres_folder, user="postgres", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"postgresql://postgres@/{name}?host={postgres_folder}"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for a label store, in both databases."""
    return str(tmp_path / "labels.db") if request.param == "sqlite" else request.getfixturevalue("postgres_url")
