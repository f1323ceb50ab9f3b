"""What can go wrong: exceptions that end a job, and failures that become rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum


def first_line(error: BaseException) -> str:
    """What an exception of somebody else's says first; empty where it says nothing."""
    return next(iter(str(error).strip().splitlines()), "")


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def one_line(error: BaseException) -> str:
    """All that an exception of somebody else's says, in one line and without a terminal's colours, as delta-rs has both."""
    return " ".join(_COLOUR.sub("", str(error)).split())


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


Say = Callable[[str], None]
"""Takes a sentence for the user."""


def unsaid(text: str) -> None:
    """Where nobody listens."""


class MasklakeError(Exception):
    """Ends the job with one clear message and `exit_code`; nothing that was committed is lost."""

    exit_code = 1

    def __str__(self) -> str:
        """Its lines, each an argument; a line break within one is of some text that it repeats."""
        return "\n".join(map(str, self.args))


def outcome_of(exit_code: int) -> str:
    """What the last line calls an ending that was none of its own choice."""
    return {2: "refused", 4: "fenced", 5: "stalled", 130: "stopped", 143: "stopped"}.get(exit_code, "failed")


class Refused(MasklakeError):
    """The job cannot start as it is configured: a setting, a credential, a bucket or a model is wrong. Nothing was started."""

    exit_code = 2


class Fenced(MasklakeError):
    """A newer run on overlapping input took over the table; this one may not commit any more."""

    exit_code = 4


class Stalled(MasklakeError):
    """Nothing happens any more, or nodes that are waited for do not come: the same command may work another time."""

    exit_code = 5


class DeviceLost(MasklakeError):
    """The GPU answers nothing any more, as after a kernel's illegal access: no image is to blame, and this process can do no more."""


class ErrorCode(StrEnum):
    """The stable codes of `error_code` in the table."""

    NOT_FOUND = "not_found"
    """The object vanished between listing and reading, or a manifest names one that never was."""
    CHANGED = "changed"
    """The object was replaced between listing and reading, or is another than a manifest says. Its row tells no version, so the image is
    new work in the next run, whichever version that finds."""
    ACCESS_DENIED = "access_denied"
    """The store refuses to give this one object."""
    UNREACHABLE = "unreachable"
    """The store did not answer, after retries with back-off."""
    EMPTY = "empty"
    """The object has no bytes."""
    NOT_AN_IMAGE = "not_an_image"
    """The bytes are not an image format known to the decoder."""
    UNSUPPORTED = "unsupported"
    """An image, but of a format, mode or compression that the decoder does not read."""
    TRUNCATED = "truncated"
    """The image ends before its pixels do."""
    BROKEN = "broken"
    """The image is damaged: it contradicts itself, or a checksum is wrong."""
    TOO_LARGE = "too_large"
    """More pixels, or bytes, than the configured bound; refused before they were allocated."""
    TOO_SLOW = "too_slow"
    """Decoding takes more time than the configured bound."""
    DECODER_CRASHED = "decoder_crashed"
    """The decoder's process ended on this image, twice."""
    OUT_OF_MEMORY = "out_of_memory"
    """The model ran out of device memory on this image alone."""
    NOT_FINITE = "not_finite"
    """The model answered NaN or infinity."""
    MODEL_FAILED = "model_failed"
    """The model raised an exception on this image alone."""


@dataclass(frozen=True)
class ImageFailure:
    """Why one image has no masks: a value that travels in place of an answer, and becomes a row with status `error`."""

    code: ErrorCode
    message: str
