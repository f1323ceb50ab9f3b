"""The kinds of fault. Each is a function that starts the real job, breaks something at a random moment, and says how the job must end.

What a kind expects of exit codes and words is checked there; what must hold of the table afterwards is the same for all: see `verify`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from tests.faults.kinds import beside, ends, lakes, stores, training, upkeep
from tests.faults.kinds.stores import can_mount
from tests.faults.trial import Trial

__all__ = ["KINDS", "NEED_ROOT", "Kind", "On", "can_mount"]


class On(Enum):
    """What a fault strikes."""

    NEW_TABLE = "images, and no table yet"
    TABLE = "a table of all images, which share their bucket with other trials"
    SMALL_DISK = "as a new table, on a server whose disk can be filled"
    TRAINING = "scenes to learn from"


@dataclass(frozen=True)
class Kind:
    """A kind of fault, and what it needs."""

    strike: Callable[[Trial], None]
    on: On = On.NEW_TABLE
    vacuumed: bool = False
    """Whether a vacuum that keeps no past comes last."""
    needs_ray: bool = False
    needs_cluster: bool = False
    needs_root: bool = False


KINDS = {
    "kill-driver": Kind(ends.kill_driver),
    "terminate": Kind(ends.terminate),
    "kill-actor": Kind(ends.kill_actor, needs_ray=True),
    "kill-task": Kind(ends.kill_task, needs_ray=True),
    "lose-node": Kind(ends.lose_node, needs_ray=True, needs_cluster=True),
    "kill-cluster": Kind(ends.kill_cluster, needs_ray=True),
    "break-requests": Kind(stores.break_requests),
    "first-commit": Kind(stores.first_commit),
    "fill-scratch": Kind(stores.fill_scratch, needs_ray=True, needs_root=True),
    "fill-store": Kind(stores.fill_store, On.SMALL_DISK, needs_root=True),
    "second-run": Kind(beside.second_run),
    "pause-run": Kind(beside.pause_run),
    "side-by-side": Kind(beside.side_by_side),
    "compact-beside": Kind(beside.compact_beside, vacuumed=True),
    "change-images": Kind(lakes.change_images),
    "skew-clock": Kind(lakes.skew_clock, vacuumed=True),
    "kill-compaction": Kind(upkeep.kill_compaction, On.TABLE, vacuumed=True),
    "erase": Kind(upkeep.erase, On.TABLE, vacuumed=True),
    "publish": Kind(upkeep.publish, On.TABLE),
    "nested-tables": Kind(upkeep.nested_tables, On.TABLE, vacuumed=True),
    "finetune": Kind(training.finetune, On.TRAINING),
}
NEED_ROOT = tuple(name for name, kind in KINDS.items() if kind.needs_root)
