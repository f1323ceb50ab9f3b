"""Preprocessor settings that are not known, or not meant, are refused and not ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from masklake.errors import Refused
from masklake.inference import processors
from masklake.inference.families import FAMILIES


def settings(tmp_path: Path, **written: Any) -> dict[str, Any]:
    content = {"image_processor_type": "SegformerImageProcessor", "size": {"height": 64, "width": 64}, **written}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    return processors.settings(tmp_path, {}, FAMILIES["segformer"], "team/model")[0]


@pytest.mark.parametrize("step", ["do_flip_channel_order", "do_thumbnail", "do_align_long_axis", "do_crop_margin", "do_binarize"])
def test_a_step_that_is_not_done_here_is_refused_where_it_is_asked_for(tmp_path: Path, step: str) -> None:
    settings(tmp_path, **{step: False})
    with pytest.raises(Refused, match=rf"^team/model: preprocessor_config.json asks for {step}, which is not done here"):
        settings(tmp_path, **{step: True})


def test_the_known_steps_are_taken(tmp_path: Path) -> None:
    for step in ("do_resize", "do_rescale", "do_normalize", "do_pad", "do_convert_rgb", "do_reduce_labels", "do_center_crop"):
        settings(tmp_path, **{step: True})


@pytest.mark.parametrize(
    "written",
    [
        {"size": {"height": 10**6, "width": 10**6}},
        {"size": {"height": "64", "width": 64}},
        {"size": {"height": -1, "width": 64}},
        {"size": "large"},
        {"size": {}},
        {"image_mean": "0.5"},
        {"image_mean": [0.5]},
        {"image_std": [0.0, 1.0, 1.0]},
        {"image_std": [1.0, 1.0, float("nan")]},
        {"rescale_factor": "a"},
        {"rescale_factor": float("inf")},
        {"resample": 77},
        {"resample": "bilinear"},
        {"ensure_multiple_of": 10**9},
    ],
)
def test_values_of_the_wrong_kind_or_size_are_refused_in_one_sentence(tmp_path: Path, written: dict[str, Any]) -> None:
    with pytest.raises(Refused, match=r"^team/model: its preprocessor settings cannot be used: .*$"):
        processors.plan(settings(tmp_path, **written), "team/model")


def test_eomt_on_dinov3_has_a_processor_of_its_own_name(tmp_path: Path) -> None:
    found = settings(tmp_path, image_processor_type="EomtDinov3ImageProcessorFast", size={"shortest_edge": 640, "longest_edge": 640})
    assert processors.plan(found, "m").target(480, 640) == (480, 640)
