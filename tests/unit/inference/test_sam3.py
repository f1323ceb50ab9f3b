"""SAM 3: what transformers' model and processor find of each concept, at the original resolution, whatever else is looked for."""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco
from transformers import AutoTokenizer, Sam3Model

from masklake.demo import MODEL
from masklake.errors import ErrorCode, ImageFailure, Refused
from masklake.inference import checkpoint, preprocess
from masklake.inference.options import Options
from masklake.inference.segmenter import ModelInput, Segment, Segmenter
from tests.unit.inference import tiny_sam3

CONCEPTS = ("person", "yellow school bus", "dog")
LEAST = 0.02
SIZES = ((90, 130), (40, 40), (131, 61))
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sam3.write(tmp_path_factory.mktemp("sam3"))


@pytest.fixture(scope="module")
def segmenter(folder: Path) -> Segmenter:
    return opened(folder)


def opened(folder: Path, dtype: str = "float32", **options: Any) -> Segmenter:
    given = {"concepts": CONCEPTS, "score_threshold": LEAST, **options}
    return Segmenter.load(folder, checkpoint.describe(folder, Options(tasks=("instance",), **given)), "cpu", dtype)


def picture(number: int) -> Pixels:
    """Noise over a gradient."""
    height, width = SIZES[number % len(SIZES)]
    ramp = np.linspace(0, 200, width)[None, :, None] * np.ones((height, 1, 3))
    noise: Pixels = (ramp + np.random.default_rng(number).integers(0, 56, (height, width, 3))).astype(np.uint8)
    return noise


def asked(segmenter: Segmenter, *pictures: Pixels, concepts: tuple[str, ...] = ()) -> list[list[Segment]]:
    resize = segmenter.description.resize
    inputs = [ModelInput(preprocess.resize(each, resize), (each.shape[0], each.shape[1]), ("instance",), concepts) for each in pictures]
    answers = [answer["instance"] for answer in segmenter.segment(inputs)]
    assert all(isinstance(answer, list) for answer in answers), answers
    return answers  # type: ignore[return-value]


