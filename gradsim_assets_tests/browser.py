"""A browser, which tests of the report and of the web UI share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from gradsim_assets_tests.programs import require_program

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    """Not for longer: playwright keeps an event loop running, beside which other tests cannot have theirs."""
    from playwright.sync_api import sync_playwright

    path = require_program("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
