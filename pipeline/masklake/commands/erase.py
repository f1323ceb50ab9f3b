"""Erase images from a table of masks, and what is left of them elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from masklake import storage
from masklake.commands import keeping
from masklake.commands.ending import Paced
from masklake.commands.lines import say
from masklake.errors import ImageFailure, MasklakeError, Refused
from masklake.named import named, without_rows
from masklake.spelling import plural
from masklake.table import runs
from masklake.upkeep.erase import Erasure, check_gone, erase, erase_pictures
from masklake.upkeep.erase_settings import EraseConfig
from masklake.upkeep.missing import missing_images
from masklake.upkeep.upkeep import UpkeepTable

_SHOWN = 20  # images named on stderr


def work(settings: EraseConfig) -> dict[str, Any]:
    """Erase; returns the summary."""
    if settings.input:
        storage.check_input(settings.input)
    given = [] if settings.input else named(settings.uri, settings.uris)
    with keeping.opened(settings, "erase") as table:
        uris = missing_images(table, settings.input) if settings.input else given
        if settings.must_exist and (unknown := _unknown(uris, erase(table, uris, True, Paced()))):
            raise Refused(f"--must-exist: nothing was erased, for {without_rows(unknown)}")
        done = erase(table, uris, settings.changes_nothing, Paced())
        unknown = _unknown(uris, done)
        _tell(uris, unknown, done, settings)
        summary: dict[str, Any] = {
            "outcome": "planned" if settings.changes_nothing else "erased" if done.rows else "nothing to do",
            "table": table.uri,
            "asked": len(uris),
            "images": len(done.found),
            "unknown": unknown,
            "rows": done.rows,
            "files": done.files,
        }
        if settings.changes_nothing:
            return {**summary, **_files_to_go(table, done, settings)}
        return {**summary, **_forget(table, uris, done, settings)}


def _files_to_go(table: UpkeepTable, done: Erasure, settings: EraseConfig) -> dict[str, Any]:
    """What a dry run says of files; nothing where it only shows what is missing in the lake."""
    if settings.input and not settings.delete_missing:
        return {}
    for uri in done.replaced if settings.vacuum_hours == 0 else ():
        say(f"would delete {uri}, once what stays of it is in a new file")
    return keeping.vacuumed(table, settings)


def _forget(table: UpkeepTable, uris: Sequence[str], done: Erasure, settings: EraseConfig) -> dict[str, Any]:
    """What is left of the images once the present version is without them."""
    pages = erase_pictures(table.uri, set(uris))
    vacuum = keeping.vacuumed(table, settings)
    if settings.vacuum_hours == 0:
        check_gone(done.replaced)
    else:
        say(
            "old versions of the table still hold these rows: "
            f"in {plural(settings.vacuum_hours, 'hour')}, a vacuum deletes {plural(done.files, 'file')}"
        )
    if done.rows and table.published and not vacuum["vacuumed"]["files"]:
        say("this table is published to Iceberg, where readers see the erased rows until the next masklake publish")
    alive = [marker.run_id for marker in runs.markers(table.uri) if marker.scope]
    if alive:
        say(f"not finished: {', '.join(alive)}; where such a run has these images in its work list, erase them again when it is over")
    return {"galleries_and_reports": pages, **vacuum}


def _unknown(uris: Sequence[str], done: Erasure) -> list[str]:
    """The images of which the table had no row."""
    return [uri for uri in uris if uri not in done.found]


def _tell(uris: Sequence[str], unknown: Sequence[str], done: Erasure, settings: EraseConfig) -> None:
    verb = "would be erased" if settings.changes_nothing else "erased"
    for uri in uris[:_SHOWN]:
        say(f"{'missing in the lake: ' if settings.input else ''}{uri}")
    if len(uris) > _SHOWN:
        say(f"and {len(uris) - _SHOWN:,} more")
    say(
        f"{plural(len(uris), 'image')} asked for: {plural(done.rows, 'row')} of {len(done.found):,} of them {verb}, "
        f"in {plural(done.files, 'file')}"
    )
    if settings.input and not settings.delete_missing and done.rows:
        say("nothing was erased: say --delete-missing to erase them")
    if unknown and not settings.input:
        say(f"{without_rows(unknown)}; --must-exist refuses such a list")
    if not settings.input:
        _tell_present(uris)


def _tell_present(uris: Sequence[str]) -> None:
    try:
        present = sum(not isinstance(found, ImageFailure) for found in storage.stat_many(uris))
    except MasklakeError as error:  # whoever erases need not have the keys of the lake
        say(f"whether the lake has these images cannot be seen from here ({error}); if it has, the next run segments them again")
        return
    if present:
        say(
            f"{plural(present, 'of these images is', 'of these images are')} in the lake: "
            "what is not deleted there, the next run segments again"
        )
