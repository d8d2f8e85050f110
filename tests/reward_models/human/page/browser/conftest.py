"""A real browser, a server in a process of its own, and people in front of it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from lm_gym.reward_models import Judgement
from lm_gym.reward_models.human import LabelRules, LabelStore, judgements_of, make_link, set_rules
from lm_gym.reward_models.human.page.application import create_app
from lm_gym.reward_models.human.page.settings import PageSettings

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_MS = 15_000


@pytest.fixture(scope="module")  # its event loop runs in this thread: no longer than its own tests do
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the development extra")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs a chromium on the PATH (Debian's package 'chromium')")
    with playwright.sync_playwright() as running:
        made = running.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield made
        made.close()


class Served:
    """A store and a server of it in a thread, which can be stopped and started again at the same address."""

    def __init__(self, place: Path) -> None:
        self.place = place
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        self.store = LabelStore.open(place)
        set_rules(self.store, LabelRules(repeat_share=0, check_share=0))
        self.running: tuple[uvicorn.Server, threading.Thread, LabelStore] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        store = LabelStore.open(self.place)
        app = create_app(store, PageSettings(port=self.port, requests_per_second=1000.0, burst=1000))
        config = uvicorn.Config(app, port=self.port, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        self.running = (server, thread, store)

    def stop(self) -> None:
        if self.running is not None:
            server, thread, store = self.running
            server.should_exit = True
            thread.join(20)
            store.close()
        self.running = None

    def labels(self) -> list[Judgement]:
        with self.store.reading() as state:
            return judgements_of(state)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path / "labels.db")
    made.start()
    yield made
    made.stop()
    made.store.close()


class Tab:
    """One tab of one person."""

    def __init__(self, page: Any, faults: list[str]) -> None:
        self.page = page
        self.faults = faults
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("console", self._heard)

    def _heard(self, message: Any) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.faults.append(message.text)

    @property
    def showing(self) -> str | None:
        return self.page.evaluate("document.body.dataset.ready ?? null")

    @property
    def texts(self) -> list[str]:
        """The answers, in the order in which they stand."""
        return self.page.locator(".answer .text").all_text_contents()

    @property
    def state(self) -> str:
        return self.page.locator("#saved").get_attribute("data-state")

    def ready(self, before: str | None = None) -> str:
        """Wait until a question can be answered that is another than before."""
        self.page.locator(f'body[data-ready]:not([data-ready="{before}"])').wait_for()
        return self.showing or ""

    def resting(self) -> None:
        self.page.locator('body[data-mode="resting"]').wait_for()

    def told(self, text: str) -> None:
        self.page.locator("#told").get_by_text(text).wait_for()

    def saved(self, state: str = "saved") -> None:
        self.page.locator(f'#saved[data-state="{state}"]').wait_for()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def click(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=False).first.click()


@pytest.fixture
def person(browser: Any, served: Served) -> Iterator[Callable[..., Tab]]:
    """A person who has opened their link; whatever their browser complains of fails the test at its end."""
    faults: list[str] = []
    contexts = []

    def make(name: str = "Ada", *, role: Any = "annotator", path: str = "/", script: str = "", **options: Any) -> Tab:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
        contexts.append(context)
        if script:
            context.add_init_script(script)
        tab = Tab(context.new_page(), faults)
        tab.page.goto(f"{served.url}/join/{make_link(served.store, name, role=role)}")
        tab.page.wait_for_url(f"{served.url}/")
        if path != "/":
            tab.page.goto(served.url + path)
        return tab

    yield make
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def second_tab(served: Served) -> Callable[[Tab], Tab]:
    """Another tab of the same browser."""

    def make(tab: Tab) -> Tab:
        other = Tab(tab.page.context.new_page(), tab.faults)
        other.page.goto(f"{served.url}/")
        return other

    return make
