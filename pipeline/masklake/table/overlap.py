"""Giving way to another run on overlapping input, alive or dead. This is politeness only: the fence in the table's log holds without."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from masklake.table.append import Table
from masklake.table.runs import Marker

LOOK_SECONDS = 2.0
"""Between two looks at the others' markers."""


class Watch:
    """Tells runs that live from dead ones by whether their markers change while we look, so that no two machines' clocks are compared."""

    def __init__(self, lease_seconds: float) -> None:
        self._lease = lease_seconds
        self._sights: dict[str, tuple[int, float, bool]] = {}  # of each run: its last beat, when we first saw that one, whether it moved

    def look(self, markers: Sequence[Marker], now: float) -> dict[str, bool]:
        """The runs not known to be dead or stopped: True where the marker has changed while we looked, False where it is too early to say.

        Args:
            markers: as they are now; a run that has none any more is over, and forgotten.
            now: seconds of any clock that only goes forward.
        """
        before, self._sights = self._sights, {}
        for marker in markers:
            if marker.stopped:
                continue
            beat, since, moved = before.get(marker.run_id, (marker.beat, now, False))
            self._sights[marker.run_id] = (beat, since, moved) if beat == marker.beat else (marker.beat, now, True)
        return {run_id: moved for run_id, (_, since, moved) in self._sights.items() if now - since < self._lease}


def only_dead(table: Table, scope: str, lease_seconds: float, say: Callable[[str], None], show: Callable[[str], None]) -> bool:
    """Whether unfinished runs on overlapping input are all dead, and there is one; `lease_seconds` later, or at once where one lives."""
    watch = Watch(lease_seconds)
    while unfinished := table.unfinished(scope):
        ahead = watch.look(unfinished, time.monotonic())
        if any(ahead.values()):
            return False
        if not ahead:
            say(f"run {', '.join(marker.run_id for marker in unfinished)} has stopped responding; deleting its uncommitted files")
            return True
        show(f"checking whether run {', '.join(sorted(ahead))} is alive")
        time.sleep(LOOK_SECONDS)
    return False


def clear_never_begun(table: Table, scope: str, watch: Watch, say: Callable[[str], None], show: Callable[[str], None]) -> None:
    """Take away what runs on overlapping input left that died before they could begin; no run takes over from these.

    One that lives is seen by its beat, and left alone. Comes back when none is left of which neither is known: after a lease, where there
    is one, less the time for which `watch` has looked already.
    """
    while markers := table.never_begun(scope):
        looked = watch.look(markers, time.monotonic())
        dead = [marker.run_id for marker in markers if marker.run_id not in looked]
        if dead:
            say(f"run {', '.join(dead)} ended before it could begin: what it left is deleted")
            table.forget(dead)
        if all(looked.values()):
            return
        show(f"checking whether run {', '.join(sorted(looked))} is alive")
        time.sleep(LOOK_SECONDS)


def may_go_on(
    table: Table, scope: str, on_overlap: str, lease_seconds: float, say: Callable[[str], None], show: Callable[[str], None]
) -> bool:
    """Whether nobody else is at work on overlapping input, as far as `on_overlap` cares; `wait` comes back when that is so.

    Args:
        scope: the normalised input.
        on_overlap: `takeover`, `wait` or `skip`.
        lease_seconds: a run that does not respond for so long is dead.
        say: told of each change.
        show: told every two seconds what we are waiting for.
    """
    watch, told = Watch(lease_seconds), ""
    while on_overlap != "takeover":
        unfinished = table.unfinished(scope)
        ahead = watch.look(unfinished, time.monotonic())
        if not ahead:
            for marker in unfinished:
                say(f"run {marker.run_id} has not responded for {lease_seconds:g} s: treated as dead")
            break
        alive = ", ".join(sorted(run_id for run_id in ahead if ahead[run_id]))
        if alive and on_overlap == "skip":
            say(f"skipped: run {alive} is at work on the same or overlapping input (--on-overlap skip)")
            return False
        doing = f"waiting for run {alive}" if alive else f"checking whether run {', '.join(sorted(ahead))} is alive"
        if doing != told:
            say(f"{doing}, on the same or overlapping input (--on-overlap {on_overlap})")
            told = doing
        show(doing)
        time.sleep(LOOK_SECONDS)
    return True
