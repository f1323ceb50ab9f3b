"""Names that come from data, with `/../` in them: whatever shows an image or learns from it reads what the row names, and no other file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

import masklake
from masklake import reading
from masklake.browse.pictures import Pictures
from masklake.errors import Refused
from masklake.images.discover import discover
from masklake.images.source import Input
from masklake.pages.cards import card_from
from masklake.results import Result
from masklake.table.append import Table
from masklake.table.rows import build_rows
from masklake.table.write import write_rows
from masklake.tasks import Task
from masklake.training.examples import load_image
from masklake.training.settings import SourceConfig
from masklake.training.sources import read
from tests.answers import images, rectangle, segment, stamp
from tests.exports import export

SIDE = 32
MINE, SECRET = (0, 0, 255), (255, 0, 0)
KEYS = ("/../../secret.png", "/../secret.png", "../secret.png", "x.tar/../../secret.png", "%2e%2e/secret.png")


def png(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> reading.Table:
    """A table of masks of a Parquet file's images, whose keys lead to a secret wherever somebody takes them for paths."""
    root = tmp_path_factory.mktemp("lake")
    for folder in (root, root / "in", root / "in" / "deep"):
        folder.mkdir(exist_ok=True)
        (folder / "secret.png").write_bytes(png(SECRET))
    file = root / "in" / "deep" / "a.parquet"
    pq.write_table(pa.table({"image": [png(MINE)] * len(KEYS), "id": list(KEYS)}), file)
    uris = [uri for page in discover(Input(str(file), "image", "id")) for uri in page["image_uri"].to_pylist()]
    assert [uri.partition("&id=")[2] for uri in uris] == list(KEYS)
    made = Table.open_or_create(str(root / "masks"), ["task"])
    made.begin_run(f"file://{root}/in/", "run-1")
    answer = {"panoptic": [segment(1, rectangle(SIDE, SIDE, slice(0, SIDE), slice(0, 16)))]}
    asked = images(uris, width=[SIDE] * len(uris), height=[SIDE] * len(uris))
    made.commit(write_rows(build_rows(asked, [answer] * len(uris), stamp("run-1"), ["task"]), made.uri, ["task"], "run-1"))
    made.finish_run()
    return reading.open_table(made.uri)


def is_mine(picture: NDArray[np.uint8]) -> bool:
    """Whether the part beside the mask, on the right, is blue, and not the secret's red."""
    red, _, blue = picture[:, -4:].reshape(-1, 3).mean(axis=0)
    return bool(blue > 200 and red < 50)


def test_overlays_cards_and_photographs_show_the_row_and_nothing_else(table: reading.Table) -> None:
    rows = list(table.newest())
    assert len(rows) == len(KEYS)
    shown = Pictures(1 << 20)
    for row in rows:
        result = Result(row)
        assert is_mine(masklake.overlay(row))
        assert is_mine(card_from(result.image, row).image)
        with Image.open(io.BytesIO(shown.photograph(row, 256))) as photograph:
            assert is_mine(np.asarray(photograph.convert("RGB")))
        assert all(piece.shape[2] == 4 for piece in masklake.cutouts(row))


def test_learning_reads_the_row_and_nothing_else(table: reading.Table) -> None:
    data, _ = read(SourceConfig(format="table", truth=table.uri, task=Task.PANOPTIC, validation_share=0), False)
    assert len(data.examples) == len(KEYS)
    for example in data.examples:
        assert is_mine(load_image(example.image).pixels)


@pytest.mark.parametrize(("form", "more"), [("overlays", {}), ("label-maps", {"task": "panoptic"}), ("yolo-seg", {"copy_images": True})])
def test_no_export_writes_outside_its_folder(table: reading.Table, tmp_path: Path, form: str, more: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="no file can be named after this image"):
        export(table.uri, tmp_path / "a" / "b" / "out", form, **more)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
