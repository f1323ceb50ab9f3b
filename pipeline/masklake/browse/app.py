"""The page and what it asks for, over HTTP. Rows go by their numbers: no path and no URI of a client's reaches a store."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from masklake.browse import taking
from masklake.browse.asked import Asked, asked_of
from masklake.browse.found import Answers, choices
from masklake.browse.guard import Guard
from masklake.browse.index import FILE, ID, PLACE, SUBJECT, Index
from masklake.browse.pictures import SIDES, Pictures
from masklake.browse.rows import Rows
from masklake.browse.truths import Truths
from masklake.errors import MasklakeError, Refused
from masklake.pages import rendering
from masklake.schema import Status
from masklake.table.masks import is_painted, palette
from masklake.table.read import MaskTable
from masklake.tasks import Task

_STATIC = {"browse.js": "text/javascript", "view.js": "text/javascript", "parts.js": "text/javascript", "browse.css": "text/css"}
_MOST_IMAGES = 200  # of a page
_FIRST_IMAGES = 24  # of the page as it opens
_MOST_PICKED = 1000
_MINE = ("first", "most", "by", "ids")  # parameters that are not the question's
_HOUR = {"Cache-Control": "private, max-age=3600"}

Values = dict[str, Any]


class Page:
    """A table's page; its methods answer requests."""

    def __init__(self, index: Index, table: MaskTable, pictures: Pictures, truths: Truths | None) -> None:
        self._index, self._answers, self._rows = index, Answers(index, table), Rows(index)
        self._pictures, self._truths = pictures, truths
        self._version = table.delta.version()

    def app(self, token: str) -> ASGIApp:
        """For a server on this machine, which lets those through who know the token."""
        answers: dict[str, Callable[[Request], Response]] = {
            "/": self._page,
            "/static/{name}": self._static,
            "/table": self._table,
            "/state": self._state,
            "/find": self._find,
            "/classes": self._classes,
            "/chart": self._chart,
            "/row/{id:int}": self._row,
            "/photograph/{id:int}": self._photograph,
            "/painted/{id:int}": self._painted,
            "/truth/{id:int}": self._truth,
            "/take": self._take,
            f"/{taking.LIST}": self._list,
        }
        return Guard(Starlette(routes=[Route(path, _told(answer), methods=["GET"]) for path, answer in answers.items()]), token)

    def make_first_pictures(self) -> None:
        """Make what a browser asks for first, before it does; what cannot be had is told when it asks."""
        tasks = [row["value"] for row in choices(self._index)["tasks"]]
        task = next((task for task in Task if task in tasks), None)
        for row in self._answers.page(Asked(task=task), 0, _FIRST_IMAGES)[1] if task else ():
            with suppress(MasklakeError):
                if row["status"] == Status.OK and not self._index.stopped:
                    self._pictures.photograph(self._rows.plain(row["id"]), SIDES[0])
                    self._painting(row["id"], SIDES[0], True, None)

    def _page(self, _: Request) -> Response:
        return HTMLResponse(rendering.render("browse.html.j2", uri=self._index.table_uri, name=self._index.table_uri.rpartition("/")[2]))

    def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _STATIC:
            return PlainTextResponse("There is no such file.", 404)
        return Response((files("masklake.browse") / "static" / name).read_text("utf-8"), media_type=_STATIC[name])

    def _table(self, _: Request) -> Response:
        told = choices(self._index)
        truth = [] if self._truths is None else self._truths.tasks
        return JSONResponse({**told, "uri": rendering.shown(self._index.table_uri), "version": self._version, "truth": truth})

    def _state(self, _: Request) -> Response:
        index = self._index
        return JSONResponse(
            {"complete": index.complete, "read": index.read_files, "files": len(index.files), "failure": rendering.shown(index.failure)}
        )

    def _find(self, request: Request) -> Response:
        first, most = _number(request, "first", 0, 1 << 31), _number(request, "most", 24, _MOST_IMAGES)
        found, rows = self._answers.page(self._asked(request), first, most)
        return JSONResponse({"count": found.count, "complete": self._index.complete, "images": [_image(row) for row in rows]})

    def _classes(self, request: Request) -> Response:
        return JSONResponse([_class(row) for row in self._answers.classes(self._asked(request))])

    def _chart(self, request: Request) -> Response:
        column = request.query_params.get("by", "")
        if column not in self._index.partitions:
            raise Refused(f"by: {column!r} is not a column of the table's partitions")
        bars: dict[str | None, Values] = {}
        for row in self._answers.chart(self._asked(request), column):
            bar = bars.setdefault(row["value"], {"value": row["value"], "images": row["images"], "classes": []})
            if row["label"] is not None:
                bar["classes"].append([row["label"], row["segments"]])
        return JSONResponse(list(bars.values()))

    def _row(self, request: Request) -> Response:
        row = self._rows.whole(request.path_params["id"])
        segments = [
            {**_class(segment), **{name: segment[name] for name in ("segment_id", "score", "area", "bbox", "isthing")}}
            for segment in row["segments"] or ()
        ]
        facts = [(name, rendering.shown(str(row[name]))) for name in row if name not in (*_HIDDEN, "segments") and row[name] is not None]
        others = self._index.rows(
            f"SELECT {ID} AS id, model, fingerprint, processed_at::VARCHAR AS at FROM rows WHERE {SUBJECT} = {row[SUBJECT]} "  # noqa: S608
            f"AND status = 'ok' AND {ID} <> {row[ID]} ORDER BY {ID} DESC LIMIT 20"
        )
        truth = self._truths is not None and row["status"] == Status.OK and self._truths.has(row)
        sizes = {"width": row["width"], "height": row["height"]}
        return JSONResponse({"segments": segments, "facts": facts, "others": others, "truth": truth, **sizes})

    def _photograph(self, request: Request) -> Response:
        row = self._rows.plain(request.path_params["id"])
        return Response(self._pictures.photograph(row, _side(request)), media_type="image/jpeg", headers=_HOUR)

    def _painted(self, request: Request) -> Response:
        least = request.query_params.get("score")
        score = None if least is None else _share(least)
        fill = request.query_params.get("style") != "edge"
        content = self._painting(request.path_params["id"], _side(request), fill, score)
        return Response(content, media_type="application/json", headers=_HOUR)

    def _painting(self, number: int, side: int, fill: bool, score: float | None) -> bytes:
        key = "painted", number, side, fill, score
        return self._pictures.kept.get(key, lambda: json.dumps(self._pictures.painted(self._ok(number), side, fill, score)).encode())

    def _truth(self, request: Request) -> Response:
        row = self._ok(request.path_params["id"])
        if self._truths is None or not self._truths.has(row):
            raise MasklakeError("this image has no ground truth")
        return JSONResponse(self._truths.beside(row, _side(request)), headers=_HOUR)

    def _take(self, request: Request) -> Response:
        asked, uris, picked = self._taken(request)
        return JSONResponse(taking.told(asked, self._index.table_uri, len(uris), picked))

    def _list(self, request: Request) -> Response:
        headers = {"Content-Disposition": f'attachment; filename="{taking.LIST}"'}
        return PlainTextResponse(taking.as_lines(self._taken(request)[1]), headers=headers, media_type="application/x-ndjson")

    def _taken(self, request: Request) -> tuple[Asked, list[str], bool]:
        asked, picked = self._asked(request), request.query_params.get("ids")
        if picked is None:
            return asked, self._answers.uris(asked), False
        numbers = picked.split(",")
        if len(numbers) > _MOST_PICKED or not all(number.isdecimal() and len(number) < 10 for number in numbers):
            raise Refused(f"ids: must be at most {_MOST_PICKED:,} whole numbers")
        return asked, [self._rows.plain(int(number))["image_uri"] for number in dict.fromkeys(numbers)], True

    def _asked(self, request: Request) -> Asked:
        given = [(name, value) for name, value in request.query_params.multi_items() if name not in _MINE]
        return asked_of(given, self._index.partitions)

    def _ok(self, number: int) -> Values:
        row = self._rows.whole(number)
        if row["segments"] is None:
            raise MasklakeError(f"it has no masks: {row['error_code']}")
        return row


