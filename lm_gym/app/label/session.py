"""What ``lm-gym label`` does: puts questions into a store, makes links, serves the page, writes labels out.

Knows: the order of these, and what is printed. Does not know: how a page or a terminal takes an answer.
"""

from __future__ import annotations

import socket
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from lm_gym.errors import ConfigError, DataError, OutputExistsError
from lm_gym.reward_models import export_rows, save_judgements
from lm_gym.reward_models.human import (
    LabelStore,
    ask_questions,
    judgements_of,
    make_link,
    people_wanted,
    posterior_rows,
    set_guideline,
    set_rules,
)
from lm_gym.tools.files import write_jsonl

from .questions import by_settings, read_checks, read_questions

__all__ = ["Visit", "collect", "export_labels", "prepare", "told"]


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One run of the command."""

    store: str
    """Place of the label store."""
    name: str
    """Of whoever runs it."""
    annotators: tuple[str, ...]
    """Names of people to make links for, or their number."""
    host: str
    """Address to listen on."""
    port: int
    """Port to listen on."""
    allowed_hosts: tuple[str, ...]
    """Names of this machine."""
    open_browser: bool
    """Whether the page is opened at once."""
    terminal: bool
    """Whether the answers are given in this terminal."""


def prepare(
    store: LabelStore,
    questions: Sequence[Path],
    *,
    kind: str,
    checks: Sequence[Path],
    guideline: Path | None,
    overlap: int | None,
    console: Console,
) -> None:
    """Put questions, rules and the guideline into a store; what is in it already stays as it is."""
    asked = [*read_questions(questions, kind=kind), *read_checks(checks)]
    for first, group in by_settings(asked):
        ask_questions(
            store,
            [one.question for one in group],
            kind=first.kind,  # type: ignore[arg-type]  # the store checks it, with the words of its own error
            known=[one.known for one in group],
            overlap=first.overlap,
            priority=first.priority,
        )
    if guideline is not None:
        set_guideline(store, _text_of(guideline))
    with store.reading() as state:
        rules = state.rules
    if overlap is not None:
        set_rules(store, replace(rules, overlap=overlap))
    with store.reading() as state:
        items = [one for one in state.items.values() if one.item.known is None]
        waiting = sum(people_wanted(state, one) > 0 for one in items)
        labels = len(judgements_of(state))
    console.print(f"{store.place}: {told(len(items), 'question')}, {waiting} still to answer; {told(labels, 'label')}")


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a guideline must be text in UTF-8 ({error}); save it as that") from error


def export_labels(store: LabelStore, path: Path, *, form: str, overwrite: bool, console: Console) -> None:
    """Write the labels of a store to a file.

    Raises:
        OutputExistsError: there is such a file, and it was not to be replaced.
        DataError: the form cannot hold a label.
    """
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path}: is there already; name another file, or give --overwrite")
    with store.reading() as state:
        labels = judgements_of(state, votes=form == "votes")
        rows = posterior_rows(state) if form == "posterior" else None
    if form == "own":
        save_judgements(path, labels)
    else:
        rows = export_rows(labels, form) if rows is None else rows
        write_jsonl(path, rows)
    console.print(f"{told(len(labels) if rows is None else len(rows), 'row')} in {path}")


def collect(visit: Visit, console: Console) -> int | None:
    """Let people answer until the command is stopped."""
    if visit.terminal:
        from .terminal import label_in_terminal

        label_in_terminal(visit.store, visit.name, console)
        _tell_end(visit.store, console)
        return None
    from lm_gym.reward_models.human.page.serving import serve
    from lm_gym.reward_models.human.page.settings import PageSettings

    settings = PageSettings(host=visit.host, port=visit.port, allowed_hosts=visit.allowed_hosts)
    names = _names(visit)

    def ready(url: str) -> None:
        outside = _address(url, settings)
        with LabelStore.open(visit.store) as store:
            own = make_link(store, visit.name, role="owner")
            links = [(name, make_link(store, name)) for name in names]
        console.print(f"your own link, which also shows the overview: {url}/join/{own}", soft_wrap=True)
        for name, token in links:
            console.print(f"{name}: {outside}/join/{token}", soft_wrap=True)
        if not settings.is_local:
            console.print(
                "The page can be reached from other machines. Nobody gets in without the token of a link; over plain "
                "http others on the network could read one, so let a proxy with https stand before it."
            )
        console.print("Ctrl-C stops the page; what was answered is kept.")
        if visit.open_browser:
            webbrowser.open(f"{url}/join/{own}")

    serve(visit.store, settings, on_ready=ready)
    _tell_end(visit.store, console)
    return None


def _names(visit: Visit) -> list[str]:
    """Names of those who get a link."""
    if len(visit.annotators) == 1 and visit.annotators[0].isdecimal():
        return [f"annotator-{number}" for number in range(1, int(visit.annotators[0]) + 1)]
    doubled = [name for name in visit.annotators if visit.annotators.count(name) > 1 or name == visit.name]
    if doubled:
        raise ConfigError(f"--annotators: each name must stand for one person, got {doubled[0]!r} twice")
    return list(visit.annotators)


def _address(url: str, settings: Any) -> str:
    """The address that other people's links begin with."""
    port = urlsplit(url).port
    if settings.allowed_hosts:
        return f"http://{settings.allowed_hosts[0]}:{port}"
    return f"http://{_own_address()}:{port}" if settings.listens_everywhere else url


def _own_address() -> str:
    """This machine's address in its network; no packet is sent to learn it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))  # of the block for documentation (RFC 5737)
            return str(asking.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _tell_end(place: str, console: Console) -> None:
    with LabelStore.open(place) as store, store.reading() as state:
        labels = len(judgements_of(state))
    console.print(
        f"stopped; {told(labels, 'label')} in {place}. They become judgements by: "
        f"lm-gym label {place} --export labels.jsonl"
    )


def told(count: int, noun: str) -> str:
    """A number of things in words."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
