"""`masklake browse` in a real Chromium: pressing, filtering, zooming, keys, a phone, a dark scheme, hostile texts."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from masklake import config
from masklake.browse import serve
from masklake.browse.settings import PROGRAM, BrowseConfig
from tests.browsing import HEIGHT, HOSTILE, WIDTH, build
from tests.chromium import CHROMIUM, Tab, chromium

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH (Debian: apt-get install chromium)"),
]

NAMES = "[...document.querySelectorAll('.card h3')].map(each => each.textContent)"
ZOOM = "Number(getComputedStyle(document.querySelector('.stage .frame')).getPropertyValue('--zoom'))"
FOCUSED = "document.activeElement.dataset.number"


@pytest.fixture
def page(tmp_path: Path) -> Iterator[serve.Served]:
    settings = config.checked(PROGRAM, {"given": {"table": build(tmp_path)}})
    assert isinstance(settings, BrowseConfig)
    with serve.served(settings, lambda text: None) as page:
        thread = threading.Thread(target=page.run)
        thread.start()
        yield page
        page.server.should_exit = True
        thread.join(30)


def test_a_table_is_looked_at(page: serve.Served, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as tab:
        tab.size(1280, 900)
        tab.open(page.url)
        _everything_is_shown(tab)
        _filters_narrow_it(tab)
        _an_image_is_enlarged_and_zoomed(tab)
        _keys_do_what_the_mouse_does(tab)
        _what_is_picked_can_be_taken(tab)
        _it_fits_a_phone_in_the_dark(tab, page.url)
        assert tab.value("window.pwned") is None
        assert tab.complaints == []


def _everything_is_shown(tab: Tab) -> None:
    tab.until("document.querySelectorAll('.photograph.there').length == 6 && document.querySelectorAll('.card .layer').length == 5")
    assert len(tab.value(NAMES)) == 6
    assert f"{HOSTILE}.png" in tab.value(NAMES)
    assert tab.value("document.querySelectorAll('img[src=x]').length") == 0
    assert "truncated" in tab.value("document.querySelector('.card .why').textContent")
    assert "person" in tab.until("[...document.querySelectorAll('.card .tags span')].map(each => each.textContent).join()")


def _filters_narrow_it(tab: Tab) -> None:
    tab.until("document.querySelectorAll('#classes input').length == 4")
    tab.click("#classes input[value=person]")
    tab.until(f"{NAMES}.length == 3")
    tab.click("[name=share_from]")
    tab.type("10")
    tab.until(f"{NAMES}.length == 2")
    tab.click("[name=score_to]")
    tab.type("0.6")
    tab.until(f"{NAMES}.join() == 'b.png'")
    assert tab.value("document.getElementById('count').textContent") == "1"
    tab.click("#where")
    tab.type("colour = 'red'")
    assert "is not a condition" in tab.until("document.querySelector('#notice.bad:not([hidden])')?.textContent")
    assert ["400" in each for each in tab.complaints] == [True]  # the browser notes the refusal, and nothing else
    tab.complaints.clear()
    tab.click("#filters [type=reset]")
    tab.until(f"{NAMES}.length == 6 && document.getElementById('notice').hidden")


def _an_image_is_enlarged_and_zoomed(tab: Tab) -> None:
    by_name = "order => { order.value = 'name'; order.dispatchEvent(new Event('change', {bubbles: true})); }"
    tab.value(f"({by_name})(document.getElementById('order'))")
    tab.until(f"{NAMES}.slice(0, 2).join() == 'a.png,b.png'")
    tab.click(".card:nth-child(1) .place")
    tab.until("document.querySelectorAll('.stage .photograph.there, .stage .layer').length == 2")
    assert tab.until("document.querySelectorAll('.segments button').length") == 2
    ratio = tab.value("(b => b.width / b.height)(document.querySelector('.stage .frame').getBoundingClientRect())")
    assert ratio == pytest.approx(WIDTH / HEIGHT, rel=0.01)
    assert tab.value(ZOOM) == 1
    tab.wheel(".stage", -400)
    assert tab.until(f"{ZOOM} > 1.5 && {ZOOM}") < 4
    tab.press("0")
    tab.until(f"{ZOOM} == 1")
    tab.click(".stage .frame", count=2)
    tab.until(f"{ZOOM} == 3")
    tab.click(".segments button")  # a segment as high as the picture: all of it is shown
    tab.until(f"{ZOOM} == 1")
    tab.press("ArrowRight")
    tab.until("document.getElementById('view-title').textContent == 'b.png'")
    tab.press("Escape")
    tab.until("!document.getElementById('view').open")


def _keys_do_what_the_mouse_does(tab: Tab) -> None:
    tab.until(f"{FOCUSED} == '1'")  # where the large view was left
    tab.press("ArrowLeft")
    tab.until(f"{FOCUSED} == '0'")
    tab.press("Enter")
    tab.until("document.getElementById('view').open && document.getElementById('view-title').textContent == 'a.png'")
    tab.press("Escape")
    tab.until("!document.getElementById('view').open")
    tab.press("x")
    tab.until("document.getElementById('picked-count').textContent == '1 picked'")
    tab.press("/")
    tab.until("document.activeElement.id == 'name'")
    tab.type("C.PNG")
    tab.until(f"{NAMES}.join() == 'c.png'")
    tab.press("Escape")
    tab.press("m")
    tab.until("document.querySelector('[name=style]:checked').value == 'edge'")


def _what_is_picked_can_be_taken(tab: Tab) -> None:
    tab.click("#take-picked")
    shown = tab.until("document.querySelector('#take-body code')?.textContent")
    assert "--uris images.jsonl" in shown
    given = tab.value("new URL(document.querySelector('#take-body a').href).search")
    names = tab.until(f"fetch('images.jsonl' + {json.dumps(given)}).then(answer => answer.text())")
    assert "a.png" in names
    assert "c.png" not in names
    tab.press("Escape")


def _it_fits_a_phone_in_the_dark(tab: Tab, url: str) -> None:
    tab.size(390, 844, dark=True)
    tab.open(url)
    tab.until(f"{NAMES}.length == 6")
    assert tab.value("document.documentElement.scrollWidth") == 390
    assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(14, 17, 22)"
    assert tab.value("getComputedStyle(document.getElementById('filters')).visibility") == "hidden"
    tab.click("#show-filters")
    tab.until("getComputedStyle(document.getElementById('filters')).visibility == 'visible'")
    tab.click("#hide-filters")
    tab.until("getComputedStyle(document.getElementById('filters')).visibility == 'hidden'")
    tab.click("[aria-label='b.png'] .place")
    tab.until("!!document.querySelector('.stage .photograph.there') && document.querySelectorAll('.segments button').length > 0")
    assert tab.value("document.documentElement.scrollWidth") == 390
    assert tab.value("document.querySelector('.stage .frame').getBoundingClientRect().width") <= 390
