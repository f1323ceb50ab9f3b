"""`masklake.load`: what may be an image, what comes of it, what is refused. That it answers as the job does: tests/flow/test_python.py."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

import masklake
from masklake.images.decode import Decoded, decode
from tests.lakes import MODEL, scene


@pytest.fixture(scope="module")
def model() -> masklake.Model:
    return masklake.load(MODEL)


@pytest.fixture(scope="module")
def turned() -> bytes:
    """A scene that is stored lying on its side, and says so."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.open(io.BytesIO(scene(1))).crop((0, 0, 512, 300)).save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A web server on loopback for the folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(100)


@pytest.mark.slow
def test_an_image_is_answered_alike_whatever_it_is_given_as(
    model: masklake.Model, turned: bytes, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a b.jpg").write_bytes(turned)
    monkeypatch.chdir(tmp_path)
    decoded = decode(turned, 10**7)
    assert isinstance(decoded, Decoded)
    given = [
        tmp_path / "a b.jpg",
        "a b.jpg",
        (tmp_path / "a b.jpg").as_uri().replace("%20", " "),
        f"{address}/a b.jpg".replace(" ", "%20"),
        turned,
        memoryview(turned),
        Image.open(io.BytesIO(turned)),
        decoded.pixels,
    ]
    results = model(given, task="instance")
    assert results[0].size == (512, 300)
    assert len(results[0]) > 2
    for result in results:
        assert result.row["segments"] == results[0].row["segments"]
        assert np.array_equal(result.image, decoded.pixels)
    assert results[0].name == f"file://{tmp_path}/a b.jpg"
    assert [result.name for result in results[4:6]] == ["image 4", "image 5"]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 1), (40, 60, 3), (40, 60, 4)])
def test_pixels_may_be_grey_or_have_colours_and_transparency(model: masklake.Model, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
    if shape[-1] == 4:
        pixels[..., 3] = 255
    shown = model(pixels).image
    expected = pixels.reshape(40, 60, -1)[..., :3]
    assert np.array_equal(shown, np.broadcast_to(expected, (40, 60, 3)))


def test_a_result_says_what_is_on_the_picture(model: masklake.Model) -> None:
    result = model(scene(0))
    assert (result.task, result.size, result.failure) == ("panoptic", (512, 512), None)
    assert [segment.label for segment in result] == [segment["label"] for segment in result.row["segments"]]
    for segment, mask in zip(result.segments, result.masks, strict=True):
        rows, columns = np.nonzero(mask)
        assert np.array_equal(segment.mask, mask)
        assert segment.area == mask.sum()
        assert segment.box == (*map(int, (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)),)
        assert 0 < segment.score <= 1
    file = json.loads(json.dumps(result.to_coco()))
    assert [int(coco_mask.area(each["segmentation"])) for each in file["annotations"]] == [each["area"] for each in file["annotations"]]
    names = {each["id"]: each["name"] for each in file["categories"]}
    assert [names[each["category_id"]] for each in file["annotations"]] == [segment.label for segment in result]
    assert result.segments[0].label in result._repr_html_()


def test_one_that_cannot_be_used_is_an_error_alone_and_a_failure_among_others(model: masklake.Model, tmp_path: Path) -> None:
    with pytest.raises(masklake.Unusable, match=r"nope.jpg cannot be segmented: not_found: there is no such object"):
        model(tmp_path / "nope.jpg")
    good, bad, cut = model([scene(0), b"text", scene(1)[:9000]])
    assert [bool(result) for result in (good, bad, cut)] == [True, False, False]
    assert (bad.failure, cut.row["error_code"]) == ("not_an_image: is not in a known image format", "truncated")
    with pytest.raises(masklake.Unusable, match="image 1 has no masks: not_an_image"):
        _ = bad.segments
    assert "not_an_image" in bad._repr_html_()
    small = masklake.load(MODEL, max_pixels=1000, max_image_bytes=100)
    assert [result.row["error_code"] for result in small([scene(0), Image.new("RGB", (50, 50))])] == ["too_large", "too_large"]


def test_what_is_no_image_or_no_setting_is_refused_by_name(model: masklake.Model) -> None:
    with pytest.raises(ValueError, match="image 0 is an array of float32: give uint8"):
        model(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(ValueError, match=r"image 0 is an array of shape \(3, 4, 5\)"):
        model(np.zeros((3, 4, 5), np.uint8))
    with pytest.raises(TypeError, match="image 1 is a NoneType: give a path"):
        model([scene(0), None])
    with pytest.raises(masklake.Refused, match="task 'depth': use panoptic, instance, semantic"):
        model(scene(0), task="depth")
    with pytest.raises(masklake.Refused, match=r"'resolutoin' is not a setting of masklake.load: did you mean 'resolution'"):
        masklake.load(MODEL, resolutoin="64x64")
    with pytest.raises(masklake.Refused, match=r"--threads 0 \(in masklake.load\)"):
        masklake.load(MODEL, threads=0)
    if not torch.backends.mps.is_available():
        with pytest.raises(masklake.Refused, match="--device mps: torch sees no GPU of Apple's here"):
            masklake.load(MODEL, device="mps")


def test_the_programs_own_number_of_threads_stays(model: masklake.Model) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model(scene(0))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_stream_reads_no_further_than_it_must(model: masklake.Model) -> None:
    asked: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            asked.append(1)
            yield b"no image"

    stream = model.stream(endless())
    assert next(stream).failure
    assert len(asked) <= 16
