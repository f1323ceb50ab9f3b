"""No template can print a value unescaped and pass: every expression of every template is looked at, with hostile text in every field."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from jinja2 import Environment, FunctionLoader, nodes

from masklake.evaluation.page import render_page
from masklake.pages import rendering
from masklake.pages.fragment import fragment
from masklake.segment.gallery import GalleryInput, render_gallery
from masklake.segment.report import RunTotals
from masklake.table.rows import build_rows
from masklake.training.curves import svg
from tests.answers import images, rectangle, segment, stamp
from tests.unit.evaluation.sample_reports import report_of, shown
from tests.unit.segment.sample_pages import FACTS, gallery_of, scene_card

MARK = "<img src=x>"
HOSTILE = f'"></style></title>{MARK}'
PAGES: dict[str, Callable[[], object]] = {
    "gallery": lambda: render_gallery(gallery_of([scene_card(0)], {f"class {number}": number for number in range(1, 30)})),
    "empty gallery": lambda: render_gallery(GalleryInput(FACTS, RunTotals(), [])),
    "semantic evaluation": lambda: render_page(report_of("semantic"), [shown()]),
    "panoptic evaluation": lambda: render_page(report_of("panoptic"), [shown(), shown(readable=False)]),
    "browse": lambda: rendering.render("browse.html.j2", uri="s3://lake/masks", name="masks"),
    "curves": lambda: svg([{"step": 1, "loss": 4.0}, {"step": 2, "loss": 2.0, "validation": {"pq": 0.25, "miou": 0.5}}]),
    "result": lambda: fragment(row_of_two(), np.zeros((40, 60, 3), np.uint8), None),
    "failed result": lambda: fragment({"image_uri": "s3://lake/b.jpg", "task": "panoptic"}, None, "broken: no"),
    "instance evaluation": lambda: render_page(report_of("instance"), [shown()]),
}


def row_of_two() -> dict[str, Any]:
    """A row in which one label stands twice."""
    halves = [rectangle(40, 60, slice(0, 40), columns) for columns in (slice(0, 30), slice(30, 60))]
    answer = {"panoptic": [segment(number, half) for number, half in enumerate(halves, 1)]}
    made: dict[str, Any] = build_rows(images(["s3://lake/a.jpg"], width=[60], height=[40]), [answer], stamp(), ()).to_pylist()[0]
    return made


TEMPLATES = rendering.environment().list_templates(extensions=["j2"])

Values = dict[str, Any]


class Shape(HTMLParser):
    """The elements of a page and the names of their attributes, as a browser would read them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, [name for name, _ in attrs]))


@pytest.fixture(scope="module")
def calls() -> list[tuple[str, Values]]:
    """The templates that make the pages, and what they are given."""
    found: list[tuple[str, Values]] = []
    real = rendering.render

    def noted(template: str, **values: Any) -> str:
        found.append((template, values))
        return real(template, **values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "render", noted)
        for render in PAGES.values():
            render()
    return found


def filled(value: Any, text: str) -> Any:
    """The same values with this text in every field that holds text."""
    if isinstance(value, str):
        return text
    if isinstance(value, dict):
        return {name: filled(each, text) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(filled(each, text) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: filled(getattr(value, field.name), text) for field in fields(value) if field.init})
    return value


def _expressions(name: str) -> list[re.Match[str]]:
    return list(re.finditer(r"{{(.*?)}}", _source(name)))


def _source(name: str) -> str:
    environment = rendering.environment()
    assert environment.loader
    return environment.loader.get_source(environment, name)[0]


class Mutant:
    """All templates, one expression of one of which prints what it holds as it is, as with `|safe`; `seen` is what it held."""

    def __init__(self, template: str) -> None:
        self.seen: list[object] = []
        self._template, self._place = template, 0
        self._environment: Environment = rendering.environment().overlay(loader=FunctionLoader(self._load), auto_reload=True)
        self._environment.filters = {**rendering.environment().filters, "unescaped": self._unescaped}

    def at(self, place: int) -> Mutant:
        """The same with the expression at this place."""
        self.seen, self._place = [], place
        return self

    def render(self, template: str, values: Values) -> str:
        return self._environment.get_template(template).render(**values)

    def _load(self, name: str) -> tuple[str, None, Callable[[], bool]]:
        source, place = _source(name), self._place
        if name == self._template:
            expression = _expressions(name)[place]
            start, end = expression.span()
            source = f"{source[:start]}{{{{ ({expression[1]}) | unescaped | safe }}}}{source[end:]}"
        return source, None, lambda: name != self._template or place == self._place

    def _unescaped(self, value: object) -> object:
        self.seen.append(value)
        return value


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES)
def test_an_expression_that_printed_hostile_text_unescaped_would_be_noticed(calls: list[tuple[str, Values]], template: str) -> None:
    of_all = template not in {page for page, _ in calls}
    pages = [(page, filled(values, HOSTILE)) for page, values in calls if of_all or page == template]
    mutant = Mutant(template)
    for place, expression in enumerate(_expressions(template)):
        mutant.at(place)
        for page, hostile in pages:
            before = len(mutant.seen)
            added = MARK in mutant.render(page, hostile)
            printed = any(isinstance(value, str) and not hasattr(value, "__html__") and MARK in value for value in mutant.seen[before:])
            assert added == printed, expression[0]
        assert mutant.seen, f"no page of PAGES reaches {expression[0]}"


def test_hostile_text_in_every_field_adds_nothing(calls: list[tuple[str, Values]]) -> None:
    for page, values in calls:
        assert Shape(rendering.render(page, **filled(values, HOSTILE))).found == Shape(rendering.render(page, **filled(values, "x"))).found


def test_controls_are_spelt_out_wherever_they_are_printed(calls: list[tuple[str, Values]]) -> None:
    for page, values in calls:
        printed = rendering.render(page, **filled(values, "a\u202eb\x00\x1b\n\u2028"))
        assert not re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]", printed)
        assert "a\\u202eb\\u0000\\u001b\\u000a\\u2028" in printed


def test_nothing_is_marked_as_safe() -> None:
    environment = rendering.environment()
    assert environment.autoescape is True
    for name in TEMPLATES:
        tree = environment.parse(_source(name))
        assert not list(tree.find_all((nodes.MarkSafe, nodes.MarkSafeIfAutoescape, nodes.EvalContextModifier)))
        assert {found.name for found in tree.find_all(nodes.Filter)} <= {"hex", "length", "plural", "short", "thousands"}


def test_a_name_that_is_not_given_is_an_error() -> None:
    with pytest.raises(Exception, match="undefined"):
        rendering.render("page.html.j2")
