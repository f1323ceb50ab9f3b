"""What a table's fingerprints stand for: one setting's difference is named, and `--precision auto` means what the table holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from masklake.inference import checkpoint
from masklake.segment.known import Known, concepts_held, differences, digest_of, nearest, precision_held, remember, remembered
from masklake.segment.model import facts, options
from masklake.segment.settings import SegmentConfig
from tests.lakes import MODEL


def asked(task: str = "panoptic", **settings: Any) -> Known:
    config = SegmentConfig(model=str(MODEL), tasks=(task,), **{"precision": "float32", **settings})
    found = facts(config, checkpoint.describe(MODEL, options(config)), task)
    return Known(task, digest_of(found), found)


def holding(**rows: int) -> Callable[[str, str], int]:
    """A table that holds so many rows of each fingerprint."""
    return lambda task, fingerprint: rows.get(fingerprint, 0)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"precision": "bfloat16"}, "--precision"),
        ({"resolution": "96x96"}, "--resolution"),
        ({"object_threshold": 0.3}, "--object-threshold"),
        ({"overlap_threshold": 0.3}, "--overlap-threshold"),
        ({"max_pixels": 1000}, "--max-pixels"),
        ({"max_image_bytes": 1000}, "--max-image-bytes"),
        ({"postprocess": "hf", "object_threshold": 0.8, "overlap_threshold": 0.8}, "--postprocess"),
    ],
)
def test_one_setting_that_differs_is_named_as_its_flag(settings: dict[str, Any], name: str) -> None:
    assert name in differences(asked().facts, asked(**settings).facts)
    if "postprocess" not in settings:
        assert list(differences(asked().facts, asked(**settings).facts)) == [name]


def test_what_differs_in_nothing_has_no_difference() -> None:
    assert differences(asked().facts, asked().facts) == {}


def test_a_night_without_gpus_takes_the_precision_of_the_table() -> None:
    half, full = asked(precision="bfloat16"), asked()
    assert precision_held([asked(precision="auto")], [half], holding(**{half.fingerprint: 40})) == ("bfloat16", 40)
    both = holding(**{half.fingerprint: 40, full.fingerprint: 41})
    assert precision_held([asked(precision="auto")], [half, full], both) == ("float32", 41)
    assert precision_held([asked(precision="auto")], [half], holding()) is None  # its run came to nothing


def test_rows_of_other_settings_count_where_there_are_none_that_differ_in_precision_alone() -> None:
    other = asked(precision="float16", object_threshold=0.3)
    assert precision_held([asked(precision="auto")], [other], holding(**{other.fingerprint: 7})) == ("float16", 7)
    near = asked(precision="bfloat16")
    assert precision_held([asked(precision="auto")], [other, near], holding(**{other.fingerprint: 700, near.fingerprint: 1})) == (
        "bfloat16",
        1,
    )


def test_new_work_that_one_setting_makes_is_said_loudly() -> None:
    half = asked(precision="bfloat16")
    (near,) = nearest([asked()], [half], holding(**{half.fingerprint: 12_345}))
    assert str(near).startswith(
        "ATTENTION: the table holds 12,345 rows of the task panoptic under one other setting: "
        "--precision is bfloat16 there and float32 here."
    )
    assert nearest([asked()], [half], holding(**{half.fingerprint: 5, asked().fingerprint: 1})) == []  # some of it is done as asked
    assert (
        nearest([asked()], [asked(precision="bfloat16", max_pixels=9)], lambda task, fingerprint: 1 * (fingerprint != asked().fingerprint))
        == []
    )
    assert nearest([asked("semantic")], [half], holding(**{half.fingerprint: 5})) == []  # another task is another question


def test_what_a_run_leaves_is_read_by_the_next(tmp_path: Path) -> None:
    table = tmp_path.as_uri()
    assert remembered(table) == []
    remember(table, [asked(), asked("semantic")])
    remember(table, [asked()])
    assert {known.fingerprint for known in remembered(table)} == {asked().fingerprint, asked("semantic").fingerprint}
    assert differences(asked().facts, next(known.facts for known in remembered(table) if known.task == "panoptic")) == {}
    (tmp_path / "_masklake" / "fingerprints" / "junk.json").write_text("{")
    assert len(remembered(table)) == 2


def test_rows_for_other_concepts_answer_those_that_are_asked_for() -> None:
    def told(*concepts: str, threshold: float = 0.5) -> Known:
        facts = {"answer": {"checkpoint": "c", "concepts": list(concepts), "score_threshold": threshold}, "precision": "float32"}
        return Known("instance", digest_of(facts), facts)

    mine, one, two = told("bus", "dog"), told("dog"), told("cow", "dog", "man")
    forged = Known("instance", "0" * 32, one.facts)
    others = [one, two, mine, told("cow"), told("dog", threshold=0.3), forged]
    assert concepts_held(mine, others) == {one.fingerprint: {"dog"}, two.fingerprint: {"dog"}}
    assert concepts_held(told("dog"), [mine]) == {mine.fingerprint: {"dog"}}
    assert nearest([mine], [one], lambda task, fingerprint: 9 * (fingerprint == one.fingerprint)) == []
    assert concepts_held(asked(), [asked(object_threshold=0.3)]) == {}
