"""Images that somebody names in a list: the commands that read a table take those rows, however many there are, and no others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from masklake import reading
from masklake.commands import cli
from masklake.datasets import MaskStream
from masklake.errors import Refused
from masklake.tasks import Task
from masklake.training.settings import SourceConfig
from masklake.training.sources import read
from tests.evaluations import label_maps
from tests.exports import ROOT, build, newest

A, B, D = (f"{ROOT}{name}" for name in ("dt=2026-11-21/a.jpg", "dt=2026-11-21/b.jpg", "dt=2026-11-22/d"))
NONE = [f"{ROOT}dt=2026-11-21/{number:06}.jpg" for number in range(50_000)]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(str(tmp_path_factory.mktemp("lake") / "masks"))


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any], str]:
    code = cli.main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    return code, json.loads(told.out.splitlines()[-1]), told.err


@pytest.mark.slow
def test_export_takes_a_list_that_no_condition_could_hold(table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some = tmp_path / "some.txt"
    some.write_text("\n".join([A, *NONE, D, ""]))
    arguments = ["export", "--table", table, "--format", "coco-panoptic", "--uris", some]
    code, summary, said = run(capsys, *arguments, "--output", tmp_path / "out")
    assert (code, summary["rows"], len(summary["unknown"])) == (0, 2, 50_000)
    assert f"--uris {some}: the table has no row of 50,000 of the images: {NONE[0]}, {NONE[1]}, " in said
    assert ", and 49,980 more" in said
    written = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    answers = newest(table, "panoptic")  # d failed in the last run: its older answer is the newest successful one
    expected = {uri: len(answers[uri.removeprefix(ROOT)]["segments"]) for uri in (A, D)}
    names = {image["id"]: image["coco_url"] for image in written["images"]}
    assert {names[each["image_id"]]: len(each["segments_info"]) for each in written["annotations"]} == expected
    code, summary, said = run(capsys, *arguments, "--output", tmp_path / "other", "--where", "dt = '2026-11-21'")
    assert (code, summary["rows"]) == (0, 1)


def test_lists_of_any_kind_and_what_is_none(table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "some.csv").write_text(f"ticket,url\n7,{A}\n8,{B}\n")
    pq.write_table(pa.table({"image_uri": [A, B]}), tmp_path / "some.parquet")
    (tmp_path / "some.jsonl").write_text("".join(json.dumps({"image_uri": uri}) + "\n" for uri in (A, B)))
    for name in ("some.csv", "some.parquet", "some.jsonl"):
        code, summary, _ = run(
            capsys, "export", "--table", table, "--format", "segments", "--uris", tmp_path / name, "--output", tmp_path / f"of-{name}"
        )
        assert (code, summary["rows"], summary["unknown"]) == (0, 6, [])  # of three tasks
    wrong = {"empty.txt": ("", "it names no image"), "none.txt": (NONE[0], "the table has no row of 1 of the images: " + NONE[0])}
    wrong |= {
        "short.txt": ("a.jpg", "name images as the table's image_uri does"),
        "odd.csv": ("ticket\n7", "has a column of text that names"),
    }
    for name, (content, sentence) in wrong.items():
        (tmp_path / name).write_text(content)
        for command in ("export", "evaluate"):
            more = ["--format", "segments"] if command == "export" else ["--truth", label_maps(tmp_path / "truth", {}, ("sky",))]
            code, summary, _ = run(capsys, command, "--table", table, "--uris", tmp_path / name, "--output", tmp_path / "out", *more)
            assert (code, summary["outcome"]) == (2, "refused")
            assert sentence in summary["error"] or more[0] == "--truth"
    assert not (tmp_path / "out").exists()
    code, summary, _ = run(capsys, "erase", "--table", table, "--uris", tmp_path / "empty.txt")
    assert (code, summary["outcome"]) == (2, "refused")


def test_finetune_learns_from_the_images_of_a_list_alone(table: str, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text(f"{B}\n{NONE[0]}\n")
    settings = SourceConfig(format="table", truth=table, task=Task.INSTANCE, validation_share=0, uris=str(tmp_path / "some.txt"))
    data, _ = read(settings, False)
    assert [example.image for example in data.examples] == [B]
    assert data.skipped[f"--uris {tmp_path}/some.txt: the table has no row of 1 of the images: {NONE[0]}"] == 1
    _, held_out = read(settings.model_copy(update={"validation_truth": table}), False)  # the list is of --truth alone
    assert len(held_out.examples) == 5


def test_rows_of_a_table_are_not_chosen_from_other_truth(tmp_path: Path) -> None:
    truth = label_maps(tmp_path / "truth", {}, ("sky",))
    choices: list[dict[str, Any]] = [{"where": "true"}, {"uris": "some.txt"}, {"min_score": 0.5}]
    for given in choices:
        with pytest.raises(Refused, match=f"--{next(iter(given)).replace('_', '-')} is for rows of a table of masks"):
            read(SourceConfig(truth=truth, **given), True)


def test_a_table_of_some_images_is_read_like_the_whole(table: str) -> None:
    whole = reading.open_table(table)
    some = whole.of_images([A, *NONE])
    everything = [(row["task"], row["run_id"]) for row in whole.newest(columns=["image_uri", "task", "run_id"]) if row["image_uri"] == A]
    assert sorted((row["task"], row["run_id"]) for row in some.newest(columns=["task", "run_id"])) == sorted(everything)
    assert some.rows(columns=["run_id"])["run_id"].to_pylist().count("run-2") == len(some.tasks()) == 3
    assert {row["image_uri"] for row in whole.newest()} > {A}  # the whole is as before
    assert list(whole.of_images([]).newest()) == []
    assert MaskStream(some, "panoptic")._images == some.images


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("image_uri IN ('" + "', '".join(NONE) + "')", "it has 50,000 values and 2 other parts, where 10,000 and 1,000 can be"),
        (" OR ".join(f"image_uri = '{uri}'" for uri in NONE[:5000]), "it has 5,000 values and 10,001 other parts"),
        ("NOT " * 900 + "true", "nested more than 200 deep"),
        ("width = " + "1 + " * 900 + "1", "nested more than 200 deep"),
        ("(" * 5_000 + "true" + ")" * 5_000, "it must be one SQL condition"),
    ],
    ids=["list", "alternatives", "negations", "sum", "parentheses"],
)
def test_a_condition_too_long_or_too_deep_is_a_sentence(
    text: str, why: str, table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (
        ["export", "--format", "segments"],
        ["evaluate", "--truth", label_maps(tmp_path / "truth", {"a.png": np.zeros((1, 1))}, ("sky",))],
    ):
        code, summary, said = run(capsys, *command, "--table", table, "--where", text, "--output", tmp_path / "out")
        assert (code, summary["outcome"]) == (2, "refused")
        assert why in summary["error"]
        assert len(summary["error"]) < 700
        assert ("--uris FILE" in summary["error"]) is ("parts" in why)
        assert "Traceback" not in said
    with pytest.raises(Refused, match="--where"):
        next(reading.open_table(table).newest(where=text))
