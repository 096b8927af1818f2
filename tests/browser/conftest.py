"""The machine's own chromium, for tests that use pages as a person does."""

import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
ABSENT = f"there is no browser on this machine: none of {', '.join(NAMES)} is installed"
# The machine may be busy: a page that is slow is no failure.
WAIT_SECONDS = 20.0

expect.set_options(timeout=WAIT_SECONDS * 1000)

OpenPage = Callable[[str], Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a module's tests; each has pages, and cookies, of its own.

    Not for the session: until it ends, no other test of the process could run an event loop.
    """
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(ABSENT)
    with sync_playwright() as playwright:
        # In a container chromium has no rights for its own sandbox, and little shared memory.
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens an address in a window of the test's own; what its scripts fail at, fails the test."""
    context = browser.new_context()
    context.set_default_timeout(WAIT_SECONDS * 1000)
    failures = list[str]()

    def opened(url: str) -> Page:
        page = context.new_page()
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(url)
        return page

    yield opened
    context.close()
    assert failures == []
