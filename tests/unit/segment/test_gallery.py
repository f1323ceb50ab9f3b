from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from masklake.pages.cards import LONG_SIDE, Card, LegendEntry, Painting, card_from
from masklake.pages.names import Name
from masklake.segment.gallery import GalleryInput
from masklake.segment.report import RunTotals
from tests.unit.segment.sample_pages import DARK, FACTS, LIGHT, gallery_of, page_of, scene_card, scene_row

NASTY = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style><svg onload=alert(1)>",
    "&lt;b&gt; &amp;",
    "a\u202egpj.exe\u2066",
    "nul\x00 escape\x1b[2J line\nbreak",
]


class Page(HTMLParser):
    """The elements, attributes and text of a page, as a browser would read them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.tags if name == tag and all(found.get(key) == value for key, value in wanted.items())]


def plain_card(uri: str = "s3://lake/a.jpg", label: str = "cat", task: str = "panoptic") -> Card:
    image, layer = np.zeros((4, 6, 3), np.uint8), np.full((4, 6, 4), 255, np.uint8)
    names = (Name(label, (255, 0, 16), 0.875),)
    return Card(uri, task, image, Painting(layer, (LegendEntry(label, (255, 0, 16), 0.875, 2),), names))


def seen(card: Card) -> Any:
    """A card with its masks as a browser shows it, uint8 [H, W, 3]."""
    over = card.painting.layer.astype(float)
    opacity = over[..., 3:] / 255
    return np.rint(card.image * (1 - opacity) + over[..., :3] * opacity).astype(np.uint8)


def nasty_gallery(text: str) -> GalleryInput:
    """`text` wherever the lake, the model or a message could bring it in."""
    facts = replace(FACTS, run_id=text, input_uri=text, table_uri=text, model=text, model_revision=text, tasks=(text,))
    totals = RunTotals(
        images=1, failed_images=1, errors={text: 1}, examples={text: ((text, text),)}, label_counts={text: 1}, seconds={text: 1.0}
    )
    return GalleryInput(facts, totals, [plain_card(uri=text, label=text, task=text)])


class TestUntrustedText:
    @pytest.mark.parametrize("text", NASTY)
    def test_adds_no_element_and_no_attribute(self, text: str) -> None:
        def shape(page: Page) -> list[tuple[str, list[str]]]:
            return [(tag, sorted(attributes)) for tag, attributes in page.tags]

        assert shape(Page(page_of(nasty_gallery(text)))) == shape(Page(page_of(nasty_gallery("harmless"))))

    @pytest.mark.parametrize("text", NASTY[:5])
    def test_is_shown_as_it_is(self, text: str) -> None:
        page = Page(page_of(nasty_gallery(text)))
        assert page.text.count(text) >= 8  # table, run, task, label, class, stage, code, URI, message

    def test_controls_and_changes_of_direction_are_spelt_out(self) -> None:
        for text in NASTY[5:]:
            html = page_of(nasty_gallery(text))
            assert not set(re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff]", html))
        html = page_of(nasty_gallery("a\u202egpj.exe"))
        assert "a\\u202egpj.exe" in html

    def test_other_scripts_and_emoji_stay(self) -> None:
        text = "קבצים صورة 写真 👩\u200d🚒 naïve"
        assert text in Page(page_of(nasty_gallery(text))).text

    def test_lone_surrogates_do_not_break_the_file(self) -> None:
        page_of(nasty_gallery("\udcff.jpg")).encode("utf-8")

    def test_endless_text_is_cut(self) -> None:
        assert len(page_of(nasty_gallery("x" * 1_000_000))) < 60_000


class TestPage:
    def test_nothing_is_asked_of_a_network(self) -> None:
        html = page_of(gallery_of([scene_card(0)]))
        page = Page(html)
        policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"] or ""
        assert policy.startswith("default-src 'none'; img-src data:;")
        assert "script" not in policy
        assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed", "base", "form", "a"}
        addresses = [
            value or "" for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href", "srcset", "action")
        ]
        assert len(addresses) == 3  # an icon and two pictures
        assert all(address.startswith("data:") for address in addresses)
        assert "url(" not in html
        assert "@import" not in html

    def test_shows_the_facts_of_the_run(self) -> None:
        html = page_of(gallery_of([scene_card(0)]))
        for fact in (
            "s3://lake/masks",
            "s3://lake/images/",
            FACTS.model,
            FACTS.run_id,
            "209",
            "951",
            "1 min 19 s",
            "2.66",
            "2026-11-22 17:44 UTC",
        ):
            assert fact in html

    def test_every_picture_has_a_text_and_a_switch(self) -> None:
        page = Page(page_of(gallery_of([plain_card(), plain_card("s3://lake/b.jpg")])))
        assert [picture["alt"] for picture in page.all("img", **{"class": "masked over"})] == [
            "a.jpg with masks: 2 cat",
            "b.jpg with masks: 2 cat",
        ]
        assert all(picture["alt"] for picture in page.all("img"))
        switches = page.all("input", type="checkbox")
        assert [switch.get("aria-label") for switch in switches[1:]] == ["Without masks: a.jpg", "Without masks: b.jpg"]
        assert switches[0]["id"] == page.all("label", **{"for": "masks"})[0]["for"]

    def test_the_legend_names_label_colour_count_and_score(self) -> None:
        html = page_of(gallery_of([plain_card()]))
        assert (
            '<i style="background:#ff0010"></i><bdi>cat</bdi> <b title="segments">&times;2</b> <span title="highest score">0.88</span>'
            in html
        )

    def test_bars_are_as_long_as_their_counts(self) -> None:
        html = page_of(gallery_of([], {"cat": 30, "dog": 120, "cow": 1}))
        assert re.findall(r'<bdi class="name">(\w+)</bdi>.*?width:([\d.]+)%.*?figure">([\d,]+)<', html)[:3] == [
            ("dog", "100.0", "120"),
            ("cat", "25.0", "30"),
            ("cow", "0.8", "1"),
        ]

    def test_many_classes_unfold(self) -> None:
        html = page_of(gallery_of([], {f"class-{n:02d}": 100 - n for n in range(40)}))
        before, after = html.split("<details>")
        assert before.count("class-") == 24
        assert "<summary>16 more</summary>" in after
        assert after.count("class-") == 16

    def test_failures_are_grouped_by_code_most_frequent_first(self) -> None:
        page = page_of(gallery_of([]))
        assert re.findall(r"<code>(\w+)</code> <span>(\d+ rows?)", page) == [
            ("not_an_image", "4 rows"),
            ("too_large", "1 row"),
            ("truncated", "1 row"),
        ]
        assert 'rowspan="2"' in page
        assert "Showing 4 of 6 failed rows" in page

    @pytest.mark.parametrize(
        ("gallery", "texts"),
        [
            (GalleryInput(FACTS, RunTotals(), []), ["There are no pictures", "No segments were found", "No image failed"]),
            (gallery_of([], failures=False), ["There are no pictures", "No image failed"]),
            (
                GalleryInput(FACTS, RunTotals(images=2, failed_images=2, errors={"broken": 2}), []),
                ["see the failures below", "<code>broken</code> <span>2 rows"],
            ),
        ],
    )
    def test_what_is_not_there_is_said(self, gallery: GalleryInput, texts: list[str]) -> None:
        html = page_of(gallery)
        assert [text for text in texts if text not in html] == []
        assert "<img" not in html

    def test_an_answer_without_segments_is_a_card(self) -> None:
        image, row = scene_row(1, 40, 60)
        html = page_of(gallery_of([card_from(image, {**row, "segments": []})]))
        assert "Nothing found" in html
        assert "with masks: nothing" in html

    def test_cards_are_taken_one_at_a_time(self) -> None:
        def cards() -> Iterator[Card]:
            yield plain_card()
            yield plain_card()

        assert page_of(replace(gallery_of([]), cards=cards())).count("<article") == 2

    def test_pictures_are_inlined_as_they_are(self) -> None:
        card = scene_card(1)
        page = Page(page_of(gallery_of([card])))
        for kind, pixels, apart in (("plain", card.image, 8), ("masked over", card.painting.layer, 0)):
            picture = page.all("img", **{"class": kind})[0]
            data = base64.b64decode((picture["src"] or "").removeprefix("data:image/webp;base64,"))
            shown = np.asarray(Image.open(io.BytesIO(data)))
            assert (picture["height"], picture["width"]) == tuple(str(side) for side in pixels.shape[:2])
            assert shown.shape == pixels.shape
            visible = pixels[..., 3] > 0 if kind != "plain" else np.ones(pixels.shape[:2], bool)
            assert np.abs(shown[visible].astype(int) - pixels[visible]).mean() <= apart
            assert len(data) < 100_000


class TestCardFrom:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("size", "expected"), [((1080, 1920), (540, 960)), ((1800, 600), (960, 320)), ((48, 64), (48, 64)), ((3, 4000), (1, 960))]
    )
    def test_pictures_are_reduced_and_never_enlarged(self, size: tuple[int, int], expected: tuple[int, int]) -> None:
        card = card_from(*scene_row(3, *size))
        assert card.image.shape[:2] == card.painting.layer.shape[:2] == expected
        assert max(card.image.shape) <= LONG_SIDE
        assert (card.image.shape[2], card.painting.layer.shape[2]) == (3, 4)
        assert card.image.dtype == card.painting.layer.dtype == np.uint8

    def test_masks_lie_where_they_lay(self) -> None:
        # Only the right half of a black picture is masked: reduced, only its right half changes.
        image = np.zeros((800, 2560, 3), np.uint8)
        row = _row_of_one_mask(np.arange(2560) >= 1280, 800)
        card = card_from(image, row)
        changed = (seen(card) != card.image).any(axis=2)
        assert changed.shape == (300, 960)
        assert not changed[:, :479].any()
        assert changed[:, 482:].all()

    def test_a_picture_that_is_smaller_than_its_row_will_do(self) -> None:
        card = card_from(np.zeros((50, 160, 3), np.uint8), _row_of_one_mask(np.arange(2560) >= 1280, 800))
        assert (seen(card) != card.image).any(axis=2)[:, 82:].all()

    def test_the_legend_has_an_entry_per_label_with_the_highest_score(self) -> None:
        image, row = scene_row(3, 96, 96)
        labels = [segment["label"] for segment in row["segments"]]
        legend = card_from(image, row).painting.legend
        assert {entry.label: entry.count for entry in legend} == {label: labels.count(label) for label in labels}
        assert max(labels.count(label) for label in labels) > 1
        assert {entry.label: entry.score for entry in legend} == {
            label: max(segment["score"] for segment in row["segments"] if segment["label"] == label) for label in labels
        }

    def test_the_legend_has_the_colours_of_the_picture(self) -> None:
        # The middle of a mask over black is nearest to its own label's colour, as opaque as the gallery paints.
        image, row = scene_row(3, 96, 96)
        card = card_from(np.zeros_like(image), row)
        ids = {segment["label"]: segment for segment in row["segments"]}
        colours = np.array([entry.colour for entry in card.painting.legend], float)
        for entry in card.painting.legend:
            painted = seen(card)[_largest_inside(ids[entry.label], 96, 96)].mean(axis=0)
            unlike = [1 - np.dot(painted, colour) / np.linalg.norm(painted) / np.linalg.norm(colour) for colour in colours]
            assert card.painting.legend[int(np.argmin(unlike))].label == entry.label


class TestColours:
    @pytest.mark.parametrize("scheme", [LIGHT, DARK])
    def test_text_is_readable_on_every_background(self, scheme: dict[str, str]) -> None:
        pairs = [(text, ground) for text in ("text", "muted", "accent", "bad", "good") for ground in ("page", "card")]
        assert [pair for pair in pairs if _contrast(scheme[pair[0]], scheme[pair[1]]) < 4.5] == []
        assert LIGHT.keys() == DARK.keys()


def _contrast(first: str, second: str) -> float:
    """WCAG 2.2's contrast ratio of two sRGB colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def _row_of_one_mask(columns: Any, height: int) -> dict[str, Any]:
    from pycocotools import mask as coco_mask

    mask = np.asfortranarray(np.broadcast_to(columns, (height, len(columns))).astype(np.uint8))
    segment = {"segment_id": 1, "label_id": 1, "label": "cat", "isthing": True, "score": 0.9, "area": int(mask.sum()), "bbox": [0, 0, 1, 1]}
    segment["counts"] = coco_mask.encode(mask)["counts"]
    return {"image_uri": "s3://lake/a.jpg", "task": "panoptic", "height": height, "width": len(columns), "segments": [segment]}


def _largest_inside(segment: dict[str, Any], height: int, width: int) -> Any:
    """The pixels of a segment that lie 3 or more pixels from its border."""
    from pycocotools import mask as coco_mask
    from scipy.ndimage import binary_erosion

    return binary_erosion(coco_mask.decode({"size": [height, width], "counts": segment["counts"]}), iterations=3)
