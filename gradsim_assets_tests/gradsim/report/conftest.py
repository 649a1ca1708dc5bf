"""Reports that several tests look at."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page as Tab

from gradsim import analysis
from gradsim.analysis import Criterion
from gradsim.report import ReportData, SettingReport, render_report
from gradsim_assets_tests.gradsim.report.studies import Page, audited, make_report, make_setting


@pytest.fixture(scope="session")
def settings() -> tuple[SettingReport, SettingReport]:
    """One with most sources found and forced queries known, one with no better than chance."""
    return (
        audited(make_setting("paraphrased", lift=0.1)),
        audited(make_setting("model_generated", lift=0.0, forced=None)),
    )


@pytest.fixture(scope="session")
def data(settings) -> ReportData:
    transfer = analysis.selection_transfer(
        {setting.setting: setting.layer_dots for setting in settings},
        {
            setting.setting: {criterion: setting.tables[f"greedy_by_{criterion}"] for criterion in Criterion}
            for setting in settings
        },
        {setting.setting: setting.tables["held_out_selection"] for setting in settings},
        seed=42,
    )
    return make_report(*settings, selection_transfer=transfer)


@pytest.fixture(scope="session")
def html(data) -> str:
    return render_report(data)


@pytest.fixture(scope="session")
def page(html) -> Page:
    return Page(html)


@pytest.fixture
def open_file(chromium) -> Iterator[Callable[..., Tab]]:
    """Opens a report; afterwards nothing may have been complained of, or asked for but the file itself."""
    said: list[str] = []
    requests: list[str] = []
    opened: set[str] = set()

    def open_it(file: Path, size: tuple[int, int] = (1440, 900), scheme: str = "light", hash_: str = "") -> Tab:
        opened.add(file.as_uri())
        tab = chromium.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(file.as_uri() + hash_)
        tab.locator(".queries li").first.wait_for()
        return tab

    yield open_it
    assert said == []
    assert {address.split("#")[0] for address in requests} == opened
