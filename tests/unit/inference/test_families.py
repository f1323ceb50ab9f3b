"""Every family, as small random checkpoints in the real classes: the same answer in any company, and transformers' own logits."""

from __future__ import annotations

import importlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from masklake.inference import checkpoint, preprocess
from masklake.inference.families import FAMILIES, ClassMap, Queries
from masklake.inference.options import Options
from masklake.inference.segmenter import ModelInput, Segment, Segmenter
from tests.answers import decoded
from tests.shared import shared_folder
from tests.unit.inference import tiny_checkpoints
from tests.unit.inference.tiny_checkpoints import FAMILY_NAMES, MASK_FAMILIES

ALL = ("panoptic", "instance", "semantic")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("checkpoints")
    return {family: tiny_checkpoints.write(family, folder) for family in FAMILY_NAMES}


def tasks_of(family: str) -> tuple[str, ...]:
    return ALL if family in MASK_FAMILIES else ("semantic",)


def open_segmenter(folder: Path, family: str, dtype: str = "float32", batch_size: int | None = None, **options: Any) -> Segmenter:
    description = checkpoint.describe(folder, Options(tasks=options.pop("tasks", tasks_of(family)), **options))
    return Segmenter.load(folder, description, device="cpu", dtype=dtype, batch_size=batch_size)


def picture(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def model_input(opened: Segmenter, pixels: NDArray[np.uint8]) -> ModelInput:
    family = opened.description.family
    return ModelInput(preprocess.resize(pixels, opened.description.resize), (pixels.shape[0], pixels.shape[1]), tasks_of(family))


def pictures() -> list[NDArray[np.uint8]]:
    return [picture(seed, *((90, 70), (70, 90))[seed % 3 == 0]) for seed in range(8)]


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    for one, other in zip(found, expected, strict=True):
        for task in expected[0]:
            assert isinstance(one[task], list)
            assert [(s.segment_id, s.label_id, s.counts) for s in one[task]] == [(s.segment_id, s.label_id, s.counts) for s in other[task]]
            assert [s.score for s in one[task]] == pytest.approx([s.score for s in other[task]], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_an_image_alone_in_a_batch_first_or_last_has_one_answer(checkpoints: dict[str, Path], family: str) -> None:
    opened = open_segmenter(checkpoints[family], family)
    inputs = [model_input(opened, pixels) for pixels in pictures()]
    together = opened.segment(inputs)
    assert all(answer["semantic"] for answer in together)
    assert_same([opened.segment([item])[0] for item in (inputs[0], inputs[7])], [together[0], together[7]])
    assert_same(opened.segment(inputs[::-1])[::-1], together)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_two_beside_each_other_share_weights_alone_and_answer_as_one(checkpoints: dict[str, Path], family: str) -> None:
    opened = open_segmenter(checkpoints[family], family, batch_size=2)
    inputs = [model_input(opened, pixels) for pixels in pictures()]
    expected = opened.segment(inputs)
    first = open_segmenter(checkpoints[family], family, batch_size=2)
    second = first.beside()
    with ThreadPoolExecutor(2) as callers:
        answers = [callers.submit(each.segment, inputs) for each in (first, second)]
        for answer in answers:
            assert answer.result() == expected
    held = {tensor.data_ptr() for tensor in (*first.module.parameters(), *first.module.buffers()) if tensor.numel()}
    assert {tensor.data_ptr() for tensor in (*second.module.parameters(), *second.module.buffers()) if tensor.numel()} == held
    assert not {id(module) for module in first.module.modules()} & {id(module) for module in second.module.modules()}


def test_every_known_family_is_tested() -> None:
    assert {*FAMILY_NAMES, "sam3"} == set(FAMILIES)  # which is told what to look for: `test_sam3`


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_pixel_values_on_the_device_are_those_of_the_preprocessor(checkpoints: dict[str, Path], family: str) -> None:
    opened = open_segmenter(checkpoints[family], family)
    resized = model_input(opened, picture(1, 90, 70)).pixels
    values = opened.pixel_values([resized], (resized.shape[0], resized.shape[1]))
    assert torch.equal(values[0], torch.from_numpy(preprocess.normalise(resized, opened.description.resize)))


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in FAMILY_NAMES if name != "oneformer"])
def test_logits_are_those_of_transformers_forward(checkpoints: dict[str, Path], family: str) -> None:
    from transformers import AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation

    loader = AutoModelForUniversalSegmentation if family in MASK_FAMILIES else AutoModelForSemanticSegmentation
    reference = loader.from_pretrained(checkpoints[family])
    opened = open_segmenter(checkpoints[family], family)
    values = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        # MaskFormer's own forward fails on a checkpoint with `use_auxiliary_loss` unless it also collects hidden states
        expected = reference(pixel_values=values, **({"output_hidden_states": True} if family == "maskformer" else {}))
        (answer,) = opened.family.run(opened.module, values, ["semantic"]).values()
    if isinstance(answer, ClassMap):
        torch.testing.assert_close(answer.logits, expected.logits, rtol=1e-4, atol=1e-4)
    else:
        assert isinstance(answer, Queries)
        names = ("logits", "pred_masks") if family == "detr" else ("class_queries_logits", "masks_queries_logits")
        torch.testing.assert_close(answer.class_logits, expected[names[0]], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(answer.mask_logits, expected[names[1]], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_oneformer_with_shared_features_is_transformers_forward_for_each_task(checkpoints: dict[str, Path]) -> None:
    from transformers import AutoTokenizer, OneFormerForUniversalSegmentation

    reference = OneFormerForUniversalSegmentation.from_pretrained(checkpoints["oneformer"])
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["oneformer"])
    opened = open_segmenter(checkpoints["oneformer"], "oneformer")
    values = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        answers = opened.family.run(opened.module, values, ALL)
        for task in ALL:
            tokens = tokenizer([f"the task is {task}"] * 2, padding="max_length", max_length=77, return_tensors="pt")
            expected = reference(pixel_values=values, task_inputs=tokens["input_ids"] * tokens["attention_mask"])
            answer = answers[task]
            assert isinstance(answer, Queries)
            torch.testing.assert_close(answer.class_logits, expected.class_queries_logits, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(answer.mask_logits, expected.masks_queries_logits, rtol=1e-4, atol=1e-4)
    panoptic, semantic = answers["panoptic"], answers["semantic"]
    assert isinstance(panoptic, Queries)
    assert isinstance(semantic, Queries)
    assert not torch.allclose(panoptic.mask_logits, semantic.mask_logits), "the task has no effect"


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in MASK_FAMILIES if name != "oneformer"])
def test_one_forward_serves_all_tasks(checkpoints: dict[str, Path], family: str) -> None:
    opened = open_segmenter(checkpoints[family], family)
    forwards: list[int] = []
    opened.module.register_forward_hook(lambda *_: forwards.append(1))
    opened.segment([model_input(opened, picture(0, 70, 90))])
    assert len(forwards) == 1


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_family_runs_in_half_precision(checkpoints: dict[str, Path], family: str, dtype: str) -> None:
    opened = open_segmenter(checkpoints[family], family, dtype=dtype)
    answers = opened.segment([model_input(opened, picture(0, 70, 90))])
    assert all(isinstance(answer, list) for answer in answers[0].values()), answers


