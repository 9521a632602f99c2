"""The report: whole in itself, and as a browser shows it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from analysis.cli import main
from analysis.load import load_grid
from analysis.report import report
from tests.analysis.conftest import SyntheticGrid

Maker = Callable[..., SyntheticGrid]

NASTY = '<script>alert(1)</script> & "a_b" |c| $x$'


def filled(make_grid: Maker, **options: Any) -> SyntheticGrid:
    grid = make_grid(teachers=["ViT-T", "Net-T"], students=["A-S", "B-S", "C-S"], seeds=[0, 1, 2], **options)
    for place, row in enumerate(grid.rows):
        facts = {"latency_ms": 1.0 + place, "latency_batch": 32, "latency_device": "CPU", "device_seconds": 9.0}
        grid.done(row, 70.0 + 1.7 * place % 25, macs=1000, size_bytes=4000, device="CPU", **facts)
        grid.curve(row, [{"epoch": e, "train_loss": 1 / e, "test_top1": 0.1 * e} for e in (1, 2, 3)])
    return grid


class Links(HTMLParser):
    """What a page would load, and where it leads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.ids: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "srcset", "data") or (name == "href" and tag == "link"):
                self.loads.append(value or "")
            elif name == "href":
                self.leads.append(value or "")
            elif name == "id":
                self.ids.add(value or "")


def test_the_page_needs_nothing_else_and_leads_to_every_record(make_grid: Maker) -> None:
    grid = filled(make_grid)
    page = report(load_grid(grid.storage))
    links = Links(page)
    assert all(loaded.startswith("data:") for loaded in links.loads)
    assert {"conclusion", "tables", "pictures", "plan", "provenance", "records"} <= links.ids
    assert sorted(links.leads) == sorted(f"#record-{row['stage_id']}" for row in grid.rows)
    assert {lead.removeprefix("#") for lead in links.leads} <= links.ids
    assert not re.search(r"""(src|href)=["'](https?:)?//""", page)


def test_names_are_no_markup(make_grid: Maker) -> None:
    grid = make_grid(teachers=[NASTY], students=[f"S {NASTY}"], seeds=[0], dataset=NASTY)
    for row in grid.rows:
        grid.done(row, 80.0)
    page = report(load_grid(grid.storage))
    assert "<script>alert" not in page
    assert page.count("<script>") == 1


@pytest.mark.parametrize("modes", [["baseline"], ["baseline", "distilled"]])
def test_what_is_not_there_yet_breaks_nothing(make_grid: Maker, modes: list[str]) -> None:
    grid = make_grid(modes=modes)
    assert "No student has been trained yet." in report(load_grid(grid.storage))
    grid.done(grid.find(mode="baseline")[0], 80.0)
    assert "<strong>Unfinished</strong>" in report(load_grid(grid.storage))


def test_the_command_writes_it_into_the_grids_folder(make_grid: Maker, capsys: pytest.CaptureFixture[str]) -> None:
    grid = filled(make_grid)
    assert main(["report", grid.name, "--storage", grid.storage]) == 0
    written = grid.root / "grids" / grid.name / "report.html"
    assert capsys.readouterr().out == f"{written}\n"
    assert written.read_text(encoding="utf-8") == report(load_grid(grid.storage))
    assert main(["report", grid.name, "--storage", grid.storage, "--output", str(grid.root)]) == 2
    assert "error: --output" in capsys.readouterr().err


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver here: the page was not opened in a browser")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    page = webdriver.Chrome(options=options, service=Service(driver))
    yield page
    page.quit()


@pytest.mark.parametrize("width", [390, 1440])
def test_a_browser_shows_it_without_errors_requests_or_sideways_scrolling(
    make_grid: Maker, browser: Any, tmp_path: Path, width: int
) -> None:
    page = tmp_path / "report.html"
    page.write_text(report(load_grid(filled(make_grid).storage)), encoding="utf-8")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get_log("performance")
    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = {m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"}
    assert {url for url in urls if not url.startswith("data:")} == {page.as_uri()}
    whole, seen = browser.execute_script("const d = document.documentElement; return [d.scrollWidth, d.clientWidth]")
    assert whole <= seen <= width
    broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert browser.execute_script(broken) == 0


def test_tables_sort_by_value_and_links_open_records(make_grid: Maker, browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(report(load_grid(filled(make_grid).storage)), encoding="utf-8")
    browser.get(page.as_uri())
    column = "return [...document.querySelectorAll('#gains tbody tr')].map(r => r.cells[5].textContent)"
    click = "document.querySelectorAll('#gains thead button')[5].click()"

    def gains() -> list[float]:
        return [float(text.split()[0]) for text in browser.execute_script(column)]

    before = gains()
    assert before != sorted(before)
    browser.execute_script(click)
    assert gains() == sorted(before)
    browser.execute_script(click)
    assert gains() == sorted(before, reverse=True)
    browser.execute_script("document.querySelector('#records a').click()")
    opened = "return document.querySelectorAll('#records details[open]').length"
    # The event of the new address comes after the click.
    browser.execute_async_script("setTimeout(arguments[0], 200)")
    assert browser.execute_script(opened) == 1
