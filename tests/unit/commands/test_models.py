"""`masklake models`: the table of released checkpoints, by task and dataset."""

from __future__ import annotations

import json

import pytest

from masklake.commands import cli


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str], dict[str, object]]:
    code = cli.main(["models", *arguments])
    *lines, last = capsys.readouterr().out.splitlines()
    return code, lines, json.loads(last)


def test_all_are_listed_and_some_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, summary = listed(capsys)
    assert (code, summary["kinds"]) == (0, len(lines) - 1)
    assert any("facebook/mask2former-*-coco-panoptic" in line and line.endswith("panoptic, instance, semantic") for line in lines)
    _, chosen, _ = listed(capsys, "--task", "instance", "--dataset", "coco")
    assert len(chosen) == 1 + 2 * 3 + 3  # trained for panoptic and for instances: Mask2Former, both EoMTs; OneFormer, MaskFormer, DETR
    assert not any("Cityscapes" in line or "maskformer-swin-*-ade" in line for line in chosen)
    _, chosen, _ = listed(capsys, "--dataset", "ade20k")
    assert any("ade20k-full" in line for line in chosen)


def test_nothing_of_that_kind_is_a_refusal_with_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, summary = listed(capsys, "--dataset", "cityscape")
    assert (code, summary["error"]) == (2, "--dataset cityscape: did you mean 'Cityscapes'?")
    code, _, summary = listed(capsys, "--dataset", "Pascal VOC", "--task", "panoptic")
    assert (code, summary["error"]) == (2, "--task panoptic: no released checkpoint answers it with the classes of Pascal VOC")