def test_mask2former_runs_on_a_resnet(tmp_path: Path) -> None:
    folder = tiny_checkpoints.write("mask2former", tmp_path, config=tiny_checkpoints.resnet_mask2former())
    opened = open_segmenter(folder, "mask2former")
    assert opened.segment([model_input(opened, picture(0, 70, 90))])[0]["semantic"]


def test_eomt_slides_a_window_as_transformers_does(tmp_path: Path) -> None:
    from transformers.models.eomt.image_processing_pil_eomt import EomtImageProcessorPil

    folder = tiny_checkpoints.write("eomt", tmp_path)
    size: dict[str, Any] = {"shortest_edge": 64, "longest_edge": None}
    settings = {"image_processor_type": "EomtImageProcessor", "size": size, "do_split_image": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    opened = open_segmenter(folder, "eomt", tasks=("semantic",))
    assert opened.description.tasks == ("semantic",)
    pixels = picture(3, 80, 170)
    processor = EomtImageProcessorPil(size={"shortest_edge": 64}, do_split_image=True)
    inputs = processor(images=Image.fromarray(pixels), return_tensors="pt")
    with torch.inference_mode():
        outputs = opened.module(pixel_values=inputs["pixel_values"])
    outputs.patch_offsets = inputs["patch_offsets"]
    expected = processor.post_process_semantic_segmentation(outputs, [(80, 170)], size=size)[0].numpy()
    item = ModelInput(preprocess.resize(pixels, opened.description.resize), (80, 170), ("semantic",))
    (found,) = opened.segment([item])[0].values()
    assert isinstance(found, list)
    assert np.mean(id_map(found, (80, 170)) == expected) > 0.999


def id_map(segments: list[Segment], size: tuple[int, int]) -> NDArray[np.int64]:
    classes = np.full(size, -1)
    for segment in segments:
        classes[decoded(segment.counts, size)] = segment.label_id
    return classes


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_hf_post_processing_gives_transformers_answers(checkpoints: dict[str, Path], family: str) -> None:
    opened = open_segmenter(checkpoints[family], family, postprocess="hf", object_threshold=0.3, overlap_threshold=0.3, score_threshold=0.2)
    item = model_input(opened, picture(0, 70, 90))
    found = opened.segment([item])[0]
    padded = opened.description.frame.padded((item.pixels.shape[0], item.pixels.shape[1]))
    with torch.inference_mode():
        answers = opened.family.run(
            opened.module, opened.pixel_values([item.pixels] * opened._limits[padded].now, padded), tasks_of(family)
        )
    name = opened.family.processor
    module = {"DPT": "dpt", "MobileNetV2": "mobilenet_v2"}.get(name, name.lower())
    processor = getattr(
        importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}"), f"{name}ImageProcessorPil"
    )()
    processor.class_info_file = ""  # OneFormer's functions look for a dataset in the name
    sizes: dict[str, Any] = {"target_sizes": [(70, 90)]} | ({"size": {"shortest_edge": 64, "longest_edge": 64}} if name == "Eomt" else {})
    for task in tasks_of(family):
        segments = found[task]
        assert isinstance(segments, list)
        outputs = opened.family.hf_outputs(answers[task], 0)
        if task == "semantic":
            assert np.mean(id_map(segments, (70, 90)) == processor.post_process_semantic_segmentation(outputs, **sizes)[0].numpy()) > 0.999
            continue
        thresholds = {"threshold": 0.3, "overlap_mask_area_threshold": 0.3} if task == "panoptic" else {"threshold": 0.2}
        expected = getattr(processor, f"post_process_{task}_segmentation")(outputs, **sizes, **thresholds)[0]
        pixels = expected["segmentation"].numpy()
        infos = {info["id"]: info for info in reversed(expected["segments_info"]) if (pixels == info["id"]).any()}
        wanted = sorted((-info["score"], info["label_id"], int((pixels == key).sum())) for key, info in infos.items())
        mine = sorted((-segment.score, segment.label_id, segment.area) for segment in segments)
        assert [item[1:] for item in mine] == [item[1:] for item in wanted]
        assert [item[0] for item in mine] == pytest.approx([item[0] for item in wanted], abs=1e-5)


