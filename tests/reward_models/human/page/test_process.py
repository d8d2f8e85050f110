"""The server in a process of its own: it answers beside a busy trainer, and ends with it, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from lm_gym.errors import ConfigError
from lm_gym.reward_models.human import LabelStore, PageSettings, make_link, serve_in_process

FREE = PageSettings(port=0)


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def ends(url: str, seconds: float = 20.0) -> bool:
    """True once nothing answers there."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            status(url)
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_it_answers_and_stops(tmp_path: Path) -> None:
    place = tmp_path / "labels.db"
    with LabelStore.open(place) as store, serve_in_process(place, FREE) as server:
        assert status(server.url) == 401
        assert status(f"{server.url}/join/{make_link(store, 'Ada')}") == 200
        assert server.runs
    assert not server.runs
    assert server.process.returncode == 0


def test_it_answers_while_this_process_is_busy(tmp_path: Path) -> None:
    """Nothing of it waits for this interpreter, which is held here throughout."""
    with serve_in_process(tmp_path / "labels.db", FREE) as server:
        code = (
            "import sys, time, urllib.request, urllib.error\n"
            "start = time.monotonic()\n"
            "try: urllib.request.urlopen(sys.argv[1], timeout=10)\n"
            "except urllib.error.HTTPError as error: print(error.code, time.monotonic() - start)\n"
        )
        asking = subprocess.Popen([sys.executable, "-c", code, server.url], stdout=subprocess.PIPE, text=True)
        while asking.poll() is None:
            sum(range(1000))
        told = asking.communicate()[0].split()
        assert told[0] == "401"
        assert float(told[1]) < 5


def test_it_ends_with_a_trainer_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from lm_gym.reward_models.human import PageSettings, serve_in_process\n"
        "server = serve_in_process(sys.argv[1], PageSettings(port=0))\n"
        "print(server.url, flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "labels.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        url = trainer.stdout.readline().strip()
        assert status(url) == 401
        trainer.send_signal(signal.SIGKILL)
    assert ends(url)


def test_ctrl_c_for_the_trainer_is_none_for_the_page(tmp_path: Path) -> None:
    with serve_in_process(tmp_path / "labels.db", FREE) as server:
        assert os.getpgid(server.process.pid) != os.getpgid(0), "the terminal sends it to the group in front"
        assert status(server.url) == 401


def test_what_cannot_be_served_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="in memory"):
        serve_in_process(":memory:")
    with serve_in_process(tmp_path / "labels.db", FREE) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(ConfigError, match="Address already in use"):
            serve_in_process(tmp_path / "labels.db", PageSettings(port=port))
    (tmp_path / "text.db").write_text("no database at all, and long enough to be read as one" * 40)
    with pytest.raises(ConfigError, match="must be a label store"):
        serve_in_process(tmp_path / "text.db", FREE)
