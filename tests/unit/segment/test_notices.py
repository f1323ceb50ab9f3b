"""Who is told how a run ended: a receiver on loopback gets what happened, and one that fails costs nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from masklake.errors import Fenced, Refused
from masklake.segment import notices
from masklake.segment.lineage import dataset
from masklake.segment.notices import told
from masklake.segment.progress import Listener, State
from masklake.segment.settings import Config
from masklake.stopping import Stopped

TABLE = "s3://lake/masks"
STOPPED_SECONDS = notices.STOPPED_SECONDS
DONE = {"run_id": "run-1", "table": TABLE, "outcome": "done", "images": 3, "rows": 6, "too_many_failed": False}


class Receiver(BaseHTTPRequestHandler):
    """Takes documents; its path says how it answers."""

    got: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    asked: ClassVar[threading.Event] = threading.Event()
    free: ClassVar[threading.Event] = threading.Event()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Receiver.got.append((self.path, json.loads(body)))
        if self.path == "/silent":
            Receiver.asked.set()
            Receiver.free.wait(200)
        self.send_response(500 if self.path == "/broken" else 403 if self.path.startswith("/secret") else 201)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        Receiver.free.set()
        running.shutdown()


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has come, and a machine at work on other things may take longer to answer."""
    Receiver.got.clear()
    for limit in ("SECONDS", "STOPPED_SECONDS", "_TRY_SECONDS"):
        monkeypatch.setattr(notices, limit, 60.0)


class Said(Listener):
    def __init__(self) -> None:
        self.said: list[str] = []

    def begin(self, run_id: str, table: str) -> None: ...

    def say(self, text: str) -> None:
        self.said.append(text)

    def update(self, state: State) -> None: ...


def config(**more: Any) -> Config:
    return Config(input="s3://lake/images/", output=TABLE, model="demo", **more)


def run(asked: Config, ends: Any) -> list[str]:
    """A run that begins and ends so; returns what was said."""
    listener = Said()

    def work(watching: Listener) -> dict[str, Any]:
        watching.begin("run-1", TABLE)
        if isinstance(ends, BaseException):
            raise ends
        return dict(ends)

    if isinstance(ends, BaseException):
        with pytest.raises(type(ends)):
            told(asked, listener, work)
    else:
        assert told(asked, listener, work) == ends
    return listener.said


def stopped() -> Stopped:
    stop = Stopped(15)
    stop.summary = {"images": 2}
    return stop


@pytest.mark.parametrize(
    ("ends", "outcome", "code"),
    [
        pytest.param(DONE, "done", 0, id="done"),
        pytest.param({**DONE, "too_many_failed": True}, "done", 3, id="failed-images"),
        pytest.param(Refused("no"), "refused", 2, id="refused"),
        pytest.param(Fenced("no"), "fenced", 4, id="fenced"),
        pytest.param(stopped(), "stopped", 143, id="stopped"),
        pytest.param(KeyError("x"), "failed", 1, id="bug"),
    ],
)
def test_the_end_is_posted_whatever_it_is(server: str, ends: Any, outcome: str, code: int) -> None:
    assert run(config(notify=f"{server}/hook"), ends) == []
    ((path, document),) = Receiver.got
    assert (path, document["event"], document["run_id"], document["table"]) == ("/hook", "masklake.segment", "run-1", TABLE)
    assert (document["outcome"], document["exit_code"]) == (outcome, code)
    assert document["started_at"] <= document["finished_at"]
    assert document.get("images") == {"done": 3, "stopped": 2}.get(outcome)


def test_who_cannot_be_told_is_named_and_costs_nothing(server: str) -> None:
    place = server.removeprefix("http://")
    assert run(config(notify=f"{server}/broken"), DONE) == [f"--notify http://{place}: nobody was told there how the run ended: HTTP 500"]
    assert len(Receiver.got) == 2, "once more, where the receiver is in trouble"
    (said,) = run(config(notify=f"{server}/secret-token"), DONE)
    assert (said.endswith("HTTP 403"), "secret-token" in said) == (True, False)
    (said,) = run(config(notify="http://127.0.0.1:9/x"), DONE)
    assert "refused" in said


@pytest.mark.slow
def test_a_stop_does_not_wait_for_a_receiver_that_is_silent(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "STOPPED_SECONDS", STOPPED_SECONDS)
    (said,) = run(config(notify=f"{server}/silent"), stopped())
    assert "no answer within 1 s" in said, "it waited for as long as another end does"
    Receiver.asked.wait(60)  # what comes late would be taken for the next test's


def test_the_address_is_no_part_of_a_report_and_wrong_ones_are_refused() -> None:
    assert "notify" not in config(notify="https://hooks.example.com/T0/secret").model_dump(mode="json", exclude={"notify"})
    for wrong in ("ftp://x/y", "hooks.example.com", "https://user:password@example.com/"):
        with pytest.raises(ValueError, match="notify"):
            config(notify=wrong)


def received() -> list[tuple[str, dict[str, Any]]]:
    """What came, once: OpenLineage's client sends again what was not answered within five seconds."""
    return [each for index, each in enumerate(Receiver.got) if each not in Receiver.got[:index]]


def test_lineage_says_which_images_became_which_table(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openlineage.client")
    monkeypatch.setenv("OPENLINEAGE_URL", server)
    monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "nightly")
    assert run(config(), DONE) == []
    (path, start), (_, end) = received()
    assert path == "/api/v1/lineage"
    assert (start["eventType"], end["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == end["run"]["runId"]
    assert (end["job"]["namespace"], end["job"]["name"]) == ("nightly", "segment.masks")
    (source,), (target,) = end["inputs"], end["outputs"]
    assert ((source["namespace"], source["name"]), (target["namespace"], target["name"])) == (
        ("s3://lake", "images"),
        ("s3://lake", "masks"),
    )
    assert target["outputFacets"]["outputStatistics"]["rowCount"] == 6
    for event in (start, end):
        assert {"eventTime", "producer", "schemaURL", "run", "job"} <= set(event)
    Receiver.got.clear()
    run(config(), Refused("the disk is full"))
    assert [event["eventType"] for _, event in received()] == ["START", "FAIL"]
    assert received()[1][1]["run"]["facets"]["errorMessage"]["message"] == "the disk is full"
    Receiver.got.clear()
    run(config(), stopped())
    assert Receiver.got[-1][1]["eventType"] == "ABORT"
    Receiver.got.clear()
    run(config(dry_run=True), DONE)
    assert Receiver.got == []


def test_names_of_datasets_are_those_of_openlineage(tmp_path: Path) -> None:
    assert dataset("s3://lake/a/b/") == ("s3://lake", "a/b")
    assert dataset("gs://lake") == ("gs://lake", "/")
    assert dataset("file:///data/masks") == ("file", "/data/masks")