_HIDDEN = (FILE, PLACE, SUBJECT, ID, "error_code", "error_message", "width", "height", "run_order")


def _told(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """The same, in which a user's mistake is a sentence."""

    def answered(request: Request) -> Response:
        try:
            return answer(request)
        except Refused as error:
            return JSONResponse({"error": rendering.shown(str(error))}, 400)
        except KeyError:
            return JSONResponse({"error": "the table has no such row"}, 404)
        except MasklakeError as error:
            return JSONResponse({"error": rendering.shown(str(error))}, 422)

    return answered


def _image(row: Values) -> Values:
    folder, name = rendering.name_of(row["image_uri"])
    message = ": ".join(filter(None, (row["error_code"], row["error_message"])))
    return {
        **{key: row[key] for key in ("place", "id", "width", "height", "status")},
        "name": rendering.shown(name),
        "folder": rendering.shown(folder),
        "error": rendering.shown(message),
        "doubt": row["doubt"],
        "labels": [{**_class(label), "count": label["count"], "score": label["score"], "share": label["share"]} for label in row["labels"]],
    }


def _class(row: Values) -> Values:
    """A class as a value, as a text to be shown, and its colour; None where it is not painted."""
    colour = rendering.hex_colour(palette(row["label_id"])) if is_painted(row["label"]) else None
    counts: Values = {name: row[name] for name in ("images", "segments") if name in row}
    return {"label": row["label"], "text": rendering.shown(row["label"]), "colour": colour, **counts}


def _number(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isdecimal() and len(text) < 11 and int(text) <= most):
        raise Refused(f"{name}: must be a whole number of at most {most:,}")
    return int(text)


def _side(request: Request) -> int:
    asked = _number(request, "side", SIDES[0], 1 << 20)
    return next((side for side in SIDES if side >= asked), SIDES[-1])


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise Refused("score: must be a number from 0 to 1")
    return value
