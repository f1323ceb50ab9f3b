"""`masklake models`: the table of released checkpoints, by task and dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from masklake.commands import cli
from masklake.commands.catalogue import FOOT, entries, shown
from masklake.inference.released import RELEASED
from tests.released import layouts, tried

FIGURES = entries(RELEASED)


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str], dict[str, object]]:
    code = cli.main(["models", *arguments])
    *lines, last = capsys.readouterr().out.splitlines()
    return code, lines, json.loads(last)


def test_all_are_listed_and_some_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, summary = listed(capsys)
    assert (code, summary["kinds"]) == (0, len(lines) - 1 - len(FOOT.splitlines()))
    assert any("facebook/mask2former-*-coco-panoptic" in line and "  panoptic, instance, semantic  " in line for line in lines)
    _, chosen, _ = listed(capsys, "--task", "instance", "--dataset", "coco")
    assert (
        len(chosen) == 1 + len(FOOT.splitlines()) + 2 * 3 + 3
    )  # trained for panoptic and for instances: Mask2Former, both EoMTs; OneFormer, MaskFormer, DETR
    assert not any("Cityscapes" in line or "maskformer-swin-*-ade" in line for line in chosen)
    _, chosen, _ = listed(capsys, "--dataset", "ade20k")
    assert any("ade20k-full" in line for line in chosen)


def test_nothing_of_that_kind_is_a_refusal_with_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, summary = listed(capsys, "--dataset", "cityscape")
    assert (code, summary["error"]) == (2, "--dataset cityscape: did you mean 'Cityscapes'?")
    code, _, summary = listed(capsys, "--dataset", "Pascal VOC", "--task", "panoptic")
    assert (code, summary["error"]) == (2, "--task panoptic: no released checkpoint answers it with the classes of Pascal VOC")


def test_the_figures_are_those_of_their_papers(capsys: pytest.CaptureFixture[str]) -> None:
    """By hand from Mask2Former's model zoo (arXiv 2112.01527), OneFormer's README, DETR's README, SAM 3's README."""
    _, _, summary = listed(capsys, "--json")
    models = {each["repositories"]: each for each in summary["models"]}  # type: ignore[attr-defined]
    quality = {(name, variant["name"]): variant["quality"] for name, each in models.items() for variant in each["variants"]}
    assert quality["facebook/mask2former-*-coco-panoptic", "Swin-T"] == {"PQ": 53.2, "AP": 43.3, "mIoU": 63.2}
    assert quality["facebook/mask2former-*-coco-panoptic", "Swin-L (IN21k)"] == {"PQ": 57.8, "AP": 48.6, "mIoU": 67.4}
    assert quality["shi-labs/oneformer_coco_swin_*", "Swin-L (IN21k)"] == {"PQ": 57.9, "AP": 49.0, "mIoU": 67.4}
    assert quality["facebook/detr-resnet-*-panoptic", "R101"] == {"PQ": 45.1, "AP": 33.0}
    sam = models["facebook/sam3"]
    assert (sam["variants"][0]["quality"], sam["licence"], sam["gated"]) == ({"LVIS AP": 48.5}, "SAM License", True)
    assert models["facebook/mask2former-*-coco-panoptic"]["licence"] == "CC BY-NC 4.0"


def test_every_kind_is_told_of_and_every_figure_has_a_source() -> None:
    told = json.loads(Path(cli.__file__).with_name("published.json").read_text(encoding="utf-8"))
    assert [*told] == sorted(told, key=[each.repositories for each in RELEASED].index)
    assert len(told) == len(RELEASED)
    for name, each in told.items():
        variants = each["variants"]
        assert ("quality_from" in each) == any(variant["quality"] for variant in variants), name
        assert ("size_from" in each) == any({"parameters_m", "megabytes"} & variant.keys() for variant in variants), name
        assert ("licence" in each, "input" in each) == ("licence_from" in each, "input_from" in each), name
        assert all(0 < value < 100 for variant in variants for value in variant["quality"].values()), name


def test_what_is_told_as_tried_was_tried() -> None:
    """Every kind, in every layout that it may have; the versions are those of the layouts that are kept here."""
    known = json.loads(tried.WRITTEN.read_text(encoding="utf-8"))
    assert [*known] == [each.repositories for each in RELEASED]
    for each in RELEASED:
        families = tried.families(each)
        assert known[each.repositories]["layouts"] == {family: layouts.layout(family)["transformers"] for family in families}
        assert known[each.repositories]["as"] == ([tried.repository(each, family) for family in families] or [each.repositories])
        assert families or each.kind == "SAM 3"
    assert {family for each in RELEASED for family in tried.families(each)} == set(layouts.FAMILIES)


@pytest.mark.slow
def test_a_kind_is_tried_by_asking_it() -> None:
    """A release that is trained for instances alone answers these alone, whatever its layout could."""
    [instances] = [each for each in RELEASED if each.repositories == "tue-mps/coco_instance_eomt_*"]
    assert tried.answered([instances]) == {"tue-mps/coco_instance_eomt_tiny": ["instance"]}
    with pytest.raises(RuntimeError, match="and the table says"):
        tried.told(instances, {"tue-mps/coco_instance_eomt_tiny": ["panoptic"]})


def test_a_cell_that_nobody_published_is_empty_and_a_range_spans_the_sizes() -> None:
    cells = {entry.released.repositories: entry.cells() for entry in FIGURES}
    assert cells["facebook/mask2former-*-coco-instance"][4:8] == ("AP 43.7 to 50.1", "CC BY-NC 4.0", "44 to 215.5 M", "384x384")
    assert cells["Intel/dpt-large-ade"][4:] == ("", "Apache 2.0", "1370 MB", "", "", "4.26.1")
    assert cells["facebook/sam3"][4:6] == ("LVIS AP 48.5", "SAM License, gated")
    assert int(cells["facebook/mask2former-*-coco-panoptic"][8]) > 100


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_narrow_terminal_gets_blocks_that_fit(width: int) -> None:
    text = shown(FIGURES, width)
    assert [line for line in text.splitlines() if len(line) > max(width, 50)] == []
    for entry in FIGURES:
        assert entry.released.repositories in text.splitlines()
    assert "AP 41.7 to 48.6" in " ".join(text.split())


def test_a_wide_one_gets_a_table() -> None:
    head, *lines = shown(FIGURES, 250).splitlines()
    assert len(lines) == len(RELEASED)
    assert head.index("licence") == lines[0].index("CC BY-NC 4.0")
