"""Post-processing equals an independent literal implementation of the original algorithms (`literal`), pixel by pixel.

Random logits are compared except at pixels whose competing values agree to 1e-5: there float32 and float64 may differ.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from masklake.inference import dense, instance, panoptic, postprocess
from masklake.inference.postprocess import Geometry, NotFinite, Segment, Settings
from tests.answers import decoded
from tests.unit.inference import literal

Size = tuple[int, int]
Array = NDArray[np.float32]


@dataclass
class Case:
    """Logits of one image; `sizes`: padded, resized, original."""

    classes: Array
    masks: Array
    sizes: tuple[Size, Size, Size]
    settings: Settings = field(default_factory=lambda: settings(5))

    @property
    def geometry(self) -> Geometry:
        return Geometry(*self.sizes)

    @property
    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(self.classes), torch.from_numpy(self.masks)

    @property
    def doubles(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.classes.astype(np.float64), self.masks.astype(np.float64)


def settings(classes: int, things: frozenset[int] | None = None, **others: float) -> Settings:
    labels = {label: f"class {label}" for label in range(classes)}
    return Settings(labels, frozenset(labels) if things is None else things, **others)  # type: ignore[arg-type]


def random_case(seed: int) -> Case:
    """Any sizes, paddings, label counts, thresholds; logits from flat to steep, some with hardly any mask."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(1, 12, 2)
    scale = int(rng.choice([1, 2, 4, 4, 4, 8]))
    padded = (int(coarse[0]) * scale, int(coarse[1]) * scale)
    resized = padded if rng.random() < 0.5 else (int(rng.integers(1, padded[0] + 1)), int(rng.integers(1, padded[1] + 1)))
    original = (1 if rng.random() < 0.1 else int(rng.integers(1, 70)), 1 if rng.random() < 0.1 else int(rng.integers(1, 70)))
    queries, classes = int(rng.integers(1, 10)), int(rng.integers(1, 6))
    class_logits = rng.standard_normal((queries, classes + 1)) * rng.choice([1, 4, 10])
    mask_logits = rng.standard_normal((queries, *coarse)) * rng.choice([0.3, 3, 20]) + rng.choice([-5, 0, 0, 3])
    chosen = settings(
        classes,
        frozenset(label for label in range(classes) if rng.random() < 0.6),
        object_threshold=float(rng.choice([0, 0.5, 0.8])),
        overlap_threshold=float(rng.choice([0, 0.3, 0.8])),
        score_threshold=float(rng.choice([0, 0.3])),
        max_instances=int(rng.choice([1, 5, 100])),
    )
    return Case(class_logits.astype(np.float32), mask_logits.astype(np.float32), (padded, resized, original), chosen)


