"""A table's images with their masks as torch's DataLoader takes them."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import masklake
from masklake.datasets import VOID, sample
from masklake.results import Unusable
from masklake.storage import normalise
from masklake.table.append import Table
from masklake.table.rows import build_rows
from masklake.table.write import write_rows
from tests.answers import images, rectangle, segment, stamp
from tests.lakes import ROOT

LEFT, TOP = rectangle(4, 6, slice(0, 4), slice(0, 2)), rectangle(4, 6, slice(0, 2), slice(1, 5))


def grey(made: dict[str, Any]) -> int:
    return int(made["image"][0, 0, 0])


@pytest.fixture
def table(tmp_path: Path) -> masklake.Table:
    """Seven images of 4 x 6 pixels, each of a grey of its own, with two overlapping segments; one that failed is left out."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(7):
        Image.new("RGB", (6, 4), (number,) * 3).save(folder / f"{number}.png")
    uris = [normalise(str(folder / f"{number}.png")) for number in range(7)]
    answer = {"instance": [segment(1, LEFT, 3), segment(2, TOP, 300)]}
    made = Table.open_or_create(str(tmp_path / "masks"), ["task"])
    made.begin_run(normalise(str(folder)), "run-1")
    made.commit(write_rows(build_rows(images(uris, ["instance"]), [answer] * 7, stamp("run-1"), ["task"]), made.uri, ["task"], "run-1"))
    made.finish_run()
    return masklake.open_table(str(tmp_path / "masks"))


def test_a_sample_holds_the_image_and_its_masks(table: masklake.Table) -> None:
    made = sample(next(table.newest()))
    number = int(Path(made["image_uri"]).stem)
    assert made["image"].shape == (3, 4, 6)
    assert (made["image"] == number).all()
    assert np.array_equal(made["masks"].numpy(), np.stack([LEFT, TOP]))
    assert made["boxes"].tolist() == [[0, 0, 2, 4], [1, 0, 5, 2]]
    assert made["labels"].tolist() == [3, 300]
    assert np.array_equal(made["label_map"].numpy(), np.where(LEFT, 3, np.where(TOP, 300, VOID)))
    torch.nn.functional.cross_entropy(torch.zeros(1, 301, 4, 6), made["label_map"][None])  # void is passed over
    assert len(sample(next(table.newest()), min_score=0.6)["labels"]) == 0


@pytest.mark.slow
def test_a_data_set_gives_each_image_by_its_place_in_any_process(table: masklake.Table) -> None:
    dataset = table.dataset("instance", transform=grey)
    assert [dataset[index] for index in range(len(dataset))] == list(range(7))
    with pytest.raises(IndexError):
        dataset[7]
    file = dataset._file
    copy = pickle.loads(pickle.dumps(table.dataset("instance")))
    assert len(copy) == 7
    assert file.exists()
    del dataset
    gc.collect()
    assert not file.exists()


FORKING = """
import sys
import masklake
from torch.utils.data import DataLoader
from tests.unit.test_datasets import grey
table = masklake.open_table(sys.argv[1])
dataset = table.dataset("instance", transform=grey)
for context in ("fork", "spawn"):
    loader = DataLoader(dataset, num_workers=2, batch_size=3, collate_fn=list, multiprocessing_context=context)
    print([number for batch in loader for number in batch], dataset._file.exists())
try:
    list(DataLoader(table.stream("instance", transform=grey), num_workers=1, batch_size=None, multiprocessing_context="fork"))
except masklake.MasklakeError as error:
    print("refused" if "give the DataLoader multiprocessing_context='spawn'" in str(error) else error)
"""


@pytest.mark.slow
def test_workers_of_a_loader_give_them_too_and_a_stream_is_not_forked(table: masklake.Table) -> None:
    """In a program of its own: a fork of this process would take with it what Ray, say, had left here in the middle of something."""
    done = subprocess.run([sys.executable, "-c", FORKING, table.uri], cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
    assert done.stdout.splitlines() == [*[f"{[*range(7)]} True"] * 2, "refused"], done.stderr


@pytest.mark.slow
def test_a_stream_gives_each_image_to_one_worker_of_one_trainer(table: masklake.Table) -> None:
    stream = table.stream("instance", transform=grey)
    assert sorted(stream) == list(range(7))
    loader: DataLoader[Any] = DataLoader(stream.shard(0, 2), num_workers=2, batch_size=None, multiprocessing_context="spawn")
    first, second = list(loader), list(stream.shard(1, 2))
    assert sorted(first + second) == list(range(7))
    with pytest.raises(ValueError, match="shard 2 of 2: use 0 to 1"):
        stream.shard(2, 2)


def test_an_image_that_is_gone_is_named(table: masklake.Table, tmp_path: Path) -> None:
    (tmp_path / "images" / "3.png").unlink()
    with pytest.raises(Unusable, match=r"3.png cannot be shown: there is no such object"):
        table.dataset("instance")[3]
