"""`masklake browse` on a table and images in a real S3 server."""

from __future__ import annotations

import io
import json
import threading
import urllib.request

import numpy as np
from PIL import Image

from masklake import config
from masklake.browse import serve
from masklake.browse.settings import PROGRAM, BrowseConfig
from tests.browsing import HEIGHT, WIDTH, build


def test_rows_photographs_and_masks_come_from_the_bucket(bucket: str) -> None:
    settings = config.checked(PROGRAM, {"given": {"table": build(f"s3://{bucket}/lake")}})
    assert isinstance(settings, BrowseConfig)
    with serve.served(settings, lambda text: None) as page:
        thread = threading.Thread(target=page.run)
        thread.start()

        def read(path: str) -> bytes:
            with urllib.request.urlopen(page.url + path, timeout=60) as answer:
                content: bytes = answer.read()
                return content

        try:
            found = {image["name"]: image["id"] for image in json.loads(read("find?task=panoptic&order=name"))["images"]}
            photograph = Image.open(io.BytesIO(read(f"photograph/{found['a.png']}")))
            painted = json.loads(read(f"painted/{found['a.png']}"))
            row = json.loads(read(f"row/{found['a.png']}"))
        finally:
            page.server.should_exit = True
            thread.join(30)
    assert len(found) == 6
    assert photograph.size == (WIDTH, HEIGHT)
    assert np.asarray(photograph).std() > 10
    assert {name["text"] for name in painted["names"]} == {"person", "sky"}
    assert [each["label"] for each in row["segments"]] == ["person", "sky"]
