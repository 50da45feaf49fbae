"""A real Chromium on a live server. Skipped where there is none; in CI that is a failure."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import Group, User
from django.core.signals import request_finished, request_started
from django.test import Client

from tagging.models import Collection

from .content import make_collection

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CANDIDATES = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb"]
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


def chromium() -> str:
    named = os.environ.get("IWTAG_CHROMIUM", "")
    found = named or next((path for path in CANDIDATES if os.path.exists(path)), "") or shutil.which("chromium") or ""
    if found and os.path.exists(found):
        return found
    message = "no Chromium: install Debian's chromium or name one in IWTAG_CHROMIUM"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def chrome() -> Iterator[sync_api.Browser]:
    path = chromium()
    # Playwright's sync API runs an event loop in this thread; Django would refuse the ORM in it
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def holiday(transactional_db: None, samples: Path, tmp_path: Path) -> Collection:
    """Six photographs with proposals (content.PROPOSED); the last one got none."""
    return make_collection(samples, tmp_path / "holiday")


@pytest.fixture
def reviewer(transactional_db: None) -> User:
    user = User.objects.create_user("rosa", password="rosa-secret")
    user.groups.add(Group.objects.get(name="reviewer"))
    return user


@pytest.fixture
def curator(transactional_db: None) -> User:
    user = User.objects.create_user("carl", password="carl-secret")
    user.groups.add(Group.objects.get(name="curator"))
    return user


class InFlight:
    """Requests that the live server is working on: a browser that is gone does not end them, and the database must not
    be emptied under them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._n = 0

    def __enter__(self) -> InFlight:
        request_started.connect(self._more)
        request_finished.connect(self._fewer)
        return self

    def __exit__(self, *exc: object) -> None:
        request_started.disconnect(self._more)
        request_finished.disconnect(self._fewer)

    def _more(self, **kwargs: object) -> None:
        with self._changed:
            self._n += 1

    def _fewer(self, **kwargs: object) -> None:
        with self._changed:
            self._n -= 1
            self._changed.notify_all()

    def wait(self) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._n <= 0, timeout=15), "a request of the test never ended"


OpenPage = Callable[..., "sync_api.Page"]


@pytest.fixture
def open_page(chrome: sync_api.Browser, live_server, tmp_path: Path) -> Iterator[OpenPage]:
    """open_page(address, user=…, viewport=WIDE, dark=False, touch=False) → a page, signed in. Any script error that
    nobody caught fails the test."""
    contexts: list[sync_api.BrowserContext] = []
    errors: list[str] = []

    def open_it(
        address: str,
        user: User | None = None,
        viewport: dict[str, int] = WIDE,
        dark: bool = False,
        touch: bool = False,
        scripts: bool = True,
    ) -> sync_api.Page:
        context = chrome.new_context(
            base_url=live_server.url,
            viewport=viewport,
            color_scheme="dark" if dark else "light",
            has_touch=touch,
            java_script_enabled=scripts,
            reduced_motion="reduce",
        )
        context.set_default_timeout(8000)
        contexts.append(context)
        if user:
            client = Client()
            client.force_login(user)
            cookie = client.cookies["sessionid"].value
            context.add_cookies([{"name": "sessionid", "value": cookie, "url": live_server.url}])
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        return page

    with InFlight() as requests:
        yield open_it
        for context in contexts:
            context.close()
        requests.wait()
    assert errors == []


def assert_accessible(page: sync_api.Page) -> None:
    """No serious or critical finding of axe."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    bad = [
        f"{v['id']} ({v['impact']}): {v['help']}\n  " + "\n  ".join(node["html"][:200] for node in v["nodes"][:4])
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    assert not bad, "\n".join(bad)


def assert_no_sideways_scroll(page: sync_api.Page) -> None:
    width, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= window, f"the page is {width} px wide in a window of {window} px"
