"""The page over HTTP: who may ask, what is answered, and what cannot be had through it."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from masklake import config, reading
from masklake.browse import pictures, serve
from masklake.browse.app import Page
from masklake.browse.index import Index
from masklake.browse.pictures import Kept, Pictures
from masklake.browse.settings import PROGRAM, BrowseConfig
from masklake.browse.truths import Truths
from masklake.errors import Refused
from masklake.upkeep.upkeep import UpkeepTable
from tests.browsing import HEIGHT, HOSTILE, WIDTH, build, uri
from tests.evaluations import label_maps

TOKEN = "the-token"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    build(folder)
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with ExitStack() as stack:
        index = stack.enter_context(closing(Index(UpkeepTable.existing(f"file://{folder}/masks"), folder)))
        index.read_segments()
        page = Page(index, reading.open_table(f"file://{folder}/masks"), Pictures(1 << 20), None)
        yield TestClient(page.app(TOKEN), base_url="http://127.0.0.1:1")


def get(client: TestClient, path: str, code: int = 200) -> Any:
    answer = client.get(f"/{TOKEN}/{path}")
    assert answer.status_code == code, answer.text
    return answer.json()


def images(client: TestClient, query: str = "") -> dict[str, Any]:
    return {image["name"]: image for image in get(client, f"find?task=panoptic&{query}")["images"]}


class TestGuard:
    @pytest.mark.parametrize(
        ("path", "host", "code"),
        [
            (f"/{TOKEN}/state", "127.0.0.1:1", 200),
            (f"/{TOKEN}/state", "localhost", 200),
            (f"/{TOKEN}/state", "[::1]:8080", 200),
            (f"/{TOKEN}/state", "evil.example", 403),
            (f"/{TOKEN}/state", "127.0.0.1.evil.example", 403),
            (f"/{TOKEN}/state", "evil@127.0.0.2", 403),
            ("/wrong/state", "127.0.0.1", 403),
            ("/state", "127.0.0.1", 403),
            ("/", "127.0.0.1", 403),
            (f"/{TOKEN}", "127.0.0.1", 403),
            (f"/{TOKEN}x/state", "127.0.0.1", 403),
            ("/\u00e9/state", "127.0.0.1", 403),
        ],
    )
    def test_lets_those_in_who_know_the_token_and_use_this_machines_name(self, client: TestClient, path: str, host: str, code: int) -> None:
        assert client.get(path, headers={"host": host}).status_code == code

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
    def test_nothing_can_be_changed(self, client: TestClient, method: str) -> None:
        assert client.request(method, f"/{TOKEN}/state").status_code == 405

    def test_every_answer_forbids_what_the_page_does_not_need(self, client: TestClient) -> None:
        for path in (f"/{TOKEN}/", f"/{TOKEN}/table", "/wrong/"):
            headers = client.get(path).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"


class TestPictures:
    @pytest.mark.slow
    def test_are_those_of_the_rows(self, client: TestClient, folder: Path) -> None:
        number = images(client)["a.png"]["id"]
        answer = client.get(f"/{TOKEN}/photograph/{number}")
        assert answer.headers["content-type"] == "image/jpeg"
        shown = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"), int)
        stored = np.asarray(Image.open(folder / "images/dt=2026-11-21/a.png"), int)
        assert shown.shape == stored.shape
        assert np.abs(shown - stored).mean() < 12  # JPEG's loss

    def test_segments_are_painted_where_they_are_with_their_names(self, client: TestClient) -> None:
        """Of a.png, person is the left half, and sky the quarter beside it."""
        found = get(client, f"painted/{images(client)['a.png']['id']}")
        layer = Image.open(io.BytesIO(base64.b64decode(found["layer"].partition(",")[2])))
        opaque = np.asarray(layer.convert("RGBA"))[HEIGHT // 2, :, 3] > 0
        assert opaque.tolist() == [column < 0.75 * WIDTH for column in range(WIDTH)]
        assert [(name["text"], round(name["score"], 2)) for name in found["names"]] == [("person", 0.9), ("sky", 0.5)]
        assert found["names"][0]["x"] == pytest.approx(0.25, abs=0.1)

    def test_edges_leave_the_middle_of_a_segment_free(self, client: TestClient) -> None:
        found = get(client, f"painted/{images(client)['a.png']['id']}?style=edge")
        alpha = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["layer"].partition(",")[2]))).convert("RGBA"))[..., 3]
        assert alpha[HEIGHT // 2, WIDTH // 4] == 0
        assert alpha[HEIGHT // 2, WIDTH // 2 - 1] > 0

    def test_masks_below_a_score_are_left_out(self, client: TestClient) -> None:
        found = get(client, f"painted/{images(client)['a.png']['id']}?score=0.6")
        assert [name["text"] for name in found["names"]] == ["person"]

    def test_an_image_that_is_gone_says_so(self, client: TestClient, folder: Path) -> None:
        number = images(client)["b.png"]["id"]
        path = folder / "images/dt=2026-11-21/b.png"
        content = path.read_bytes()
        path.unlink()
        assert "not_found" in get(client, f"photograph/{number}", 422)["error"]
        path.write_bytes((folder / "secret.png").read_bytes()[:100])
        get(client, f"photograph/{number}", 422)
        Image.new("RGB", (3, 3)).save(path)
        assert "has changed" in get(client, f"photograph/{number}", 422)["error"]
        path.write_bytes(content)

    def test_what_several_ask_for_at_once_is_made_once(self) -> None:
        kept, made, all_ask = Kept(100), list[int](), threading.Barrier(4)

        def make() -> bytes:
            made.append(1)
            time.sleep(0.05)
            return b"x"

        def ask(_: int) -> bytes:
            all_ask.wait(60)
            return kept.get("a", make)

        with ThreadPoolExecutor(4) as threads:
            assert [*threads.map(ask, range(4))] == [b"x"] * 4
        assert made == [1]
        assert not kept.busy

    def test_what_cannot_be_made_is_tried_again(self) -> None:
        kept = Kept(100)
        with pytest.raises(ZeroDivisionError):
            kept.get("a", lambda: b"x" * (1 // 0))
        assert kept.get("a", lambda: b"y") == b"y"

    def test_the_first_are_there_before_they_are_asked_for(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with closing(Index(UpkeepTable.existing(f"file://{folder}/masks"), tmp_path)) as index:
            page = Page(index, reading.open_table(f"file://{folder}/masks"), Pictures(1 << 20), None)
            page.make_first_pictures()
            monkeypatch.setattr(pictures, "fetch_by_uri", lambda *_: pytest.fail("it is read again"))
            monkeypatch.setattr(pictures, "paint", lambda *_: pytest.fail("it is painted again"))
            browser = TestClient(page.app(TOKEN), base_url="http://127.0.0.1:1")
            shown = [image for image in images(browser).values() if image["status"] == "ok"]
            for image in shown:
                assert browser.get(f"/{TOKEN}/photograph/{image['id']}?side=480").status_code == 200
                assert browser.get(f"/{TOKEN}/painted/{image['id']}?side=480&style=fill").status_code == 200
        assert len(shown) == 5

    def test_what_is_kept_is_bounded(self) -> None:
        kept, made = Kept(100), list[int]()

        def make(number: int) -> bytes:
            made.append(number)
            return bytes(40)

        for number in (1, 2, 1, 3, 1, 2):
            assert len(kept.get(number, lambda number=number: make(number))) == 40  # type: ignore[misc]
        assert made == [1, 2, 3, 2]
        assert kept.held == 80


class TestNothingElse:
    @pytest.mark.parametrize(
        "path",
        [
            "photograph/{folder}/secret.png",
            "photograph/%2e%2e%2f%2e%2e%2fsecret.png",
            "photograph/file:%2F%2F{folder}/secret.png",
            "photograph/999",
            "photograph/-1",
            "row/999",
            "static/..%2Fapp.py",
            "static/app.py",
            "static/../../../secret.png",
            "masks/_delta_log/00000000000000000000.json",
        ],
    )
    def test_can_be_read(self, client: TestClient, folder: Path, path: str) -> None:
        answer = client.get(f"/{TOKEN}/{path.format(folder=folder)}")
        assert answer.status_code in (403, 404), answer.text

    def test_a_uri_in_a_question_is_refused(self, client: TestClient, folder: Path) -> None:
        get(client, f"find?task=panoptic&uri=file://{folder}/secret.png", 400)
        get(client, f"photograph/1?side=x&uri=file://{folder}/secret.png", 400)
        get(client, "take?task=panoptic&ids=1,../2", 400)


class TestTexts:
    def test_the_page_is_without_anything_of_the_tables_but_its_name(self, client: TestClient) -> None:
        page = client.get(f"/{TOKEN}/").text
        assert "<title>masks - masklake</title>" in page
        assert HOSTILE not in page
        assert " on" not in "".join(part.partition(">")[0] for part in page.split("<script")[1:])

    def test_names_and_labels_are_json(self, client: TestClient) -> None:
        answer = client.get(f"/{TOKEN}/find?task=panoptic&name=onerror")
        assert answer.headers["content-type"] == "application/json"
        (image,) = answer.json()["images"]
        assert (image["name"], image["labels"][0]["text"]) == (f"{HOSTILE}.png", HOSTILE)

    def test_a_row_says_its_segments_and_its_other_answers(self, client: TestClient) -> None:
        row = get(client, f"row/{images(client)['c.png']['id']}")
        assert [(each["label"], each["area"], each["bbox"]) for each in row["segments"]] == [
            ("person", 240, [0, 0, 4, 60]),
            ("dog", 2400, [16, 0, 40, 60]),
        ]
        assert [other["model"] for other in row["others"]] == ["model f-old"]
        facts = dict(row["facts"])
        assert (facts["model"], facts["dt"], row["truth"]) == ("model f-new", "2026-11-22", False)

    def test_an_error_says_why(self, client: TestClient) -> None:
        image = images(client)["broken.png"]
        assert (image["status"], image["error"]) == ("error", "truncated: the file ends early")
        assert "truncated" in get(client, f"painted/{image['id']}", 422)["error"]


def test_what_there_is_to_choose_from(client: TestClient) -> None:
    told = get(client, "table")
    assert told["partitions"] == {"dt": [{"value": "2026-11-21", "rows": 4}, {"value": "2026-11-22", "rows": 5}]}
    assert [(each["model"], each["rows"]) for each in told["models"]] == [("model f-new", 6), ("model f-old", 3)]
    assert told["errors"] == [{"value": "truncated", "rows": 1}]


def test_what_is_found_can_be_taken(client: TestClient, folder: Path) -> None:
    told = get(client, "take?task=panoptic&label=dog")
    assert told["count"] == 2
    lines = client.get(f"/{TOKEN}/images.jsonl?task=panoptic&label=dog").text.splitlines()
    assert {json.loads(line)["image_uri"] for line in lines} == {uri(folder, "dt=2026-11-21/b.png"), uri(folder, "dt=2026-11-22/c.png")}
    number = images(client)["empty.png"]["id"]
    picked = f"task=panoptic&ids={number}"
    assert "--uris images.jsonl" in get(client, f"take?{picked}")["commands"][0]["command"]
    (line,) = client.get(f"/{TOKEN}/images.jsonl?{picked}").text.splitlines()
    assert json.loads(line) == {"image_uri": uri(folder, "dt=2026-11-22/empty.png")}


def test_ground_truth_is_painted_beside_the_answer(folder: Path, tmp_path: Path) -> None:
    """Of a.png, the left half is person indeed, and the rest dog: a quarter was taken for sky, and a quarter missed."""
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[:, WIDTH // 2 :] = 1
    truth = label_maps(tmp_path / "truth", {"a.png": values}, ["person", "dog"])
    _semantic(folder, tmp_path)
    settings = config.checked(PROGRAM, {"given": {"table": str(tmp_path / "masks"), "truth": truth}})
    assert isinstance(settings, BrowseConfig)
    said: list[str] = []
    with closing(Index(UpkeepTable.existing(f"file://{tmp_path}/masks"), tmp_path)) as index:
        index.read_segments()
        truths = Truths(settings, index, said.append)
        page = Page(index, reading.open_table(f"file://{tmp_path}/masks"), Pictures(1 << 20), truths)
        client = TestClient(page.app(TOKEN), base_url="http://localhost")
        found = get(client, "find?task=semantic&truth=true")
        assert [image["name"] for image in found["images"]] == ["a.png"]
        assert get(client, "find?task=semantic")["count"] == 2
        beside = get(client, f"truth/{found['images'][0]['id']}")
        (other,) = [image["id"] for image in get(client, "find?task=semantic")["images"] if image["name"] != "a.png"]
        get(client, f"truth/{other}", 422)
    assert (beside["missed"], beside["wrong"]) == (0.5, 0.0)  # sky is not a class of the truth: its pixels are missed
    assert beside["score"] == pytest.approx((1 + 0) / 2)
    assert {name["text"] for name in beside["truth"]["names"]} == {"person", "dog"}
    layer = np.asarray(Image.open(io.BytesIO(base64.b64decode(beside["difference"]["layer"].partition(",")[2]))).convert("RGBA"))
    assert (layer[HEIGHT // 2, :, 3] > 0).tolist() == [column >= WIDTH // 2 for column in range(WIDTH)]


def _semantic(folder: Path, to: Path) -> None:
    """A table with semantic answers to two images."""
    from tests.browsing import ANSWERS
    from tests.evaluations import commit

    given = {uri(folder, name): (ANSWERS[name], (HEIGHT, WIDTH)) for name in ("dt=2026-11-21/a.png", "dt=2026-11-22/c.png")}
    commit(to / "masks", "semantic", given)


def test_the_command_serves_a_real_socket_on_this_machine_alone(folder: Path) -> None:
    settings = config.checked(PROGRAM, {"given": {"table": str(folder / "masks")}})
    assert isinstance(settings, BrowseConfig)
    with serve.served(settings, lambda text: None) as page:
        assert page.socket.getsockname()[0] == "127.0.0.1"
        thread = threading.Thread(target=page.run)
        thread.start()
        with urllib.request.urlopen(f"{page.url}find?task=panoptic", timeout=60) as answer:
            assert json.load(answer)["count"] == 6
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(page.url.replace(page.url[-10:], "wrong/"), timeout=60)
        page.server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def test_a_port_that_is_taken_and_a_truth_of_other_images_are_refused(folder: Path, tmp_path: Path) -> None:
    def asked(**given: Any) -> BrowseConfig:
        settings = config.checked(PROGRAM, {"given": {"table": str(folder / "masks"), **given}})
        assert isinstance(settings, BrowseConfig)
        return settings

    with (
        closing(socket.create_server(("127.0.0.1", 0))) as taken,
        pytest.raises(Refused, match=r"^--port \d+: .*name another"),
        serve.served(asked(port=taken.getsockname()[1]), lambda text: None),
    ):
        pass
    truth = label_maps(tmp_path / "truth", {"elsewhere.png": np.zeros((2, 2))}, ["person"])
    with pytest.raises(Refused, match=r"^--truth .*no image of it is in the table"), serve.served(asked(truth=truth), lambda text: None):
        pass
    with pytest.raises(Refused, match="--labels: is for ground truth"):
        asked(labels="x.json")
