"""A node that does not come up is started once more, and who waits is told why."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.cluster import _or_again


def started(tries: Iterator[Exception | None], capsys: pytest.CaptureFixture[str]) -> tuple[list[str], str]:
    happened: list[str] = []

    def start() -> None:
        happened.append("start")
        if error := next(tries):
            raise error

    try:
        _or_again(start, lambda: happened.append("end"))
    except RuntimeError as error:
        happened.append(str(error))
    return happened, capsys.readouterr().err


def test_a_start_that_fails_once_is_made_again_after_what_is_left_of_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    assert started(iter([None]), capsys) == (["start"], "")
    late = RuntimeError("Ray's head node ended while starting; the end of its log:\nThe current node timed out during startup.")
    said = "cluster: once more: Ray's head node ended while starting\n"
    assert started(iter([late, None]), capsys) == (["start", "end", "start"], said)


def test_one_that_fails_twice_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    happened, _ = started(iter([RuntimeError("a"), RuntimeError("b")]), capsys)
    assert happened == ["start", "end", "start", "b"]
