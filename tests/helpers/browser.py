"""A real headless browser for tests: Debian's chromium, driven by playwright, with the network counted and shut."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass
class Opened:
    """A page with what it said on the console and what it asked the network for."""

    page: Any
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def texts(self, selector: str) -> list[str]:
        """What a reader sees of each element."""
        return [str(text) for text in self.page.locator(selector).all_inner_texts()]


@contextmanager
def browser() -> Iterator[Any]:
    """The browser; the test is skipped where there is none."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    if CHROMIUM is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    with warnings.catch_warnings(), playwright.sync_playwright() as driver:
        warnings.simplefilter("ignore")
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@contextmanager
def opened(started: Any, file: Path, *, width: int = 1280, dark: bool = False) -> Iterator[Opened]:
    """A file in a window of ``width`` pixels, once its script is through."""
    scheme = "dark" if dark else "light"
    context = started.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=width < 600)
    found = Opened(context.new_page())
    found.page.on("console", lambda message: found.messages.append(f"{message.type}: {message.text}"))
    found.page.on("pageerror", lambda error: found.messages.append(f"error: {error}"))

    def count(route: Any) -> None:
        url = route.request.url
        if url == file.as_uri():
            route.continue_()
        else:
            found.requests.append(url)
            route.abort()

    found.page.route("**/*", count)
    found.page.goto(file.as_uri())
    found.page.wait_for_selector("html[data-ready=yes]", timeout=60_000)
    yield found
    context.close()
