"""Trackers write what they are given where their tools find it again."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lm_gym import TextGenerationVectorEnv
from lm_gym.agents import (
    METRICS,
    PPO,
    Callback,
    PPOConfig,
    TensorBoardTracker,
    TrackioTracker,
    TrainingRun,
    WandbTracker,
    train,
)
from lm_gym.agents.metrics import TAGS, tag
from lm_gym.agents.trackers import _cell
from lm_gym.errors import ConfigError, MissingExtraError

Start = Callable[[], tuple[PPO, TextGenerationVectorEnv]]


def test_every_metric_has_a_tag_of_its_own_in_a_group() -> None:
    assert set(TAGS) == set(METRICS)
    assert len(set(TAGS.values())) == len(TAGS)
    assert all(name.count("/") == 1 for name in TAGS.values())
    assert [tag(name) for name in ("kl", "eval_score", "mine", "my/own")] == [
        "kl/mean",
        "eval/score",
        "custom/mine",
        "my/own",
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_groups_its_charts_and_shows_texts(tmp_path: Path, start: Start) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    agent, env = start()
    result = train(
        agent, env, iterations=3, run_dir=tmp_path, eval_prompts=["a"], episode_metrics=lambda episodes: {"mine": 1.0}
    )
    found = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(found.Tags()["scalars"]) == {
        tag(name) for name, value in result.history[-1].items() if not math.isnan(value)
    }
    assert {"reward/score", "kl/mean", "eval/score", "custom/mine"} <= set(found.Tags()["scalars"])
    scores = [(one.step, one.value) for one in found.Scalars("reward/score")]
    assert scores == [(place, pytest.approx(row["score"])) for place, row in enumerate(result.history)]
    [text] = found.Tensors("samples/text_summary")  # of iteration 0; the next is due in 10
    [shown] = text.tensor_proto.string_val
    assert shown.decode().startswith("| prompt | response | score | kl |")
    assert shown.decode().count("\n") == 5


def test_a_model_writes_no_markup_into_a_tracker() -> None:
    assert _cell("<b>*x*|\n") == "&lt;b&gt;&#42;x&#42;&#124;<br>"


def test_what_is_undefined_has_no_point(tmp_path: Path, make_env: Any, make_policy: Any) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    env = make_env(reward_model=lambda prompts, completions: [None] * len(prompts))
    train(PPO(make_policy(env), PPOConfig(episodes_per_iteration=4)), env, iterations=1, run_dir=tmp_path)
    found = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert "reward/score" not in found.Tags()["scalars"]
    assert "reward/invalid_episodes" in found.Tags()["scalars"]


def test_a_tracker_without_a_place_or_a_count_is_refused(start: Start) -> None:
    pytest.importorskip("tensorboard")
    agent, env = start()
    with pytest.raises(ConfigError, match="must be set for a run without run_dir"):
        train(agent, env, iterations=1, callbacks=[TensorBoardTracker()])
    with pytest.raises(ConfigError, match=r"TensorBoardTracker\.sample_every: must be a whole number >= 1, got 0"):
        TensorBoardTracker(sample_every=0)


@pytest.mark.filterwarnings("ignore")
def test_wandb_offline_gets_settings_metrics_and_samples(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is read back from the file that ``wandb sync`` would send; a resumed run keeps its id."""
    pytest.importorskip("wandb")
    for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    agent, env = start()

    class Ends(WandbTracker):
        def on_iteration(self, run: Any) -> None:
            super().on_iteration(run)
            if run.iteration == 0:
                run.stop("enough")

    folder = tmp_path / "run"
    options: dict[str, Any] = {"iterations": 2, "run_dir": folder, "tensorboard": False}
    tracker = Ends("tests", mode="offline")
    result = train(agent, env, callbacks=[tracker], **options)
    [file] = folder.glob("wandb/offline-run-*/run-*.wandb")
    rows, config = read_wandb(file)
    [row] = [row for row in rows if "kl/mean" in row]
    assert row["iteration"] == 0
    assert row["kl/mean"] == result.history[0]["kl"]
    assert row["samples/_type"] == "table-file"
    assert config["learning_rate"] == 1e-3
    assert config["agent"] == "PPO"
    other, env = start()
    again = Ends("tests", mode="offline")
    train(other, env, callbacks=[again], resume=True, **options)
    assert again.state_dict() == tracker.state_dict()


def read_wandb(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows and settings of an offline run: protocol buffers in blocks of LevelDB's log format."""
    from wandb.proto import wandb_internal_pb2

    rows, config = [], {}
    for data in leveldb_records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        items = record.history.item
        if items:
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
        config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
    return rows, config


def leveldb_records(log: bytes) -> Iterator[bytes]:
    """Records of a log in blocks of 32 KiB; each piece has 4 bytes of checksum, 2 of length, 1 of type (full, first,
    middle, last), and W&B's log begins with 7 bytes of its own."""
    whole, place = b"", 7
    while place + 7 <= len(log):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        size, kind = int.from_bytes(log[place + 4 : place + 6], "little"), log[place + 6]
        whole += log[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):
            yield whole
            whole = b""


@pytest.mark.filterwarnings("ignore")
def test_trackio_gets_metrics_and_goes_on_in_its_run(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "home"))
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    class Stops(Callback):
        def on_iteration(self, run: TrainingRun) -> None:
            run.stop("enough")

    options: dict[str, Any] = {"iterations": 2, "run_dir": tmp_path / "run", "tensorboard": False}
    for callbacks in ([Stops()], []):
        agent, env = start()
        tracker = TrackioTracker("tests", embed=False, auto_log_cpu=False)
        train(agent, env, callbacks=[tracker, *callbacks], resume=True, **options)
    rows = SQLiteStorage.get_logs("tests", "run")
    assert [row["step"] for row in rows] == [0, 1]
    written = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["kl/mean"] for row in rows] == [row["kl"] for row in written]
    assert rows[0]["samples"]["_type"] == "trackio.table"
    assert "samples" not in rows[1]


@pytest.mark.parametrize(("tracker", "extra"), [(WandbTracker, "wandb"), (TrackioTracker, "trackio")])
def test_a_tracker_that_is_not_installed_names_its_extra(
    tracker: Any, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, extra, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'lm-gym\[{extra}\]'"):
        tracker()
