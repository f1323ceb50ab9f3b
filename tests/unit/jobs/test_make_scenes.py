"""Generated scenes as a data set, as a user asks for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import make_scenes


def names(folder: Path) -> set[str]:
    return {image["file_name"] for image in json.loads((folder / "panoptic.json").read_text())["images"]}


def test_held_out_scenes_are_none_of_those_that_are_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_scenes.main(["--output", str(tmp_path / "train"), "--scenes", "2", "--side", "32"]) == 0
    assert make_scenes.main(["--output", str(tmp_path / "judge"), "--scenes", "2", "--side", "32", "--held-out"]) == 0
    assert len(names(tmp_path / "train") | names(tmp_path / "judge")) == 4
    assert make_scenes.main(["--output", str(tmp_path / "none"), "--scenes", "501", "--held-out"]) == 2
    assert "--scenes 501: there are 500 held-out scenes" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_another_set_goes_on_where_the_first_one_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_scenes.main(["--output", str(tmp_path / "all"), "--scenes", "3", "--side", "32"]) == 0
    assert make_scenes.main(["--output", str(tmp_path / "rest"), "--first", "1", "--scenes", "2", "--side", "32"]) == 0
    assert names(tmp_path / "rest") == {"1000001.jpg", "1000002.jpg"}
    for name in names(tmp_path / "rest"):
        assert (tmp_path / "rest" / "images" / name).read_bytes() == (tmp_path / "all" / "images" / name).read_bytes()
    assert make_scenes.main(["--output", str(tmp_path / "none"), "--held-out", "--first", "499", "--scenes", "2"]) == 2
    assert make_scenes.main(["--output", str(tmp_path / "none"), "--first", "-1"]) == 2
    told = capsys.readouterr().err
    assert "--first 499, --scenes 2: there are 500 held-out scenes" in told
    assert "--first -1: is a number of scenes, 0 or more" in told
