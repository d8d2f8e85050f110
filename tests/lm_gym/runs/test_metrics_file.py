"""The file of metrics: half a line at its end is a kill's, anything else that cannot be read is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from lm_gym.errors import ArtifactError
from lm_gym.runs.metrics_file import drop_metrics, read_metrics

FIRST, SECOND = '{"step": 1, "loss": 2.5}\n', '{"step": 2, "loss": 1.5}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


@pytest.mark.parametrize("torn", ['{"step": 2, "lo', "{", '{"st'])
def test_half_a_last_line_is_left_out_and_told_of(torn: str, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(FIRST + torn)
    assert read_metrics(path, count="step") == ({"step": 1, "loss": 2.5},)
    assert f"{path}, line 2: is cut short" in caplog.text
    assert path.read_text() == FIRST + torn
    assert drop_metrics(path, count="step", after=5) == ({"step": 1, "loss": 2.5},)
    assert path.read_text() == FIRST


def test_a_whole_last_line_that_only_lacks_its_end_stays(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(FIRST + SECOND.rstrip())
    assert drop_metrics(path, count="step", after=2)[1] == {"step": 2, "loss": 1.5}
    assert path.read_text() == FIRST + SECOND
    assert caplog.text == ""


@pytest.mark.parametrize("after", [0, 1, 2])
def test_later_rows_are_dropped(after: int, path: Path) -> None:
    path.write_text(FIRST + SECOND)
    assert [row["step"] for row in drop_metrics(path, count="step", after=after)] == [1, 2][:after]
    assert path.read_text() == (FIRST + SECOND)[: after * len(FIRST)]


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (b'{"step": 2, "lo', "must be one JSON object"),
        (b"\xe9", "can't decode byte 0xe9"),
        (b"[2]", "must be a JSON object, got list"),
        (b"{}", 'must have a whole number under "step", got None'),
        (b'{"step": true}', 'must have a whole number under "step", got True'),
        (b"[" * 100_000, "must nest at most"),
    ],
)
@pytest.mark.parametrize("below", [b"", SECOND.encode()])
def test_a_bad_line_that_has_an_end_is_an_error(bad: bytes, fault: str, below: bytes, path: Path) -> None:
    content = FIRST.encode() + bad + b"\n" + below
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as error:
        drop_metrics(path, count="step", after=5)
    assert str(error.value).startswith(f"{path}, line 2: must be the metrics of one iteration or step")
    assert fault in str(error.value)
    assert str(error.value).endswith("delete this line")
    assert path.read_bytes() == content


def test_no_file_is_no_rows(path: Path) -> None:
    assert read_metrics(path) == ()
    assert drop_metrics(path, count="step", after=5) == ()
    assert not path.exists()
