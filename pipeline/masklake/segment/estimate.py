"""What a run will take, by what earlier runs of its table took, or by a preview: arithmetic that starts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from masklake.spelling import plural

LOOKED_AT = 10
"""Reports of the last runs; the largest run of the same model counts."""


@dataclass(frozen=True)
class Estimate:
    """Of a run that is planned; `cost` is in the currency of `--price-per-hour`, None without it."""

    seconds: float
    table_bytes: int
    cost: float | None
    from_run: str | None
    """None: by images that were answered just now."""
    from_images: int
    device: str

    @property
    def source(self) -> str:
        """By what it is told."""
        if self.from_run is None:
            return f"the {plural(self.from_images, 'image')} of this preview on {self.device}"
        return f"run {self.from_run} ({plural(self.from_images, 'image')} on {self.device})"

    def __str__(self) -> str:
        """A sentence for the user."""
        cost = "" if self.cost is None else f" and costs about {self.cost:.2f}"
        return (
            f"by {self.source}, this takes about {span(self.seconds)}{cost}, and adds about {self.table_bytes / 1e6:,.1f} MB to the table"
        )

    def keys(self) -> dict[str, Any]:
        """As the last line has it."""
        return {**asdict(self), "seconds": round(self.seconds, 1), "cost": None if self.cost is None else round(self.cost, 4)}


def estimate(images: int, model: str, reports: Sequence[Mapping[str, Any]], price_per_hour: float | None) -> Estimate | None:
    """So many images, by the largest of these runs of the same model; None where there is none.

    The time to its first answers, in which Ray and the model start, counts once, and what came after it for each image; where there was
    one commit only, all of its time counts for each image.
    """
    alike = [report for report in reports if report["model"]["name"] == model and report["images"]["done"]] if images else []
    if not alike:
        return None
    like = max(alike, key=lambda report: int(report["images"]["done"]))
    done, rate = int(like["images"]["done"]), like.get("steady_images_per_second")
    start = like.get("seconds_to_first_answer")
    seconds = images * float(like["seconds"]) / done
    if rate and start:
        seconds = float(start) + max(0, images - int(like["images_in_first_answer"])) / float(rate)
    return Estimate(
        seconds=seconds,
        table_bytes=round(images * like["bytes"]["written"] / done),
        cost=None if price_per_hour is None else price_per_hour * seconds / 3600,
        from_run=like["run_id"],
        from_images=done,
        device=like.get("device", "an unknown device"),
    )


@dataclass(frozen=True)
class Measured:
    """What some images took that were answered just now: seconds until the first answer, and for each image; bytes of its rows."""

    images: int
    start_seconds: float
    image_seconds: float
    image_bytes: float
    device: str


def by_preview(images: int, measured: Measured, price_per_hour: float | None) -> Estimate:
    """So many images, as these were answered: on the same machine, in one process."""
    seconds = measured.start_seconds + images * measured.image_seconds
    return Estimate(
        seconds=seconds,
        table_bytes=round(images * measured.image_bytes),
        cost=None if price_per_hour is None else price_per_hour * seconds / 3600,
        from_run=None,
        from_images=measured.images,
        device=measured.device,
    )


def span(seconds: float) -> str:
    """A time in the unit that suits it."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