def decoded(segment: Segment, size: tuple[int, int]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = coco.decode({"size": size, "counts": segment.counts}).astype(bool)
    return found


def of_transformers(folder: Path, pixels: Pixels, concept: str) -> Any:
    """What `Sam3Model` says of the inputs that `Sam3Processor` makes; its image processor, which needs torchvision, resizes bilinearly."""
    model = Sam3Model.from_pretrained(folder)
    text = AutoTokenizer.from_pretrained(folder)(concept, return_tensors="pt", padding="max_length", max_length=32)
    resized = np.asarray(Image.fromarray(pixels).resize((tiny_sam3.SIDE, tiny_sam3.SIDE), Image.Resampling.BILINEAR))
    values = torch.from_numpy(resized.transpose(2, 0, 1).copy()).float() / 255
    with torch.inference_mode():
        return model(pixel_values=(values[None] - 0.5) / 0.5, **text)


def postprocessed(outputs: Any, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> dict[str, NDArray[Any]]:
    """By `Sam3ImageProcessor.post_process_instance_segmentation`, of whose module torchvision is a part that it does not call."""
    for name in ("torchvision", "torchvision.ops", "torchvision.ops.boxes"):
        stand_in: Any = ModuleType(name)
        stand_in.batched_nms = None
        monkeypatch.setitem(sys.modules, name, stand_in)
    from transformers.models.sam3.image_processing_sam3 import Sam3ImageProcessor

    processor: Any = Sam3ImageProcessor
    (found,) = processor.post_process_instance_segmentation(None, outputs, threshold=LEAST, target_sizes=[size])
    order = torch.argsort(found["scores"], descending=True, stable=True)
    return {name: values[order].numpy() for name, values in found.items()}


def test_what_is_found_is_what_transformers_finds(folder: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an image as large as the masks, which need no resize then, to the pixel."""
    pixels = picture(0)[:32, :32]
    (segments,) = asked(segmenter, pixels)
    assert {segment.label for segment in segments} == set(CONCEPTS)
    for concept in CONCEPTS:
        theirs = postprocessed(of_transformers(folder, pixels, concept), (32, 32), monkeypatch)
        ours = [segment for segment in segments if segment.label == concept]
        assert np.allclose([segment.score for segment in ours], theirs["scores"], atol=2e-6)
        assert [decoded(segment, (32, 32)).tolist() for segment in ours] == theirs["masks"].astype(bool).tolist()


def test_masks_are_made_at_the_original_size(folder: Path, segmenter: Segmenter) -> None:
    """As by the model's authors: logits are resized, where transformers resizes probabilities, and a pixel counts above 0."""
    pixels = picture(0)
    size = (pixels.shape[0], pixels.shape[1])
    (segments,) = asked(segmenter, pixels)
    for concept in CONCEPTS:
        outputs = of_transformers(folder, pixels, concept)
        scores = (outputs.pred_logits.sigmoid() * outputs.presence_logits.sigmoid())[0]
        order = torch.argsort(scores, descending=True, stable=True)[: int((scores > LEAST).sum())]
        logits = torch.nn.functional.interpolate(outputs.pred_masks[:, order], size=size, mode="bilinear", align_corners=False)[0]
        ours = [segment for segment in segments if segment.label == concept]
        for segment, expected in zip(ours, logits.numpy(), strict=True):
            assert ((decoded(segment, size) == (expected > 0)) | (abs(expected) < 1e-4)).all()
            assert segment.area == decoded(segment, size).sum()


def test_an_answer_depends_on_no_other_image_and_no_other_concept(segmenter: Segmenter) -> None:
    pictures = [picture(number) for number in range(3)]
    together = asked(segmenter, *pictures)
    assert any(together)
    assert [asked(segmenter, each)[0] for each in pictures] == together
    for concept in CONCEPTS:
        alone = [segment for (answer,) in [asked(segmenter, pictures[0], concepts=(concept,))] for segment in answer]
        expected = [segment for segment in together[0] if segment.label == concept]
        assert [(one.label_id, one.score, one.counts) for one in alone] == [(one.label_id, one.score, one.counts) for one in expected]


def test_two_beside_each_other_answer_as_one(folder: Path, segmenter: Segmenter) -> None:
    pictures = [picture(number) for number in range(3)]
    first = opened(folder)
    with ThreadPoolExecutor(2) as callers:
        answers = [callers.submit(asked, each, *pictures) for each in (first, first.beside())]
        assert [answer.result() for answer in answers] == [asked(segmenter, *pictures)] * 2


@pytest.mark.slow
def test_texts_are_encoded_once_and_an_image_once_for_all_concepts(folder: Path) -> None:
    segmenter = opened(folder)
    calls: Counter[str] = Counter()
    for name in ("vision_encoder", "detr_decoder"):
        getattr(segmenter.module, name).register_forward_hook(lambda *_, name=name: calls.update([name]))
    asked(segmenter, picture(0))
    asked(segmenter, picture(1))
    assert calls == {"vision_encoder": 2, "detr_decoder": 2 * len(CONCEPTS)}
    assert segmenter.module.text_encoder is None  # there is nothing left that could encode one again


def test_what_is_not_present_is_not_found(folder: Path, segmenter: Segmenter) -> None:
    """The presence score multiplies each query's: where the concept is not there, none is left, however sure it was of itself."""
    absent = opened(folder)
    head = absent.module.detr_decoder.presence_head
    last = head.layer3 if head.layer3 is not None else head.layer2
    last.weight.zero_()
    last.bias.fill_(-8.0)
    assert asked(absent, picture(0)) == [[]]
    last.bias.fill_(8.0)
    assert len(asked(absent, picture(0))[0]) >= len(asked(segmenter, picture(0))[0])


def test_the_released_layout_is_read(folder: Path, tmp_path: Path, segmenter: Segmenter) -> None:
    """facebook/sam3 is a video model; its detector is the image model."""
    target = tiny_sam3.write(tmp_path)
    tiny_sam3.with_tracker(target)
    found = opened(target)
    checkpoint.verify(found.description, target)
    assert asked(found, picture(0)) == asked(segmenter, picture(0))


def test_half_precision_keeps_coordinates(folder: Path, segmenter: Segmenter) -> None:
    half = opened(folder, "bfloat16")
    exact = dict(segmenter.module.named_buffers())
    positions = {name: value for name, value in half.module.named_buffers() if name.endswith(("inv_freq", "position_ids"))}
    assert positions
    assert all(torch.equal(value, exact[name]) for name, value in positions.items() if "original" not in name)
    ours, theirs = asked(half, picture(0))[0], asked(segmenter, picture(0))[0]
    assert abs(max(one.score for one in ours) - max(one.score for one in theirs)) < 0.03


def test_a_model_that_says_nan_is_an_error_row(folder: Path) -> None:
    broken = opened(folder)
    broken.module.mask_decoder.mask_embedder.layers[2].bias.fill_(float("nan"))
    resized = preprocess.resize(picture(0), broken.description.resize)
    (answer,) = broken.segment([ModelInput(resized, SIZES[0], ("instance",))])
    failure = answer["instance"]
    assert isinstance(failure, ImageFailure)
    assert failure.code == ErrorCode.NOT_FINITE


def test_the_order_of_concepts_is_no_other_question(folder: Path) -> None:
    there, back = (
        checkpoint.describe(folder, Options(tasks=("instance",), concepts=order)).answer_settings("instance")
        for order in (CONCEPTS, CONCEPTS[::-1])
    )
    assert there == back
    assert there["concepts"] == ["dog", "person", "yellow school bus"]
    assert there["score_threshold"] == 0.5  # the authors' own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, 'team/sam looks for what it is told: name it with --concepts, as in --concepts "person,yellow school bus"'),
        ({"concepts": CONCEPTS, "labels": {0: "x"}}, "--labels: the labels of team/sam are what --concepts names"),
        ({"concepts": CONCEPTS, "thing_labels": ("dog",)}, "--thing-labels: the labels of team/sam are what --concepts names"),
        ({"concepts": CONCEPTS, "postprocess": "hf"}, "--postprocess hf: transformers' own for team/sam needs torchvision"),
        ({"concepts": CONCEPTS, "tasks": ("panoptic",)}, r"team/sam \(sam3\) cannot do panoptic: this checkpoint can do instance"),
        ({"concepts": CONCEPTS, "resolution": "512x512"}, "this model takes 56x56 pixels"),
    ],
)
def test_what_does_not_fit_is_refused(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message):
        checkpoint.describe(folder, Options(**{"tasks": ("instance",), **options}), "team/sam")


def test_a_concept_that_is_too_long_is_refused_before_the_model_is_loaded(folder: Path) -> None:
    description = checkpoint.describe(folder, Options(tasks=("instance",), concepts=("a" * 31,)))
    with pytest.raises(Refused, match=r"^--concepts a+\.\.\.: that is 33 tokens, and the model reads 32: say it shorter"):
        checkpoint.verify(description, folder)


def test_other_models_take_no_concepts() -> None:
    with pytest.raises(Refused, match=r"^--concepts: .* knows classes of its own"):
        checkpoint.describe(MODEL, Options(tasks=("instance",), concepts=CONCEPTS))


def test_without_its_tokenizer_it_is_refused(tmp_path: Path) -> None:
    target = tiny_sam3.write(tmp_path)
    for name in ("tokenizer.json", "vocab.json"):
        (target / name).unlink(missing_ok=True)
    with pytest.raises(Refused, match=r"^team/sam has no tokenizer for its texts"):
        checkpoint.describe(target, Options(tasks=("instance",), concepts=CONCEPTS), "team/sam")
