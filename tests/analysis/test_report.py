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
from analysis.read.load import load_grid
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
    sections = ["tables", "pictures", "plan", "provenance", "records"]
    assert {"conclusion", *sections} <= links.ids
    assert links.leads[: len(sections)] == [f"#{name}" for name in sections]
    assert sorted(links.leads[len(sections) :]) == sorted(f"#record-{row['stage_id']}" for row in grid.rows)
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
    grid = make_grid()
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


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    grid = filled(lambda **options: SyntheticGrid(folder / "runs", **options))
    page = folder / "report.html"
    page.write_text(report(load_grid(grid.storage)), encoding="utf-8")
    return page


def seen(browser: Any, page: Path, *, width: int = 1440, media: str = "", scheme: str = "light") -> None:
    """Open the page at that width, on a screen or (media: print) on paper, with that preference of colours."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    browser.get_log("performance")
    browser.get(page.as_uri())


@pytest.mark.parametrize("width", [390, 1440])
def test_a_browser_shows_it_without_errors_requests_or_sideways_scrolling(browser: Any, page: Path, width: int) -> None:
    seen(browser, page, width=width)
    assert browser.get_log("browser") == []
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = {m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"}
    assert {url for url in urls if not url.startswith("data:")} == {page.as_uri()}
    whole, inside = browser.execute_script("const d = document.documentElement; return [d.scrollWidth, d.clientWidth]")
    assert whole <= inside <= width
    broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert browser.execute_script(broken) == 0


@pytest.mark.parametrize("width", [390, 1440])
def test_the_first_screen_is_the_conclusion(browser: Any, page: Path, width: int) -> None:
    seen(browser, page, width=width)
    bottoms = "return [...document.querySelectorAll('#conclusion dd')].map(d => d.getBoundingClientRect().bottom)"
    found = browser.execute_script(bottoms)
    assert len(found) == 3
    assert max(found) <= 844  # of the smaller of both screens


def test_letters_in_pictures_are_legible_on_a_phone(browser: Any, page: Path) -> None:
    seen(browser, page, width=390)
    widths = browser.execute_script("return [...document.images].map(i => i.getBoundingClientRect().width)")
    assert min(widths) / 7 / 72 * 8 >= 9  # pixels of text of 8 points in a picture of 7 inches


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_paper_is_light_whatever_the_screen(browser: Any, page: Path, scheme: str) -> None:
    shown = "return [getComputedStyle(document.body).color, document.images[0].currentSrc == document.images[0].src]"
    seen(browser, page, scheme="light")
    light = browser.execute_script(shown)
    seen(browser, page, scheme=scheme)
    assert browser.execute_script(shown)[1] == (scheme == "light")
    seen(browser, page, width=794, media="print", scheme=scheme)
    assert browser.execute_script(shown) == light == [light[0], True]
    cut = (
        "return [...document.querySelectorAll('table, img')].filter(e => e.getBoundingClientRect().right > 795).length"
    )
    assert browser.execute_script(cut) == 0


# WCAG 2: 4.5 for text. Of each element that has text itself, against the nearest background that is not transparent.
CONTRASTS = """
const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
const luminance = (color) => {
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = numbers(color).map((c) => linear(c / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  const color = getComputedStyle(element).backgroundColor;
  return numbers(color)[3] === 0 ? behind(element.parentElement) : color;
};
const own = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
return [...document.body.querySelectorAll("*:not(script)")].filter(own).map((element) => {
  const pair = [getComputedStyle(element).color, behind(element)].map(luminance).sort((a, b) => b - a);
  return (pair[0] + 0.05) / (pair[1] + 0.05);
});
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out(browser: Any, page: Path, scheme: str) -> None:
    seen(browser, page, scheme=scheme)
    ratios = browser.execute_script(CONTRASTS)
    assert len(ratios) > 100
    assert min(ratios) >= 4.5


def test_tables_and_pictures_have_names(browser: Any, page: Path) -> None:
    seen(browser, page)
    nameless = (
        "return [[...document.querySelectorAll('div.table > table:not(.plain)')]"
        ".filter(t => !t.caption && !t.getAttribute('aria-label')).length,"
        "[...document.images].filter(i => !i.alt).length]"
    )
    assert browser.execute_script(nameless) == [0, 0]
    assert browser.execute_script("return document.querySelector('#models').getAttribute('aria-label')") == "Models"


def test_tables_sort_by_value_by_the_mouse_and_by_the_keyboard(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    seen(browser, page)
    column = "return [...document.querySelectorAll('#gains tbody tr')].map(r => r.cells[5].textContent)"

    def gains() -> list[float]:
        return [float(text.split()[0]) for text in browser.execute_script(column)]

    head = browser.find_elements(By.CSS_SELECTOR, "#gains thead th")[5]
    before = gains()
    assert before != sorted(before)
    head.find_element(By.TAG_NAME, "button").click()
    assert gains() == sorted(before)
    assert head.get_attribute("aria-sort") == "ascending"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert gains() == sorted(before, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"


def test_a_link_opens_its_record(browser: Any, page: Path) -> None:
    seen(browser, page)
    shown = (
        "return [...document.querySelectorAll('#records details')].filter(d => d.checkVisibility())"
        ".map(d => [d.id, d.open, d.getBoundingClientRect().top >= 0 && d.getBoundingClientRect().top < innerHeight])"
    )
    assert browser.execute_script(shown) == []
    browser.execute_script("document.querySelectorAll('#records a')[3].click()")
    # The event of the new address comes after the click.
    browser.execute_async_script("setTimeout(arguments[0], 200)")
    address = browser.execute_script("return location.hash.slice(1)")
    assert browser.execute_script(shown) == [[address, True, True]]
