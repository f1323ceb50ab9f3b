"""A load task holds a bounded part of its group, however large the images are: measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

_PEAK = """
from pathlib import Path
def peak():  # bytes; of this program: the kernel's `ru_maxrss` begins with that of the process that started it
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
"""
_READ = f"""{_PEAK}
import sys
import pyarrow.parquet as pq
from masklake.images.fetch import fetch
listed = pq.read_table(sys.argv[1])
before = peak()
lengths = [len(content) for content in fetch(listed, 1 << 28)]
print(lengths, ",", peak() - before)
"""


def read(listed: pa.Table, folder: Path) -> tuple[list[int], int]:
    """How long the contents of these images are, and by how many bytes the process grew that read them."""
    pq.write_table(listed, folder / "listed.parquet")
    command = [sys.executable, "-c", _READ, str(folder / "listed.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    found: tuple[list[int], int] = eval(done.stdout)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's /proc")
@pytest.mark.slow
def test_large_images_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    """20 of 30 MB and some small ones: 64 MB are read ahead, and of images whose size is not known before it is asked for."""
    sizes = [30_000_000] * 20 + [1_000] * 100
    known = [size if number % 2 else None for number, size in enumerate(sizes)]
    for number, size in enumerate(sizes):
        with (tmp_path / f"{number}.jpg").open("wb") as file:
            file.truncate(size)  # takes no room on a disk
    listed = pa.table(
        {
            "image_uri": [f"file://{tmp_path}/{number}.jpg" for number in range(len(sizes))],
            "image_etag": pa.nulls(len(sizes), pa.string()),
            "image_bytes": pa.array(known, pa.int64()),
            "error_code": pa.nulls(len(sizes), pa.string()),
            "error_message": pa.nulls(len(sizes), pa.string()),
            "image_container": pa.nulls(len(sizes), pa.int32()),
            "image_start": pa.nulls(len(sizes), pa.int64()),
            "image_source": pa.nulls(len(sizes), pa.string()),
        }
    )
    lengths, grown = read(listed, tmp_path)
    assert lengths == sizes
    assert grown < 150_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's /proc")
@pytest.mark.slow
def test_rows_of_one_large_value_are_decoded_one_at_a_time(tmp_path: Path) -> None:
    """A small file, whose dictionary holds one value of 20 MB for all of 40 rows; and one with a value beyond the bound."""
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 40, pa.int32()), pa.array([bytes(20_000_000)], pa.binary()))
    pq.write_table(pa.table({"image": values.cast(pa.binary())}), tmp_path / "a.parquet", compression="zstd")
    quickly = {
        "compression": "zstd",
        "use_dictionary": False,
        "write_statistics": False,
    }  # of which the least and greatest take ten seconds
    pq.write_table(pa.table({"image": pa.array([bytes(600_000_000)], pa.binary())}), tmp_path / "b.parquet", **quickly)
    assert (tmp_path / "b.parquet").stat().st_size < 200_000
    script = f"""{_PEAK}
import sys
from masklake.errors import ImageFailure
from masklake.images.discover import discover
from masklake.images.fetch import fetch
from masklake.images.source import Input
pages = [page for name in sys.argv[1:] for page in discover(Input(name, "image"))]
before = peak()
found = [content.code if isinstance(content, ImageFailure) else len(content) for page in pages for content in fetch(page, 1 << 28)]
print(sorted({{*map(str, found)}}), ",", peak() - before)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]
    found, grown = eval(subprocess.run(command, capture_output=True, text=True, timeout=200, check=True).stdout)
    assert found == ["20000000", "too_large"]
    assert grown < 450_000_000  # all rows at once would take 800 MB, and the value that is refused 600 MB
