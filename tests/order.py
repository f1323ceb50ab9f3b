"""Which file of tests a process takes next: the long ones first, and no more than two of those that start Ray at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

AT_ONCE = 2
"""Files that start Ray. Each keeps some ten processes busy while they start; three on two cores make each other's deadlines pass."""
STARTING = (
    "tests/flow/test_finetune.py",
    "tests/faults/test_faults.py",
    "tests/integration/test_cluster.py",
    "tests/flow/test_job.py",
    "tests/flow/test_stops.py",
    "tests/flow/test_flow.py",
    "tests/integration/test_job_s3.py",
    "tests/integration/test_secrets.py",
)
"""Those, the longest first."""
LONG = (
    "tests/unit/benchmarks/test_gpu.py",
    "tests/integration/test_photographs.py",
    "tests/flow/test_overlap.py",
    "tests/integration/test_loop.py",
    "tests/flow/test_additions.py",
    "tests/unit/training/test_loop.py",
    "tests/unit/inference/test_families.py",
)
"""Of the others, those of half a minute and more, the longest first: at the end, all would wait for one of them."""


class LongFirst(LoadFileScheduling):  # type: ignore[misc]
    """xdist's `--dist loadfile` with another order. A process learns of its next file before the last test of the one that it is at."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        self.workqueue.move_to_end(self._next(node), last=False)
        super()._assign_work_unit(node)

    def remove_node(self, node: WorkerController) -> str | None:
        """As xdist's, but of a process that died only what is not done goes to others.

        xdist hands out its finished files as well, and who is given one of these when a last test of its own waits for the next one
        waits for ever.
        """
        work = self.assigned_work[node]
        self.assigned_work[node] = {name: tests for name, tests in work.items() if not all(tests.values())}
        died: str | None = super().remove_node(node)
        return died

    def _next(self, node: WorkerController) -> str:
        """Ray's while few are at it; never two of them in a row, as the second would wait for the first while others have time."""
        at_it = [
            each for each, files in self.assigned_work.items() if any(name in STARTING and not all(files[name].values()) for name in files)
        ]
        starting = [name for name in STARTING if name in self.workqueue]
        others: list[str] = [name for name in LONG if name in self.workqueue] + [
            name for name in self.workqueue if name not in (*STARTING, *LONG)
        ]
        if starting and (not others or (len(at_it) < AT_ONCE and node not in at_it)):
            return starting[0]
        return others[0]
