"""A look before a run: what it shows, that it writes nothing else, and that it refuses what the run would."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

import masklake
from masklake.commands import cli, segment
from masklake.errors import Refused
from masklake.segment import preview
from masklake.segment.call import call
from masklake.segment.estimate import Measured, by_preview
from masklake.segment.machine import Machine
from masklake.segment.plan import Plan
from masklake.segment.settings import Config
from masklake.table import write
from masklake.table.rows import build_rows
from tests.answers import images, rectangle, stamp
from tests.answers import segment as segment_of
from tests.lakes import MODEL, scene

WRONG = {"none.jpg": b"no image", "nothing.jpg": b""}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preview") / "lake"
    for number in range(6):
        file = folder / f"dt=2026-11-{20 + number % 3}" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(scene(number))
    for name, content in WRONG.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def looked(lake: Path) -> dict[str, Any]:
    """The last line of a preview of five of the eight."""
    page, output = str(lake.parent / "page"), str(lake.parent / "masks")
    return call({"input": lake, "model": MODEL, "output": output, "preview": 5, "preview_to": page, "price_per_hour": 3.6, "actors": 4})


@pytest.mark.slow
def test_some_images_are_answered_as_the_model_answers_them_and_nothing_is_written_but_a_page(lake: Path, looked: dict[str, Any]) -> None:
    assert (looked["outcome"], looked["images"], looked["plan"]["todo_images"]) == ("previewed", 5, 8)
    names = [Path(uri).relative_to(lake.as_uri()).as_posix() for uri in looked["picked"]]
    assert {Path(name).parent.name for name in names} == {"", "dt=2026-11-20", "dt=2026-11-21", "dt=2026-11-22"}
    assert sorted(path.name for path in lake.parent.iterdir()) == ["lake", "page"]
    assert [path.name for path in (lake.parent / "page").iterdir()] == [preview.PAGE]
    broken = [name for name in names if name in WRONG]
    assert (looked["errors"], looked["errors_by_code"].keys() <= {"not_an_image", "empty"}) == (len(broken), True)
    model = masklake.load(MODEL)
    answers = model([lake / name for name in names if name not in WRONG], task="panoptic")
    assert looked["segments"] == sum(map(len, answers))


@pytest.mark.slow
def test_the_page_shows_answers_failures_and_what_all_would_take(lake: Path, looked: dict[str, Any]) -> None:
    page = Path(looked["page"].removeprefix("file://")).read_text()
    good = 5 - looked["errors"]
    assert page.count('<article class="card') == good
    assert "of 5 images picked over the 8 of the input" in page
    for text in ("Preview of", "All of it takes about", "The table grows by about", "It costs about", "nothing was written to it"):
        assert text in page
    for uri in looked["picked"]:
        assert Path(uri).name in page
    found = looked["estimate"]
    assert found["seconds"] > 0
    assert found["table_bytes"] > 0
    assert found["cost"] == pytest.approx(found["seconds"] / 1000, abs=1e-3)
    assert [line.partition(":")[0] for line in looked["not_estimated"]] == ["the time on a cluster (--actors)"] + (
        ["how many images cannot be used"] if looked["errors"] else []
    )


@pytest.mark.slow
def test_without_a_table_the_command_prints_where_the_page_is(
    lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(segment, "has_browser", lambda: True)
    monkeypatch.setattr("webbrowser.open", opened.append)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.jpg").write_bytes(b"no image")
    arguments = ["--input", str(tmp_path / "bad"), "--model", str(MODEL), "--preview", "12", "--preview-to", str(tmp_path / "page")]
    code = cli.main(["segment", *arguments])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (code, told["table"], told["images"], told["errors_by_code"]) == (3, None, 1, {"not_an_image": 1})  # all of them failed
    assert told["estimate"] is None
    assert told["not_estimated"][0].startswith("time, growth of the table and cost")
    assert opened == [told["page"]]
    assert "Every image failed" in Path(told["page"].removeprefix("file://")).read_text()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"input": "nowhere"}, "--input"),
        ({"model": "no/such/folder"}, "--model"),
        ({"output": "lake"}, "--output"),
        ({"where": "dt >"}, "--where"),
        ({"preview_to": "masks/page", "output": "masks"}, "--preview-to"),
        ({"dry_run": True}, "--dry-run and --preview 2"),
        ({"preview": 0}, "--preview 0"),
        ({"preview": None, "preview_to": "page"}, "--output is missing"),
        ({"preview": None, "preview_to": "page", "output": "masks"}, "--preview-to page"),
    ],
)
def test_what_is_wrong_is_refused(lake: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], sentence: str) -> None:
    monkeypatch.chdir(lake.parent)
    before = sorted(lake.parent.rglob("*"))
    with pytest.raises(Refused) as refused:
        call({"input": "lake", "model": str(MODEL), "preview": 2, **given})
    assert any(reason.startswith(sentence) for reason in refused.value.args), refused.value.args
    assert sorted(lake.parent.rglob("*")) == before


def test_an_estimate_by_a_preview_is_arithmetic() -> None:
    """Ten seconds to start and half a second an image: 1,000 images are 510 s, at 36 an hour 5.1."""
    found = by_preview(1000, Measured(12, 10.0, 0.5, 2000.0, "cpu"), 36.0)
    assert (found.seconds, found.table_bytes, found.from_run) == (510.0, 2_000_000, None)
    assert found.cost == pytest.approx(5.1)
    assert (
        str(found)
        == "by the 12 images of this preview on cpu, this takes about 8 min and costs about 5.10, and adds about 2.0 MB to the table"
    )


@pytest.mark.parametrize(("gpus", "models", "image", "start"), [(0.0, 1, 0.75, 4.0), (0.0, 2, 0.5, 6.0), (1.0, 1, 0.5, 6.0)])
def test_what_an_image_takes_is_arithmetic(gpus: float, models: int, image: float, start: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve images: 6 s of the model, 6 s of loading by two cores, or by three beside a GPU; ten seconds until the first eight were there.

    Without a GPU, model and loading share the cores: 0.5 + 6 / 12 / 2; two models at once halve the 0.5.
    With one, the longer of 0.5 and 6 / 12 / 3.
    """
    monkeypatch.setattr(write, "growth", lambda rows, partition_by: 2400)
    told = [{"images": 8, "busy": 4.0, "fetch": 1.0, "decode": 3.0}, {"images": 4, "busy": 2.0, "fetch": 0.5, "decode": 1.5}]
    machine = Machine("", "", {}, 4 if gpus else 2, gpus, (), "cuda" if gpus else "cpu", models, 1 if gpus else 2 / models, gpus)
    found = preview._measured(told, 10.0, None, SimpleNamespace(partition_by=()), machine)  # type: ignore[arg-type]
    assert (found.images, found.image_seconds, found.start_seconds, found.image_bytes) == (12, image, start, 200)


