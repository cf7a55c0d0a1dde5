import os
import shutil

import pytest

REQUIRED = os.environ.get("VINY_REQUIRE_BROWSER") == "1"


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; without one, or without Playwright, the tests are skipped unless they are required."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        _without("Playwright is not installed (pip install 'viny[browser]')")
    if path is None:
        _without("there is no Chromium on PATH (apt-get install chromium)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


def _without(reason: str) -> None:
    (pytest.fail if REQUIRED else pytest.skip)(reason)