def masks_of(segments: list[Segment], size: Size) -> list[NDArray[np.bool_]]:
    """Decoded masks, after checking what every answer promises."""
    assert [segment.segment_id for segment in segments] == list(range(1, len(segments) + 1))
    assert [segment.score for segment in segments] == sorted((segment.score for segment in segments), reverse=True)
    masks = [decoded(segment.counts, size) for segment in segments]
    for segment, mask in zip(segments, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert segment.area == mask.sum() > 0
        box = (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
        assert segment.bbox == tuple(int(value) for value in box)
    return masks


def assert_equal(got: list[Segment], want: literal.Answer, size: Size, context: object = "") -> None:
    masks = masks_of(got, size)
    assert [segment.label_id for segment in got] == [segment.label_id for segment in want.segments], context
    for segment, mask, expected in zip(got, masks, want.segments, strict=True):
        wrong = (mask != expected.mask) & ~want.doubt
        assert not wrong.any(), (context, segment.label_id, int(wrong.sum()))
        assert segment.score == pytest.approx(expected.score, abs=1e-5 + float(want.doubt.sum()) / segment.area), context


def panoptic_both_ways(case: Case) -> list[list[Segment]]:
    """By cells and pixel by pixel, whichever of them the size would choose."""
    kept = panoptic.kept_queries(case.doubles[0], case.settings)
    answers = [postprocess.panoptic(*case.tensors, case.geometry, case.settings)]
    if kept.query.size:
        maps = case.masks[kept.query]
        answers.append(panoptic.panoptic_cells(maps, kept, case.geometry, case.settings))
        answers.append(dense.panoptic_dense(torch.from_numpy(maps), kept, case.geometry, case.settings))
    return answers


def instance_both_ways(case: Case) -> list[list[Segment]]:
    pairs = instance.best_pairs(case.doubles[0], case.settings)
    answers = [postprocess.instance(*case.tensors, case.geometry, case.settings)]
    if pairs.query.size:
        maps = case.masks[np.unique(pairs.query)]
        answers.append(instance.instance_cells(maps, pairs, case.geometry, case.settings))
        answers.append(dense.instance_dense(torch.from_numpy(maps), pairs, case.geometry, case.settings))
    return answers


def literal_panoptic(case: Case) -> literal.Answer:
    chosen = case.settings
    return literal.panoptic(*case.doubles, case.sizes, chosen.thing_ids, chosen.object_threshold, chosen.overlap_threshold)


def literal_instance(case: Case) -> literal.Answer:
    chosen = case.settings
    return literal.instance(*case.doubles, case.sizes, chosen.thing_ids, chosen.score_threshold, chosen.max_instances)


def _above_one_half(logits: NDArray[np.float64], original: Size) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Of a model with one class: 0 where its sigmoid is above 0.5, else -1; and where rounding may decide."""
    resized = literal.resize(logits, original)
    return np.where(resized > 0, 0, -1), np.abs(resized) < 1e-4


def semantic_map(segments: list[Segment], size: Size, whole: bool = True) -> NDArray[np.int64]:
    """The class of every pixel; every pixel must have exactly one, or, unless `whole`, at most one (-1 where there is none)."""
    classes = np.full(size, -1)
    for segment, mask in zip(segments, masks_of(segments, size), strict=True):
        assert (classes[mask] == -1).all()
        classes[mask] = segment.label_id
    assert (classes >= 0).all() or not whole
    return classes


SEEDS = [range(50), *(pytest.param(range(start, start + 475), marks=pytest.mark.slow) for start in (50, 525))]


@pytest.mark.parametrize("seeds", SEEDS)
def test_panoptic_equals_the_literal_algorithm(seeds: range) -> None:
    compared = 0
    for seed in seeds:
        case = random_case(seed)
        want = literal_panoptic(case)
        if want.unsure:  # whether a segment exists hangs on rounding
            continue
        for answer in panoptic_both_ways(case):
            assert_equal(answer, want, case.sizes[2], seed)
            compared += len(answer)
    assert compared > 2 * len(seeds)


@pytest.mark.parametrize("seeds", SEEDS)
def test_instance_equals_the_literal_algorithm(seeds: range) -> None:
    compared = 0
    for seed in seeds:
        case = random_case(seed)
        want = literal_instance(case)
        for answer in instance_both_ways(case):
            assert_equal(answer, want, case.sizes[2], seed)
            compared += len(answer)
    assert compared > 2 * len(seeds)


@pytest.mark.parametrize("seeds", SEEDS)
def test_semantic_equals_the_literal_algorithm(seeds: range) -> None:
    for seed in seeds:
        case = random_case(seed)
        want, doubt = literal.semantic(*case.doubles, case.sizes)
        got = semantic_map(postprocess.semantic(*case.tensors, case.geometry, case.settings), case.sizes[2])
        weights = torch.from_numpy(panoptic.softmax(case.doubles[0])[:, :-1].astype(np.float32))
        axes = case.geometry.axes(case.masks.shape)
        codes = dense.leading_class(dense.class_values(case.tensors[1], weights, axes), case.sizes[2])
        confidences = torch.einsum("qhw,qk->khw", case.tensors[1].sigmoid(), weights).clamp_(max=1)
        by_pixel = semantic_map(dense.semantic_dense(codes, confidences, axes, case.settings), case.sizes[2])
        assert not ((got != want) & ~doubt).any(), seed
        assert not ((by_pixel != want) & ~doubt).any(), seed


@pytest.mark.parametrize("seeds", SEEDS[:2])
def test_a_per_pixel_model_is_resized_once_or_cropped_first_where_it_was_padded(seeds: range) -> None:
    for seed in seeds:
        case = random_case(seed)
        logits = case.doubles[1]
        padded, resized, original = case.sizes
        if padded != resized:
            logits = np.stack([literal.resize(one, padded)[: resized[0], : resized[1]] for one in logits])
        want, doubt = literal.leading(logits, original) if len(logits) > 1 else _above_one_half(logits[0], original)
        segments = postprocess.semantic_from_map(case.tensors[1], case.geometry, settings(len(logits)))
        assert not ((semantic_map(segments, original, len(logits) > 1) != want) & ~doubt).any(), seed


def regions(seed: int, queries: int, coarse: Size, original: Size) -> Case:
    """Smooth regions that compete, as a trained model's, the last query being certain of nothing."""
    rng = np.random.default_rng(seed)
    seeds = rng.standard_normal((queries, max(2, coarse[0] // 6), max(2, coarse[1] // 6)))
    maps = np.stack([literal.resize(one, coarse) for one in seeds])
    maps = (maps - np.sort(maps, axis=0)[-2:].mean(axis=0)) * 12
    classes = rng.standard_normal((queries, 6))
    classes[np.arange(queries), rng.integers(0, 5, queries)] += 9 + np.arange(queries) / 10
    classes[-1, 5] += 30
    padded = (coarse[0] * 4, coarse[1] * 4)
    return Case(classes.astype(np.float32), maps.astype(np.float32), (padded, (padded[0] - 5, padded[1]), original))


@pytest.mark.parametrize(("coarse", "original"), [((32, 32), (200, 270)), ((24, 33), (333, 90)), ((20, 20), (61, 640))])
@pytest.mark.slow
def test_regions_like_those_of_a_trained_model(coarse: Size, original: Size) -> None:
    for seed in range(3):
        case = regions(seed, 8, coarse, original)
        want = literal_panoptic(case)
        assert not want.unsure
        assert len(want.segments) > 2
        for answer in panoptic_both_ways(case):
            assert_equal(answer, want, original, seed)
        for answer in instance_both_ways(case):
            assert_equal(answer, literal_instance(case), original, seed)
        classes, doubt = literal.semantic(*case.doubles, case.sizes)
        got = semantic_map(postprocess.semantic(*case.tensors, case.geometry, case.settings), original)
        assert not ((got != classes) & ~doubt).any()


def one_query_each(maps: list[Array], labels: list[int], sizes: tuple[Size, Size, Size], chosen: Settings, certainty: float = 9) -> Case:
    classes = np.zeros((len(maps), len(chosen.labels) + 1), np.float32)
    classes[np.arange(len(maps)), labels] = certainty
    return Case(classes, np.stack(maps).astype(np.float32), sizes, chosen)


SQUARE: tuple[Size, Size, Size] = ((16, 16), (16, 16), (40, 40))
LEFT = np.repeat(np.array([[6, 6, -6, -6]], np.float32), 4, axis=0)
EVERYWHERE = np.full((4, 4), 6, np.float32)


def test_no_query_kept_gives_no_segment() -> None:
    case = one_query_each([EVERYWHERE], [2], SQUARE, settings(2))  # label 2 is "no object"
    assert panoptic_both_ways(case) == [[]]


def test_all_void_where_no_probability_reaches_one_half() -> None:
    case = one_query_each([EVERYWHERE - 7, LEFT - 7], [0, 1], SQUARE, settings(2))
    assert all(answer == [] for answer in panoptic_both_ways(case) + instance_both_ways(case))


def test_equal_queries_go_to_the_first_and_the_second_is_dropped() -> None:
    case = one_query_each([LEFT, LEFT, -LEFT], [1, 0, 0], SQUARE, settings(2))
    for answer in panoptic_both_ways(case):
        assert [(segment.label_id, segment.bbox) for segment in answer] == [(0, (20, 0, 20, 40)), (1, (0, 0, 20, 40))]


def test_equal_scores_are_ordered_by_label_then_query() -> None:
    top = np.ascontiguousarray(LEFT.T)
    maps = [np.minimum(LEFT, -top), np.minimum(-LEFT, top), np.minimum(LEFT, top), np.minimum(-LEFT, -top)]
    case = one_query_each(maps, [1, 0, 1, 0], SQUARE, settings(2))
    for answer in panoptic_both_ways(case):
        corners = [(segment.label_id, segment.bbox[:2]) for segment in answer]
        assert corners == [(0, (20, 0)), (0, (20, 20)), (1, (0, 20)), (1, (0, 0))]


def test_a_logit_of_exactly_zero_belongs_to_a_panoptic_mask_and_not_to_an_instance() -> None:
    case = one_query_each([EVERYWHERE * 0], [0], SQUARE, settings(1))
    assert [[segment.area for segment in answer] for answer in panoptic_both_ways(case)] == [[1600]] * 3
    assert instance_both_ways(case) == [[]] * 3


def test_stuff_merges_into_one_segment_with_the_best_score_and_things_stay_apart() -> None:
    things = one_query_each([LEFT, -LEFT], [0, 0], SQUARE, settings(2))
    things.classes[1, 0] = 11
    stuff = Case(things.classes, things.masks, SQUARE, settings(2, frozenset({1})))
    best = float(literal.softmax(np.array([11.0, 0, 0]))[0])
    for answer in panoptic_both_ways(things):
        assert [segment.area for segment in answer] == [800, 800]
    for answer in panoptic_both_ways(stuff):
        assert [(segment.area, segment.isthing) for segment in answer] == [(1600, False)]
        assert answer[0].score == pytest.approx(best)


@pytest.mark.parametrize(("threshold", "labels"), [(0.5, [0, 1]), (0.51, [1])])
def test_a_query_that_keeps_exactly_the_overlap_threshold_counts(threshold: float, labels: list[int]) -> None:
    case = one_query_each([EVERYWHERE, LEFT + 3], [0, 1], ((4, 4), (4, 4), (4, 4)), settings(2, overlap_threshold=threshold))
    case.classes[1, 1] = 30  # the second takes the left half, 8 of the first's 16 pixels
    for answer in panoptic_both_ways(case):
        assert sorted(segment.label_id for segment in answer) == labels


def test_instances_keep_their_overlaps_and_only_things_count() -> None:
    case = one_query_each([EVERYWHERE, LEFT, EVERYWHERE], [0, 0, 1], SQUARE, settings(2, frozenset({0}), score_threshold=0.5))
    for answer in instance_both_ways(case):
        assert sorted(segment.area for segment in answer) == [800, 1600]


def test_masks_in_the_padding_are_cropped_away() -> None:
    only_padding = np.where(np.arange(4) == 3, 6, -6).astype(np.float32) * np.ones((4, 1), np.float32)
    case = one_query_each([only_padding, -only_padding], [0, 1], ((16, 16), (16, 9), (40, 40)), settings(2))
    for answer in [*panoptic_both_ways(case), *instance_both_ways(case)]:
        assert {(segment.label_id, segment.area) for segment in answer if segment.score > 0.5} == {(1, 1600)}


@pytest.mark.parametrize("original", [(1, 1), (1, 500), (500, 1), (2, 3)])
@pytest.mark.slow
def test_images_of_one_pixel_and_one_line(original: Size) -> None:
    for seed in range(12):
        case = regions(seed, 5, (12, 12), original)
        want = literal_panoptic(case)
        if not want.unsure:
            for answer in panoptic_both_ways(case):
                assert_equal(answer, want, original)
        for answer in instance_both_ways(case):
            assert_equal(answer, literal_instance(case), original)


@pytest.mark.slow
def test_200_queries() -> None:
    case = regions(5, 200, (16, 16), (90, 70))
    want = literal_panoptic(case)
    assert not want.unsure
    for answer in panoptic_both_ways(case):
        assert_equal(answer, want, (90, 70))
    for answer in instance_both_ways(case):
        assert_equal(answer, literal_instance(case), (90, 70))


@pytest.mark.slow
def test_a_photograph_of_12_million_pixels() -> None:
    case = regions(3, 3, (16, 24), (3000, 4000))
    want = literal_panoptic(case)
    assert not want.unsure
    assert_equal(postprocess.panoptic(*case.tensors, case.geometry, case.settings), want, (3000, 4000))
    alone = Case(case.classes[:1], case.masks[:1], case.sizes, case.settings)
    assert_equal(postprocess.instance(*alone.tensors, alone.geometry, alone.settings), literal_instance(alone), (3000, 4000))


def test_a_mask_of_more_than_2_to_the_24_pixels_is_counted_exactly() -> None:
    size = (4200, 4100)
    case = one_query_each([EVERYWHERE], [0], ((16, 16), (16, 16), size), settings(1))
    area = size[0] * size[1]
    got = postprocess.panoptic(*case.tensors, case.geometry, case.settings)
    assert [(segment.area, segment.bbox) for segment in got] == [(area, (0, 0, size[1], size[0]))]
    got = postprocess.instance(*case.tensors, case.geometry, case.settings)
    certainty = float(literal.softmax(np.array([9.0, 0]))[0]) / (1 + np.exp(-6.0))
    assert [segment.area for segment in got] == [area]
    assert got[0].score == pytest.approx(certainty, abs=1e-6)
    got = postprocess.semantic(*case.tensors, case.geometry, case.settings)
    assert [segment.area for segment in got] == [area]


def test_the_class_score_is_the_class_probability_alone_whatever_the_mask_is_worth() -> None:
    case = one_query_each([LEFT, (EVERYWHERE / 60).astype(np.float32)], [0, 1], SQUARE, settings(2))
    case.classes[0, 0], case.classes[1, 1] = 3, 2
    alone = [float(literal.softmax(row)[label]) for label, row in enumerate(case.classes)]
    for answer in instance_both_ways(case):
        by_class = {segment.label_id: segment for segment in answer if segment.score > 0.2}
        assert [by_class[label].class_score for label in (0, 1)] == pytest.approx(alone)
        assert by_class[1].score < 0.7 * alone[1], "the mask is doubtful everywhere"
    loose = Case(case.classes, case.masks, SQUARE, replace(settings(2), object_threshold=0.5))
    for answer in panoptic_both_ways(loose):
        assert answer
        assert all(segment.class_score == segment.score for segment in answer)
    for answer in (postprocess.semantic(*case.tensors, case.geometry, case.settings),):
        assert [segment.class_score for segment in answer] == [None] * len(answer)


def test_a_score_threshold_leaves_out_exactly_the_instances_below_it() -> None:
    for seed in range(40):
        case = random_case(seed)
        everything = settings(len(case.settings.labels))
        some = settings(len(case.settings.labels), score_threshold=0.25)
        loose = postprocess.instance(*case.tensors, case.geometry, everything)
        assert postprocess.instance(*case.tensors, case.geometry, some) == [one for one in loose if one.score >= 0.25]


def test_the_semantic_score_is_the_mean_confidence_where_the_class_leads() -> None:
    case = one_query_each([LEFT, -LEFT], [0, 1], SQUARE, settings(2))
    p = literal.softmax(np.array([9.0, 0, 0]))
    certainty = float(p[0] * literal.sigmoid(np.array(6.0)) + p[1] * literal.sigmoid(np.array(-6.0)))
    got = postprocess.semantic(*case.tensors, case.geometry, case.settings)
    assert sorted(segment.label_id for segment in got) == [0, 1]
    assert [segment.score for segment in got] == [pytest.approx(certainty)] * 2
    by_pixel = postprocess.semantic_from_map(case.tensors[1], case.geometry, case.settings)
    assert [segment.score for segment in by_pixel] == [pytest.approx(1 / (1 + np.exp(-12.0)))] * 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    for spoil_classes in (True, False):
        case = regions(0, 4, (8, 8), (30, 30))
        (case.classes if spoil_classes else case.masks)[(-1,) * (2 if spoil_classes else 3)] = bad
        for task in (postprocess.panoptic, postprocess.instance, postprocess.semantic):
            with pytest.raises(NotFinite):
                task(*case.tensors, case.geometry, case.settings)
    with pytest.raises(NotFinite):
        postprocess.semantic_from_map(torch.full((2, 3, 3), bad), Geometry((3, 3), (3, 3), (5, 5)), settings(2))


def test_a_single_label_is_where_its_probability_is_one_half_or_more() -> None:
    """Not everywhere, as the likeliest of one label would be; its score is the mean probability where it is."""
    random = np.random.default_rng(4)
    logits = torch.from_numpy(random.normal(0, 3, (1, 9, 7)).astype(np.float32))
    size = (36, 35)
    (found,) = postprocess.semantic_from_map(logits, Geometry((9, 7), (9, 7), size), settings(1))
    (mask,) = masks_of([found], size)
    resized = torch.nn.functional.interpolate(logits[None].double(), size, mode="bilinear", align_corners=False)[0, 0].numpy()
    assert (mask == (resized >= 0))[abs(resized) > 1e-5].all()
    assert 0.3 < mask.mean() < 0.7
    assert (found.segment_id, found.label_id) == (1, 0)
    assert 0.7 < found.score < 1
    assert postprocess.semantic_from_map(torch.full((1, 4, 4), -3.0), Geometry((4, 4), (4, 4), (8, 8)), settings(1)) == []
    (everywhere,) = postprocess.semantic_from_map(torch.full((1, 4, 4), 3.0), Geometry((4, 4), (4, 4), (8, 8)), settings(1))
    assert everywhere.area == 64
    assert everywhere.score == pytest.approx(1 / (1 + np.exp(-3)))


def test_finite_logits_whose_sum_overflows_are_answered() -> None:
    maps = np.full((3, 4, 4), 3e38, np.float32)
    case = one_query_each(list(maps), [0, 0, 0], SQUARE, settings(1))
    assert [segment.area for segment in postprocess.panoptic(*case.tensors, case.geometry, case.settings)] == [1600]


def test_half_precision_logits_are_computed_in_float32() -> None:
    case = regions(1, 6, (16, 16), (100, 80))
    classes, masks = (tensor.to(torch.bfloat16) for tensor in case.tensors)
    exact = postprocess.panoptic(classes.float(), masks.float(), case.geometry, case.settings)
    assert postprocess.panoptic(classes, masks, case.geometry, case.settings) == exact


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Geometry((10, 10), (11, 10), (5, 5))


def test_what_has_no_kernel_is_said_once_where_a_kernel_would_be(caplog: pytest.LogCaptureFixture) -> None:
    postprocess._say_without_kernel.cache_clear()
    with caplog.at_level(logging.INFO):
        for device in ("cpu", "cuda", "cuda"):
            postprocess._say_without_kernel("what is found of concepts", device)
    assert [record.getMessage() for record in caplog.records] == [
        "post-processing: there is no kernel for what is found of concepts, torch's operations do it on cuda, image by image"
    ]
