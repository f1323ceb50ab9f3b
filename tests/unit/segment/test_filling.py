"""When a write begins: by bytes, by time that grows with the run, by a number where one is given, and at once where the run is stopped."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from masklake.segment import committing
from masklake.segment.filling import FILE_BYTES, Fill, Filler, Packet
from masklake.segment.stages import Written
from masklake.table.write import FileRecord

MB = 1024 * 1024
MINUTE = 60.0


def written(packets: list[bytes], sizes: tuple[int, ...] = (1,)) -> Written:
    records = (FileRecord("p", size, datetime.now(UTC), {}, "{}", rows=1, ok=1) for size in sizes)
    return Written(tuple(records), images=len(packets), failed=0)


def waits(fill: Fill, since: float) -> float:
    """For how long rows that came at `since`, few of them, are kept: to a tenth of a second."""
    return next(tenths for tenths in range(100_000) if fill.enough(1, 1, since, since + tenths / 10 + 1e-6)) / 10


def test_rows_wait_longer_as_the_run_gets_older() -> None:
    fill = Fill(None, 5.0)
    assert waits(fill, 0.0) == 5.0
    assert waits(fill, 80.0) == 5.0  # a sixteenth of it
    assert waits(fill, 8 * MINUTE) == 30.0
    assert waits(fill, 16 * MINUTE) == 60.0
    assert waits(fill, 100_000.0) == 60.0
    patient = Fill(None, 300.0)
    assert (waits(patient, 0.0), waits(patient, 100_000.0)) == (300.0, 300.0)


def test_a_file_is_large_by_what_earlier_ones_became_of_their_packets() -> None:
    fill = Fill(None, 5.0)

    def enough(size: int) -> bool:
        return fill.enough(1, size, 10.0, 10.0)

    assert (enough(2 * FILE_BYTES - 1), enough(2 * FILE_BYTES)) == (False, True)  # nothing is known yet: half of it
    fill.learn(100 * MB, [100 * MB])  # nothing was saved
    assert (enough(FILE_BYTES - 1), enough(FILE_BYTES)) == (False, True)
    fill.learn(100 * MB, [10 * MB, 10 * MB, 10 * MB])  # 130 of 200 MB, in two files a write: a packet's byte is 0.325 of a file's
    assert (enough(192 * MB - 1), enough(192 * MB)) == (False, True)  # 197 MB would be needed, and is too much for a process


def test_a_number_of_rows_is_kept_to_whatever_the_time() -> None:
    fill = Fill(100, 5.0)
    assert not fill.enough(99, 1 << 40, 0.0, 1e9)
    assert fill.enough(100, 1, 0.0, 0.0)
    assert str(fill) == "a file holds 100 rows (--rows-per-file), before partitioning"


def test_every_packet_is_written_once_in_writes_of_enough() -> None:
    packets = [Packet(bytes([number]), 10, 1) for number in range(25)]
    taken: list[list[bytes]] = []

    def write(contents: list[bytes]) -> Future[Written]:
        taken.append(contents)
        return pool.submit(written, contents)

    with ThreadPoolExecutor(3) as pool:
        filler = Filler[bytes](Fill(100, 5.0), write, at_once=2)
        assert sum(each.images for each in filler.written(iter(packets))) == 25
    assert [len(each) for each in taken] == [10, 10, 5]
    assert b"".join(content for each in taken for content in each) == bytes(range(25))
    assert (filler.sign().finished, filler.flush()) == (3, False)


def test_what_waits_is_written_at_once_where_the_run_is_stopped() -> None:
    come, stop = threading.Event(), threading.Event()

    def packets() -> Iterator[Packet[bytes]]:
        yield Packet(b"a", 1, 1)
        come.set()
        stop.wait(20)

    with ThreadPoolExecutor(1) as pool:
        filler = Filler[bytes](Fill(None, 1000.0), lambda contents: pool.submit(written, contents), at_once=1)
        parts = filler.written(packets())
        threading.Thread(target=lambda: come.wait(20) and filler.flush()).start()
        assert next(parts).images == 1
        stop.set()
        assert list(parts) == []


def test_a_stop_takes_what_lies_ready_and_waits_for_writes_under_way() -> None:
    first, second, third = (written([bytes([number])]) for number in range(3))
    assert list(committing._arrived(iter([first, second, None, third]), lambda: False)) == [first, second]
    under_way = iter([True, True, False])
    assert list(committing._arrived(iter([None, first, None, second]), lambda: next(under_way))) == [first]


@pytest.mark.parametrize("of", ["packets", "write"])
def test_what_goes_wrong_is_raised_where_the_run_reads(of: str) -> None:
    def packets() -> Iterator[Packet[bytes]]:
        yield Packet(b"a", 1, 1)
        if of == "packets":
            raise OSError("broken")

    def write(contents: list[bytes]) -> Written:
        raise OSError("broken")

    with ThreadPoolExecutor(1) as pool, pytest.raises(OSError, match="broken"):
        list(Filler[bytes](Fill(1, 5.0), lambda contents: pool.submit(write, contents), at_once=1).written(packets()))
