"""The gallery as headless Chromium lays it out: at desktop and phone width, in light and dark, with hostile text.

The page is shown in a frame, which may be narrower than any browser window; the page around it measures what is inside.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from masklake.pages.cards import card_from
from masklake.segment.gallery import GalleryInput
from masklake.segment.report import RunTotals
from tests.unit.segment.sample_pages import DARK, FACTS, LIGHT, gallery_of, page_of, scene_card, scene_row

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH (Debian: apt-get install chromium)")

MEASURE = """
const measure = frame => {
const page = frame.contentDocument, view = frame.contentWindow;
const opacity = () => [...page.querySelectorAll('.masked')].map(image => view.getComputedStyle(image).opacity);
const found = {
  width: view.innerWidth,
  overflowing: [...page.querySelectorAll('body *')].filter(element => element.getBoundingClientRect().right > view.innerWidth + 1
    && !element.closest('thead')).map(element => element.tagName + '.' + element.className),
  scroll: page.documentElement.scrollWidth,
  blank: [...page.images].filter(image => !image.naturalWidth || image.getBoundingClientRect().height < 100).length,
  pictures: page.images.length,
  columns: new Set([...page.querySelectorAll('.card')].map(card => Math.round(card.getBoundingClientRect().left))).size,
  cardWidths: [...page.querySelectorAll('.card')].map(card => Math.round(card.getBoundingClientRect().width)),
  background: view.getComputedStyle(page.body).backgroundColor,
  pwned: Boolean(window.pwned || view.pwned),
  scripts: page.scripts.length,
  opacity: opacity(),
};
const first = page.querySelector('.eye input'), switchOfAll = page.querySelector('#masks');
if (first) {
  const middle = first.getBoundingClientRect();
  page.elementFromPoint(middle.x + middle.width / 2, middle.y + middle.height / 2)?.click();
  found.afterFirst = opacity();
  switchOfAll?.click();
  found.afterAll = opacity();
}
const shots = [...page.querySelectorAll('.shot')], kinds = [...page.querySelectorAll('.filter input')];
if (shots.length) {
  const box = () => { const found = shots[0].querySelector('.plain,.photo').getBoundingClientRect(); return [found.width, found.height]; };
  const tags = () => [...shots[0].querySelectorAll('.tags span')].filter(tag => tag.getBoundingClientRect().width).length;
  const press = () => { const place = shots[0].getBoundingClientRect(); page.elementFromPoint(place.x + 20, place.y + 20).click(); };
  shots[0].scrollIntoView();
  found.small = [box(), tags()];
  press();
  found.large = [box(), tags()];
  press();
  found.smallAgain = [box(), tags()];
}
const visible = () => [...page.querySelectorAll('.picked')].filter(card => card.getBoundingClientRect().width).length;
found.ofKinds = kinds.map(kind => { kind.click(); return [kind.parentElement.textContent.trim(), visible()]; });
return found;
};
const all = [...document.querySelectorAll('iframe')].map(measure);
document.body.innerHTML = '<pre id="found">' + encodeURIComponent(JSON.stringify(all)) + '</pre>';
"""


def look(page: str, folder: Path, *widths: int, dark: bool = False) -> list[dict[str, Any]]:
    """Show `page` in a frame of each width, in pixels, and measure what is inside."""
    frames = "".join(f'<iframe style="border:0" width="{width}" height="900" srcdoc="{html.escape(page)}"></iframe>' for width in widths)
    outer = folder / "outer.html"
    outer.write_text(f'<!doctype html><meta charset="utf-8"><body>{frames}<script>onload = () => {{{MEASURE}}}</script>', encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'profile'}", "--window-size=1500,1000", "--timeout=100000", "--force-prefers-reduced-motion"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--dump-dom", outer.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True).stdout
    found = re.search(r'<pre id="found">(.*?)</pre>', shown)
    assert found, shown[:2000]
    return json.loads(unquote(found.group(1)))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def full_page() -> str:
    return page_of(gallery_of([scene_card(seed) for seed in range(6)]))


class TestLayout:
    def test_fits_every_width(self, full_page: str, tmp_path: Path) -> None:
        widths = [1440, 800, 390, 320]
        found = look(full_page, tmp_path, *widths)
        assert [one["width"] for one in found] == widths
        assert [one["overflowing"] for one in found] == [[]] * 4
        assert [one["scroll"] for one in found] == widths
        assert [one["columns"] for one in found] == [3, 2, 1, 1]
        assert [(one["pictures"], one["blank"]) for one in found] == [(12, 0)] * 4

    def test_one_card_does_not_fill_a_wide_window(self, tmp_path: Path) -> None:
        (found,) = look(page_of(gallery_of([scene_card(0)])), tmp_path, 1440)
        assert found["cardWidths"] == [640]

    def test_extreme_texts_and_sizes_fit(self, tmp_path: Path) -> None:
        endless = "x" * 700
        image, row = scene_row(0, 480, 640)
        card = card_from(image, {**row, "segments": [{**segment, "label": endless} for segment in row["segments"]]})
        legend = tuple(replace(card.painting.legend[0], label=f"{endless}{n}", count=10**9) for n in range(40))
        painting = replace(card.painting, legend=legend)
        facts = replace(FACTS, input_uri=f"s3://{endless}/", table_uri=f"s3://{endless}", model=endless, run_id=endless)
        totals = RunTotals(
            images=10**9,
            failed_images=10**8,
            errors={endless: 10**8},
            examples={endless: ((endless, endless),)},
            label_counts={f"{endless}{n}": 10**9 * (n + 1) for n in range(40)},
            seconds={endless: 1e7},
            wall_seconds=1e6,
        )
        page = page_of(GalleryInput(facts, totals, [replace(card, uri=f"s3://{endless}", painting=painting)]))
        found = look(page, tmp_path, 1440, 390)
        assert [one["overflowing"] for one in found] == [[], []]
        assert [one["scroll"] for one in found] == [1440, 390]

    def test_an_empty_run_fits(self, tmp_path: Path) -> None:
        (found,) = look(page_of(GalleryInput(FACTS, RunTotals(), [])), tmp_path, 390)
        assert (found["overflowing"], found["pictures"]) == ([], 0)

    @pytest.mark.parametrize(("dark", "scheme"), [(False, LIGHT), (True, DARK)])
    def test_follows_the_colour_scheme(self, tmp_path: Path, dark: bool, scheme: dict[str, str]) -> None:
        (found,) = look(page_of(gallery_of([])), tmp_path, 1440, dark=dark)
        page = scheme["page"]
        assert found["background"] == f"rgb({int(page[1:3], 16)}, {int(page[3:5], 16)}, {int(page[5:7], 16)})"


def test_a_picture_and_all_pictures_can_be_seen_without_masks(full_page: str, tmp_path: Path) -> None:
    (found,) = look(full_page, tmp_path, 1440)
    assert found["opacity"] == ["1"] * 6
    assert found["afterFirst"] == ["0"] + ["1"] * 5
    assert found["afterAll"] == ["1"] + ["0"] * 5


def test_a_press_shows_a_picture_alone_and_another_one_brings_it_back(full_page: str, tmp_path: Path) -> None:
    """In a window of 390 x 900 pixels, and one of 1440 x 900; the picture is one of 4 : 3."""
    desktop, phone = look(full_page, tmp_path, 1440, 390)
    assert desktop["large"][0] == pytest.approx([1200, 900], abs=1)
    assert phone["large"][0] == pytest.approx([390, 292.5], abs=1)
    assert 430 < desktop["small"][0][0] < 460
    for found in (desktop, phone):
        assert found["smallAgain"] == found["small"]
        assert found["large"][1] >= found["small"][1] > 0


def test_pictures_can_be_chosen_by_class(full_page: str, tmp_path: Path) -> None:
    """Each choice says how many pictures it leaves."""
    (found,) = look(full_page, tmp_path, 1440)
    shown = {name.rpartition(" ")[0]: (int(name.rpartition(" ")[2]), visible) for name, visible in found["ofKinds"]}
    cards = [scene_card(seed).painting.legend for seed in range(6)]
    labels = {entry.label for legend in cards for entry in legend}
    expected = {label: sum(label in {entry.label for entry in legend} for legend in cards) for label in labels} | {"anything": 6}
    assert shown == {label: (pictures, pictures) for label, pictures in expected.items()}
    assert min(expected.values()) < 6


class TestHostileText:
    """A label, a URI and a message that load pictures and run scripts wherever they are taken for HTML."""

    def test_is_harmless(self, tmp_path: Path) -> None:
        with _listener() as (address, asked):
            (found,) = look(_hostile_page(address), tmp_path, 1440)
        assert (asked, found["pwned"], found["scripts"], found["pictures"]) == ([], False, 0, 2)

    def test_would_be_harmless_if_it_were_not_escaped(self, tmp_path: Path) -> None:
        with _listener() as (address, asked):
            (found,) = look(html.unescape(_hostile_page(address)), tmp_path, 1440)
        assert found["scripts"] > 0
        assert (asked, found["pwned"]) == ([], False)

    def test_is_hostile_indeed(self, tmp_path: Path) -> None:
        page = re.sub(r"<meta http-equiv=.*?>", "", html.unescape(_hostile_page("{address}")))
        with _listener() as (address, asked):
            (found,) = look(page.replace("{address}", address), tmp_path, 1440)
        assert found["pwned"]
        assert "/picture" in asked


def _hostile_page(address: str) -> str:
    text = f'"><script>parent.pwned = 1</script><img src="{address}/picture" onerror="parent.pwned = 1">'
    totals = RunTotals(images=1, errors={"broken": 1}, examples={"broken": ((text, text),)}, label_counts={text: 1})
    card = scene_card(0)
    legend = (replace(card.painting.legend[0], label=text),)
    painting = replace(card.painting, legend=legend, names=tuple(replace(name, text=text) for name in card.painting.names))
    return page_of(GalleryInput(FACTS, totals, [replace(card, uri=f"s3://lake/{text}", painting=painting)]))


@contextmanager
def _listener() -> Iterator[tuple[str, list[str]]]:
    """A web server that answers nothing but remembers what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
