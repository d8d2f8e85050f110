"""The log in a database: stored once, in order, whole after errors, and shared by processes."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lm_gym.errors import ArtifactError, ConfigError, DataError, WriteError
from lm_gym.reward_models.human.store.event_store import LabelStore
from lm_gym.reward_models.human.store.links import find_link, links_of, make_link, revoke_links
from lm_gym.reward_models.human.store.replay import AnsweredAlreadyError, LabelState

from .log_of_events import ANN, BEN, asked, event, judged, shown, uid, undone

LOG = [asked(1, 100), shown(2, 100), judged(3, 100, 2), shown(4, 100, BEN)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.db"


def test_state_is_the_replay_of_what_was_stored(place: str) -> None:
    with LabelStore.open(place) as store:
        assert store.append(*LOG) == [True] * 4
    with LabelStore.open(place) as store, store.reading() as state:
        assert state == LabelState.replay(LOG)
        assert store.events() == LOG


def test_a_submission_that_is_sent_again_is_stored_once(place: str) -> None:
    with LabelStore.open(place) as store:
        store.append(*LOG)
        later = event(3, "judged", at=77.0, item=uid(100), annotator=ANN, target=uid(2), body=LOG[2].body)
        assert store.append(later) == [False]
        with pytest.raises(DataError, match="is that of another event"):
            store.append(judged(3, 100, 2, kind="choice", winner="b"))
        with pytest.raises(AnsweredAlreadyError):
            store.append(judged(9, 100, 2))
        assert store.events() == LOG


def test_a_batch_is_stored_whole_or_not_at_all(place: str) -> None:
    with LabelStore.open(place) as store:
        store.append(*LOG)
        with pytest.raises(DataError, match="must answer what they were shown"):
            store.append(undone(5, 3), judged(6, 100, 99))
        with store.reading() as state:
            assert state == LabelState.replay(LOG)
        assert store.append(undone(5, 3)) == [True]


def test_two_stores_on_one_database_see_each_other(place: str) -> None:
    with LabelStore.open(place) as one, LabelStore.open(place) as other:
        one.append(*LOG[:2])
        with other.reading() as state:
            assert state.sequence == 2
        other.append(*LOG[2:])
        with one.reading() as state:
            assert state == LabelState.replay(LOG)
        assert one.pseudonym("someone") == other.pseudonym("someone")


def test_threads_that_write_at_once_lose_nothing(place: str) -> None:
    with LabelStore.open(place) as one, LabelStore.open(place) as other:
        one.append(asked(1, 100, overlap=50))
        stores = [one, other]

        def answer(number: int) -> None:
            who = f"person-{number}"
            stores[number % 2].append(shown(1000 + number, 100, who), judged(2000 + number, 100, 1000 + number, who))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(answer, range(50)))
        for store in stores:
            with store.reading() as state:
                assert len(state.items[uid(100)].labels) == 50
                assert state.sequence == 101


def test_every_character_comes_back(place: str) -> None:
    said = "\x00\x07 \u202eabc\u2028 🙂 </script>" + "x" * 100_000
    with LabelStore.open(place) as store:
        store.append(asked(1, 100, responses=(said, "")))
    with LabelStore.open(place) as store, store.reading() as state:
        assert state.items[uid(100)].item.question.texts == (said, "")


def test_the_file_is_kept_with_a_write_ahead_log_and_synced(path: Path) -> None:
    with LabelStore.open(path) as store, store.tables() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_a_missing_event_is_noticed(path: Path) -> None:
    with LabelStore.open(path) as store:
        store.append(*LOG)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM events WHERE sequence = 2")
    with LabelStore.open(path) as store, pytest.raises(ArtifactError, match="number 2 is missing"), store.reading():
        pass


def test_a_changed_event_is_noticed(path: Path) -> None:
    with LabelStore.open(path) as store:
        store.append(*LOG)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE events SET annotator = 'person-else' WHERE sequence = 3")
    with LabelStore.open(path) as store, pytest.raises(ArtifactError, match="number 3 does not fit"), store.reading():
        pass


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("mysql://host/x", ConfigError, "must be SQLite"),
        ("://", ConfigError, "must be a path or a URL"),
    ],
)
def test_other_places_are_refused(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LabelStore.open(text)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database at all, but long enough to look like a file\n" * 100)
    with pytest.raises(ArtifactError, match="must be a label store"):
        LabelStore.open(tmp_path / "notes.txt")
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE events (x)")
    with pytest.raises(ArtifactError, match="holds a table 'events' of something else"):
        LabelStore.open(tmp_path / "other.db")
    with pytest.raises(WriteError, match="is a folder"):
        LabelStore.open(tmp_path)


def test_a_store_of_a_newer_version_is_refused(path: Path) -> None:
    LabelStore.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE lm_gym_labels SET version = 99")
    with pytest.raises(ArtifactError, match="got version 99; install the newer lm-gym"):
        LabelStore.open(path)


def test_links_are_kept_as_hashes(path: Path) -> None:
    with LabelStore.open(path) as store:
        token = make_link(store, "Quiet Reader")
        owner = make_link(store, "me", role="owner")
        link = find_link(store, token)
        assert link is not None
        assert (link.name, link.role, link.annotator) == ("Quiet Reader", "annotator", store.pseudonym("Quiet Reader"))
        assert "Quiet" not in link.annotator
        assert find_link(store, token + "x") is None
        assert find_link(store, "") is None
        assert token.encode() not in path.read_bytes() + path.with_name("labels.db-wal").read_bytes()
        assert revoke_links(store, "Quiet Reader") == 1
        revoked = find_link(store, token)
        assert revoked is not None
        assert revoked.revoked is not None
        assert find_link(store, owner).revoked is None
        assert revoke_links(store, "Quiet Reader") == 0
        with pytest.raises(ConfigError, match="nobody named 'x' has a link; there are Quiet Reader, me"):
            revoke_links(store, "x")
        assert len(links_of(store)) == 2


def test_pseudonyms_of_two_stores_differ(tmp_path: Path) -> None:
    with LabelStore.open(tmp_path / "a.db") as one, LabelStore.open(tmp_path / "b.db") as other:
        assert one.pseudonym("someone") != other.pseudonym("someone")
        assert one.pseudonym(other.pseudonym("someone")) == other.pseudonym("someone")
