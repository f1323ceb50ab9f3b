"""Files of web servers: what each status is, what tells a version, and where a server may lead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from masklake import storage
from masklake.errors import ErrorCode, ImageFailure, Refused
from masklake.images.discover import discover
from masklake.images.fetch import fetch
from masklake.images.source import Input
from masklake.storage import Span, StoredFile, faults

PICTURE = b"\xff\xd8 a picture"


@dataclass
class Answer:
    """What a path is answered with; the first of several statuses goes first, the last one stays."""

    statuses: list[int] = field(default_factory=lambda: [200])
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})
    body: bytes = PICTURE


@dataclass
class Web:
    url: str
    answers: dict[str, Answer]
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    found = Web("", {})
    monkeypatch.setattr(faults, "BACKOFF_SECONDS", 0.001)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found.asked.append(f"{self.command} {self.path}")
            answer = found.answers.get(self.path, Answer([404], {}, b""))
            status = answer.statuses.pop(0) if len(answer.statuses) > 1 else answer.statuses[0]
            if self.command == "HEAD" and status == 200 and answer.headers.get("Allow") == "GET":
                status = 405
            body, part = answer.body, self.headers.get("Range")
            if part and status == 200 and answer.headers.get("Accept-Ranges") != "none":
                first, _, last = part.removeprefix("bytes=").partition("-")
                body, status = answer.body[int(first) : int(last) + 1], 206
            self.send_response_only(status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if status == 206:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(answer.body)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "code", "attempts"),
    [
        (401, ErrorCode.ACCESS_DENIED, 1),
        (403, ErrorCode.ACCESS_DENIED, 1),
        (404, ErrorCode.NOT_FOUND, 1),
        (410, ErrorCode.NOT_FOUND, 1),
        (429, ErrorCode.UNREACHABLE, faults.ATTEMPTS),
        (500, ErrorCode.UNREACHABLE, faults.ATTEMPTS),
        (503, ErrorCode.UNREACHABLE, faults.ATTEMPTS),
        (451, ErrorCode.UNREACHABLE, 1),
    ],
)
def test_each_status_is_a_code_and_those_that_pass_are_tried_again(web: Web, status: int, code: ErrorCode, attempts: int) -> None:
    web.answers["/a.jpg"] = Answer([status])
    (answer,) = storage.read_many([f"{web.url}/a.jpg"])
    assert isinstance(answer, ImageFailure)
    assert (answer.code, len(web.asked)) == (code, attempts)
    assert f"HTTP {status}" in answer.message or code == ErrorCode.NOT_FOUND


def test_what_passes_by_itself_is_waited_for(web: Web) -> None:
    web.answers["/a.jpg"] = Answer([503, 429, 200])
    assert storage.read_bytes(f"{web.url}/a.jpg") == PICTURE


@pytest.mark.parametrize(
    ("headers", "etag"),
    [
        ({"ETag": '"v1"'}, "v1"),
        ({"ETag": 'W/"v1"'}, 'W/"v1'),
        ({"Last-Modified": "Sun, 22 Nov 2026 10:11:12 GMT"}, f"20261122T101112-{len(PICTURE):x}"),
        ({"ETag": '"v1"', "Allow": "GET"}, "v1"),
    ],
    ids=["an etag", "a weak one", "the time and the size", "no HEAD"],
)
def test_a_version_is_told_by_its_etag_else_by_its_time_and_size(web: Web, headers: dict[str, str], etag: str) -> None:
    uri = f"{web.url}/a.jpg"
    web.answers["/a.jpg"] = Answer(headers=headers)
    (found,) = storage.stat_many([uri])
    assert isinstance(found, StoredFile)
    assert (found.etag, found.size) == (etag, len(PICTURE))
    assert storage.read_versions([(uri, etag)]) == [PICTURE]
    assert storage.read_spans([Span(uri, 2, 3, etag)]) == [PICTURE[2:5]]
    with storage.open_file(uri) as file:
        assert (file.seek(3), file.read()) == (3, PICTURE[3:])
    web.answers["/a.jpg"] = Answer(headers={"ETag": '"v2"'})
    for (answer,) in (storage.read_versions([(uri, etag)]), storage.read_spans([Span(uri, 2, 3, etag)])):
        assert isinstance(answer, ImageFailure)
        assert answer.code == ErrorCode.CHANGED


def test_a_server_that_tells_no_version_is_a_failure(web: Web) -> None:
    web.answers["/a.jpg"] = Answer(headers={})
    (answer,) = storage.stat_many([f"{web.url}/a.jpg"])
    assert isinstance(answer, ImageFailure)
    assert "neither an ETag nor Last-Modified" in answer.message


def test_a_server_without_ranges_gives_what_was_asked_for(web: Web) -> None:
    web.answers["/a.jpg"] = Answer(headers={"ETag": '"v1"', "Accept-Ranges": "none"})
    assert storage.read_spans([Span(f"{web.url}/a.jpg", 2, 3)]) == [PICTURE[2:5]]


def test_no_more_is_read_than_may_be(web: Web) -> None:
    web.answers["/a.jpg"] = Answer(body=b"x" * 5000)
    (answer,) = storage.read_many([f"{web.url}/a.jpg"], 1000)
    assert isinstance(answer, ImageFailure)
    assert answer.code == ErrorCode.TOO_LARGE


def test_a_server_leads_on_within_itself_and_nowhere_else(web: Web) -> None:
    web.answers |= {"/old.jpg": Answer([302], {"Location": "/a.jpg"}, b""), "/a.jpg": Answer()}
    web.answers["/away.jpg"] = Answer([302], {"Location": "http://169.254.169.254/latest/meta-data"}, b"")
    web.answers["/round.jpg"] = Answer([302], {"Location": "/round.jpg"}, b"")
    there, away, around = storage.read_many([f"{web.url}/{name}.jpg" for name in ("old", "away", "round")])
    assert there == PICTURE
    assert isinstance(away, ImageFailure)
    assert isinstance(around, ImageFailure)
    assert (away.code, around.code) == (ErrorCode.ACCESS_DENIED, ErrorCode.ACCESS_DENIED)
    assert "169.254.169.254" in away.message


def test_a_list_of_addresses_is_an_input(web: Web, tmp_path: Path) -> None:
    web.answers |= {"/images/a b.jpg?size=1": Answer(), "/images/a%20b.jpg?size=1": Answer(), "/c.jpg": Answer([403])}
    (tmp_path / "list.txt").write_text(f"{web.url}/images/a%20b.jpg?size=1\n{web.url}/c.jpg\n{web.url}/none.jpg\n")
    (page,) = discover(Input(str(tmp_path / "list.txt"), allowed=(web.url,)))
    assert page["image_etag"].to_pylist() == ["one", None, None]
    assert page["error_code"].to_pylist() == [None, "access_denied", "not_found"]
    assert next(iter(fetch(page, 1000))) == PICTURE


def test_a_list_that_lies_there_names_its_neighbours(web: Web) -> None:
    web.answers |= {"/list.csv": Answer(body=f"uri\n{web.url}/a.jpg\n".encode()), "/a.jpg": Answer()}
    (page,) = discover(Input(f"{web.url}/list.csv"))
    assert (page["image_uri"].to_pylist(), page["image_bytes"].to_pylist()) == ([f"{web.url}/a.jpg"], [len(PICTURE)])


def test_what_a_web_server_cannot_do_is_refused(web: Web) -> None:
    with pytest.raises(Refused, match=r"cannot be listed: name the images in a list"):
        list(storage.list_files(f"{web.url}/images/"))
    with pytest.raises(Refused, match=r"--output .*nothing can be written to a web server"):
        storage.check_output(f"{web.url}/masks")
    with pytest.raises(Refused, match=r"--input .*: "):
        storage.check_input(f"{web.url}/none.csv")