@pytest.mark.shared_data
@pytest.mark.slow
def test_real_deeplab_weights_find_what_is_in_real_photographs() -> None:
    folder = shared_folder("models", "deeplabv3-mobilenetv2-voc")
    photos = shared_folder("data", "coco-free")
    instances = json.loads((photos / "instances.json").read_text())
    names = {category["id"]: category["name"] for category in instances["categories"]}
    wanted = {"person": "person", "cat": "cat", "dog": "dog", "train": "train", "bus": "bus"}
    opened = open_segmenter(folder, "mobilenet_v2")
    hits = checked = 0
    for image in instances["images"][:12]:
        large = {
            names[a["category_id"]]
            for a in instances["annotations"]
            if a["image_id"] == image["id"] and a["area"] > 0.1 * image["width"] * image["height"]
        }
        for name in large & set(wanted):
            pixels = np.asarray(Image.open(photos / "images" / image["file_name"]).convert("RGB"))
            found = opened.segment([model_input(opened, pixels)])[0]["semantic"]
            assert isinstance(found, list)
            checked += 1
            hits += any(segment.label == wanted[name] for segment in found)
    assert checked > 0
    assert hits / checked > 0.7


@pytest.mark.slow
def test_oneformer_can_be_compiled_on_both_sides_of_its_task_token(checkpoints: dict[str, Path]) -> None:
    opened = open_segmenter(checkpoints["oneformer"], "oneformer")
    values = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = opened.family.run(opened.module, values, ALL)
        for part in opened.family.compiled_parts(opened.module):
            part.compile(backend="eager", dynamic=False)  # its graphs without the minutes that a compiler takes
        found = opened.family.run(opened.module, values, ALL)
    for task in ALL:
        for logits, others in zip(vars(found[task]).values(), vars(expected[task]).values(), strict=True):
            torch.testing.assert_close(logits, others, rtol=1e-4, atol=1e-4)
