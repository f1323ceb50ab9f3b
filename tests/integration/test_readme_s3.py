"""The README's commands, as they are typed, on a real S3 server whose bucket is called as there."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from masklake import storage
from masklake.commands import cli
from masklake.demo.seaweedfs import SeaweedFS
from tests.lakes import MODEL, ROOT, scene

SECTION = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Your own bucket\n")[1].split("\n## ")[0]
COMMANDS = [shlex.split(line.replace("\\\n", " ")) for line in re.findall(r"^    masklake ((?:.*\\\n)*.*)$", SECTION, re.MULTILINE)]
PUBLISHED = "facebook/mask2former-swin-tiny-coco-panoptic"  # which is on the hub: the demo model takes its place


def test_the_sequence_of_the_readme_runs_as_typed(s3: SeaweedFS, capsys: pytest.CaptureFixture[str]) -> None:
    assert [command[0] for command in COMMANDS] == ["segment", "export", "evaluate", "compact"]
    s3.create_bucket("lake")
    for index in range(4):
        storage.write_bytes(f"s3://lake/images/dt=2026-11-2{index % 2}/scene-{index}.jpg", scene(index))
    plan, *others = COMMANDS
    assert plan[-1] == "--dry-run"
    said = {}
    for command in (plan, plan[:-1], *others):
        if command[0] == "evaluate":  # against the answers themselves: what was exported is read as ground truth
            for page in storage.list_files("s3://lake/coco/"):
                for file in page:
                    storage.write_bytes(file.uri.replace("/coco/", "/truth/", 1), storage.read_bytes(file.uri))
        code = cli.main([str(MODEL) if word == PUBLISHED else word for word in command])
        shown = capsys.readouterr()
        assert code == 0, shown.err
        said[" ".join(command)] = json.loads(shown.out.splitlines()[-1])
    dry, segmented, exported, evaluated, compacted = said.values()
    assert (dry["outcome"], dry["planned"], segmented["outcome"], segmented["ok"]) == ("planned", 4, "done", 4)
    assert (exported["outcome"], compacted["outcome"]) == ("done", "nothing to do")  # a file for each day is few enough
    assert (evaluated["images"]["scored"], evaluated["scores"]["pq"]) == (4, 1)
    assert storage.exists("s3://lake/evaluation/evaluation.html")