def test_the_first_calls_which_pay_once_are_not_taken_for_what_every_image_takes() -> None:
    """Recorded of the demo model: images and seconds of each call. The last six images took 1.37 s; a run of 300 answered 14 a second."""
    calls = [(1, 0.96), (1, 0.9), (1, 1.36), (1, 1.33), (1, 0.0), (1, 0.9), (4, 0.46), (2, 0.91)]
    told = [{"images": images, "busy": busy} for images, busy in calls]
    assert preview._warm(told) == pytest.approx(1.37 / 6)
    assert preview._warm(told[:1]) == 0.96


def test_the_table_grows_by_what_files_of_rows_have_more_than_files_of_fewer(tmp_path: Path) -> None:
    def rows(count: int) -> pa.Table:
        asked = images([f"s3://lake/{number}.jpg" for number in range(count)], width=[512] * count, height=[512] * count)
        answers = [{"panoptic": [segment_of(1, rectangle(512, 512, slice(0, 9 + number), slice(0, 50)))]} for number in range(count)]
        return build_rows(asked, answers, stamp(), ["task"])

    def stored(count: int) -> int:
        return sum(record.size for record in write.write_rows(rows(count), str(tmp_path), ["task"], "run-1"))

    assert write.growth(rows(40), ["task"]) - write.growth(rows(20), ["task"]) == stored(40) - stored(20) > 0
    assert 0 < write.growth(rows(20), ["task"]) < stored(20)


def test_what_is_done_needs_no_estimate() -> None:
    config = Config(input="a", output="", model="m", preview=3)
    plan = Plan(9, 90, 9, 0, 0, 0, 0, 0, 3)
    assert preview.unknown(config, plan, None, None) == []  # type: ignore[arg-type]
