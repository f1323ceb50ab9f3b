"""Questions of the page, as conditions, and what they find; the right answers follow from the table's numbers by hand."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from masklake import reading, storage
from masklake.browse.asked import Asked, asked_of
from masklake.browse.found import Answers
from masklake.browse.index import Index
from masklake.browse.taking import LIST, as_lines, told, where_of
from masklake.commands.cli import program
from masklake.config import resolve
from masklake.errors import Refused
from masklake.images.sources import names_listed
from masklake.named import chosen
from masklake.table.asked import FACTS
from masklake.upkeep.upkeep import UpkeepTable
from tests.browsing import HOSTILE, build

A, B, C, EMPTY, BROKEN = "a.png", "b.png", "c.png", "empty.png", "broken.png"
ODD = f"{HOSTILE}.png"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answers]:
    folder = tmp_path_factory.mktemp("table")
    table = build(folder)
    with closing(Index(UpkeepTable.existing(table), folder)) as index:
        index.read_segments()
        assert (index.failure, index.complete) == ("", True)
        yield Answers(index, reading.open_table(table))


def found(answers: Answers, **asked: object) -> list[str]:
    """Names of images, in their order."""
    parameters = [(name.replace("in_", "in."), str(value)) for name, value in {"task": "panoptic", **asked}.items()]
    question = asked_of(parameters, ["dt"])
    told, rows = answers.page(question, 0, 50)
    names = [row["image_uri"].rpartition("/")[2] for row in rows]
    assert told.count == len(names)
    assert [uri.rpartition("/")[2] for uri in answers.uris(question)] == names
    return names


class TestFound:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("asked", "names"),
        [
            ({}, {A, B, C, ODD, EMPTY, BROKEN}),
            ({"label": "person"}, {A, B, C}),
            ({"label": "person", "share_from": 0.1}, {A, B}),
            ({"label": "person", "share_from": 0.1, "score_to": 0.6}, {B}),
            ({"label": "person", "share_from": 0.1, "score_to": 0.6, "in_dt": "2026-11-22"}, set()),
            ({"score_from": 0.95}, {B}),
            ({"score_to": 0.55, "score_from": 0.55}, {B}),
            ({"share_from": 0.5}, {A, C}),
            ({"in_dt": "2026-11-22"}, {C, ODD, EMPTY, BROKEN}),
            ({"status": "error"}, {BROKEN}),
            ({"status": "ok"}, {A, B, C, ODD, EMPTY}),
            ({"error_code": "truncated"}, {BROKEN}),
            ({"error_code": "not_found"}, set()),
            ({"fingerprint": "f-old"}, {A, B, C}),
            ({"model": "model f-new", "label": "dog"}, {B, C}),
            ({"fingerprint": "f-old", "label": "dog"}, {B, C}),
            ({"fingerprint": "f-old", "label": "dog", "share_from": 0.3}, set()),
            ({"label": HOSTILE}, {ODD}),
            ({"name": "A.PNG"}, {A}),
            ({"name": "/dt=2026-11-21/"}, {A, B}),
            ({"name": "'"}, set()),
            ({"where": "dt > '2026-11-21' AND status = 'ok' -- as people write"}, {C, ODD, EMPTY}),
        ],
        ids=lambda value: None if isinstance(value, set) else str(value),
    )
    def test_is_what_fits(self, answers: Answers, asked: dict[str, object], names: set[str]) -> None:
        assert set(found(answers, **asked)) == names

    @pytest.mark.parametrize(
        ("order", "names"),
        [
            ("name", [ODD, BROKEN, C, EMPTY]),
            ("doubt", [ODD, EMPTY, C, BROKEN]),  # 1 - 0.4 = 0.6; 0.5; (0.05 * 0.8 + 0.5 * 0.4) / 0.55 = 0.44; none
            ("difference", [C]),
            ("lowest", [C, ODD]),
            ("largest", [C, ODD]),
            ("most", [C, ODD]),
        ],
    )
    def test_is_in_the_order_asked_for(self, answers: Answers, order: str, names: list[str]) -> None:
        assert found(answers, order=order, in_dt="2026-11-22")[: len(names)] == names

    def test_models_disagree_by_the_areas_of_classes(self, answers: Answers) -> None:
        """a: the same. b: person .2 and dog .05 against dog .2, in common .05 of .2 + .2. c: .05 + .25 in common of .05 + .5."""
        assert found(answers, order="difference")[:3] == [B, C, A]

    def test_on_what_a_model_was_not_asked_it_does_not_disagree(self, tmp_path: Path) -> None:
        """Of the sky alone both were asked, which only a has, and there they agree."""
        table = build(tmp_path)
        for fingerprint, concepts in (("f-old", ["sky"]), ("f-new", ["person", "dog", "sky"])):
            facts = {"task": "panoptic", "facts": {"answer": {"concepts": concepts}}}
            storage.write_bytes(f"{table}/{FACTS}{fingerprint}.json", json.dumps(facts).encode())
        with closing(Index(UpkeepTable.existing(table), tmp_path)) as index:
            index.read_segments()
            assert found(Answers(index, reading.open_table(table)), order="difference")[0] == A

    def test_pages_follow_each_other(self, answers: Answers) -> None:
        asked = Asked.model_validate({"task": "panoptic", "order": "name"})
        parts = [answers.page(asked, first, 4)[1] for first in (0, 4, 8)]
        assert [row["place"] for rows in parts for row in rows] == list(range(6))
        assert [len(rows) for rows in parts] == [4, 2, 0]

    def test_says_the_classes_of_each_image(self, answers: Answers) -> None:
        _, rows = answers.page(Asked.model_validate({"task": "panoptic", "name": "b.png"}), 0, 4)
        labels = [(each["label"], each["count"], round(each["share"], 3), round(each["score"], 2)) for each in rows[0]["labels"]]
        assert labels == [("person", 1, 0.2, 0.55), ("dog", 1, 0.05, 0.95)]
        assert rows[0]["doubt"] == pytest.approx((0.2 * 0.9 + 0.05 * 0.1) / 0.25)

    def test_classes_and_days_are_counted(self, answers: Answers) -> None:
        asked = Asked.model_validate({"task": "panoptic"})
        assert [(each["label"], each["images"]) for each in answers.classes(asked)] == [("person", 3), ("dog", 2), (HOSTILE, 1), ("sky", 1)]
        days = [(each["value"], each["images"], each["label"], each["segments"]) for each in answers.chart(asked, "dt")]
        assert ("2026-11-21", 2, "person", 2) in days
        assert ("2026-11-22", 4, "dog", 1) in days


class TestRefused:
    @pytest.mark.parametrize(
        ("parameters", "names"),
        [
            ([("task", "bed")], "task"),
            ([], "task"),
            ([("task", "panoptic"), ("score_to", "2")], "score_to"),
            ([("task", "panoptic"), ("order", "id; DROP TABLE rows")], "order"),
            ([("task", "panoptic"), ("in.image_uri", "x")], "image_uri"),
            ([("task", "panoptic"), ("uri", "file:///etc/passwd")], "uri"),
        ],
        ids=str,
    )
    def test_a_parameter_that_is_none(self, parameters: list[tuple[str, str]], names: str) -> None:
        with pytest.raises(Refused, match=names):
            asked_of(parameters, ["dt"])

    @pytest.mark.parametrize(
        "where",
        [
            "true) OR (true",
            "true; DROP TABLE rows",
            "image_uri IN (SELECT content FROM read_text('/etc/passwd'))",
            "width > 1 ORDER BY 1",
            "colour = 'red'",
            "__id = 1",
        ],
    )
    def test_a_condition_that_is_more_or_less_than_one(self, answers: Answers, where: str) -> None:
        with pytest.raises(Refused):
            found(answers, where=where)
        assert len(found(answers)) == 6


class TestTaken:
    def test_what_is_said_of_rows_is_a_condition(self) -> None:
        asked = asked_of([("task", "panoptic"), ("in.dt", "2026-11-22"), ("name", "it's"), ("where", "width > 1 -- wide")], ["dt"])
        condition = "\"dt\" IN ('2026-11-22') AND strpos(lower(image_uri), 'it''s') > 0 AND (width > 1 -- wide\n)"
        assert where_of(asked) == condition
        assert told(asked, "t", 1, picked=False)["where"] == condition

    def test_images_that_were_picked_or_whose_segments_fit_are_in_a_list(self) -> None:
        of_segments, of_rows = asked_of([("task", "panoptic"), ("label", "person")], []), asked_of([("task", "panoptic")], [])
        for asked, picked, by_list in ((of_segments, False, True), (of_rows, True, True), (of_rows, False, False)):
            commands = told(asked, "t", 10**6, picked)["commands"]
            assert [each["command"].split()[1] for each in commands] == ["export", "export", "finetune", "erase"]
            assert [f"--uris {LIST}" in each["command"] for each in commands] == [by_list] * 3 + [True]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "asked",
        [{"in_dt": "2026-11-22"}, {"label": "dog"}, {"name": "A.P"}, {"status": "ok"}, {"model": "model f-old", "label": "dog"}, {}],
        ids=str,
    )
    def test_export_takes_the_answers_that_were_found(self, answers: Answers, asked: dict[str, object], tmp_path: Path) -> None:
        """By the command that the page shows, and the list that it hands out."""
        question = asked_of([(name.replace("in_", "in."), str(value)) for name, value in {"task": "panoptic", **asked}.items()], ["dt"])
        uris, (list_file, table) = answers.uris(question), (tmp_path / LIST, answers._table)
        list_file.write_text(as_lines(uris), encoding="utf-8")
        command = told(question, table.uri, len(uris), picked=False)["commands"][1]["command"]
        settings = resolve(shlex.split(command.replace(LIST, str(list_file)))[2:], program("export"))
        some, unknown = chosen(table, settings.uris, print)
        rows = some.newest("panoptic", ["image_uri", "fingerprint"], settings.where)
        assert not unknown
        assert {row["image_uri"]: row["fingerprint"] for row in rows} == dict.fromkeys(uris, "f-old" if "model" in asked else "f-new")

    def test_a_list_holds_any_name(self, tmp_path: Path) -> None:
        uris = [f"s3://it's/{'long' * 30}/{number}\t\u2028.jpg" for number in range(3)]
        (tmp_path / LIST).write_text(as_lines(uris), encoding="utf-8")
        assert list(names_listed(f"file://{tmp_path}/{LIST}", "--uris")) == uris
