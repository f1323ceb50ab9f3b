"""Models from a hub: the real client against a hub on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hub
from tests.hub import COMMIT, Hub, Pull, Repository, Served, commit_of
from tests.released import layouts
from tests.unit.inference import tiny_checkpoints

_ASK = """
import sys
from masklake.errors import Refused
from masklake.inference.source import resolve
said = []
try:
    source = resolve(sys.argv[1], say=said.append)
    print("found", source.fetch(said.append), source.revision)
except Refused as refusal:
    print("refused", refusal)
print(*said, sep="\\n")
"""


def ask(endpoint: str, cache: Path, model: str) -> tuple[str, str, list[str]]:
    """What resolving a model says, in a process of its own: the client reads its environment once.

    Returns found or refused, the rest of that line, and what the user is told.
    """
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "MASKLAKE_CACHE": str(cache / "masklake")}
    done = subprocess.run([sys.executable, "-c", _ASK, model], capture_output=True, text=True, check=True, env=environment)
    first, *said = done.stdout.strip().splitlines()
    verdict, _, rest = first.partition(" ")
    return verdict, rest, said


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    model = tiny_checkpoints.write("segformer", root)
    (model / "training_state.pt").write_bytes(b"nobody wants this")
    (model / "model.fp16.safetensors").write_bytes(b"nor this")
    (model / "modeling_evil.py").write_text("raise SystemExit('remote code ran')")
    pickled = layouts.write("segformer", root / "pickled", pickled=True)
    bare = root / "bare"
    bare.mkdir()
    (bare / "config.json").write_text("{}")
    models: dict[str, Served] = {"team/model": model, "team/bare": bare, **converted(root, pickled)}
    with hub.running(models | {"team/gated": (403, "GatedRepo"), "team/busy": (503, "")}) as running:
        yield running


def converted(root: Path, pickled: Path) -> dict[str, Served]:
    """Models of pickles alone on main, with pull requests of several kinds."""
    bots = shutil.copytree(pickled, root / "bots")
    layouts.write("segformer", root / "whole")
    shutil.copy(root / "whole" / "model.safetensors", bots / "model.safetensors")
    stale = shutil.copytree(bots, root / "stale")
    (stale / "pytorch_model.bin").write_bytes(b"the weights before they were trained anew")
    (bots / "README.md").write_text("the card of that time")
    return {
        "team/converted": Repository(
            pickled, {1: Pull(bots), 4: Pull(stale), 7: Pull(bots, author="mallory"), 9: Pull(bots, status="closed")}
        ),
        "team/pickled": Repository(pickled, {4: Pull(stale), 7: Pull(bots, author="mallory")}),
    }


def test_a_model_is_pinned_to_a_commit_and_found_again_without_the_hub(served: Hub, tmp_path: Path) -> None:
    verdict, rest, said = ask(served.endpoint, tmp_path, "team/model")
    folder, commit = rest.split()
    assert (verdict, commit, said) == ("found", COMMIT, [])
    assert {path.name for path in Path(folder).iterdir()} == {"config.json", "preprocessor_config.json", "model.safetensors"}
    assert not {"training_state.pt", "model.fp16.safetensors", "modeling_evil.py"} & set(served.files_sent)
    nowhere = "http://127.0.0.1:9"
    for model in ("team/model", f"team/model@{COMMIT}", "team/model@main"):
        assert ask(nowhere, tmp_path, model) == ("found", f"{folder} {COMMIT}", [])


def test_the_conversion_bots_safetensors_are_taken_where_main_has_pickles_alone(served: Hub, tmp_path: Path) -> None:
    """Pull request 9 is closed, 7 is not the bot's, 4 converts other weights: it is 1."""
    verdict, rest, said = ask(served.endpoint, tmp_path, "team/converted")
    folder, commit = rest.split()
    assert (verdict, commit) == ("found", commit_of(1))
    assert (Path(folder) / "model.safetensors").is_file()
    assert not (Path(folder) / "pytorch_model.bin").exists()
    assert len(said) == 1
    assert said[0].endswith(f"the hub's conversion bot made of them are taken, refs/pr/1 at commit {commit_of(1)[:12]}")
    for model in ("team/converted", f"team/converted@{commit_of(1)}"):
        assert ask("http://127.0.0.1:9", tmp_path, model)[:2] == ("found", f"{folder} {commit_of(1)}")


def test_pickles_that_nobody_converted_are_converted_here_once_and_that_is_said(served: Hub, tmp_path: Path) -> None:
    verdict, rest, said = ask(served.endpoint, tmp_path, "team/pickled")
    folder, commit = rest.split()
    assert (verdict, commit) == ("found", COMMIT)
    assert [line.partition(":")[0] for line in said] == ["team/pickled has pickled weights (pytorch_model.bin)"]
    assert {path.name for path in Path(folder).iterdir()} == {"config.json", "preprocessor_config.json", "model.safetensors"}
    assert ask(served.endpoint, tmp_path, "team/pickled") == ("found", rest, [])
    assert ask("http://127.0.0.1:9", tmp_path, "team/pickled") == ("found", rest, [])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("team/absent", "team/absent: there is no such model on the Hugging Face hub, or it is private and HF_TOKEN does not open it"),
        ("team/model@v9", "team/model: has no revision v9 on the Hugging Face hub"),
        (
            "team/gated",
            "team/gated: its owner asks you to accept terms on the Hugging Face hub first; do so, and give a token in HF_TOKEN",
        ),
        ("team/bare", "team/bare: has no model.safetensors on the Hugging Face hub, and no pytorch_model.bin"),
        ("team/busy", "503"),
    ],
)
def test_what_the_hub_refuses_is_said_in_a_sentence(served: Hub, tmp_path: Path, model: str, message: str) -> None:
    verdict, rest, said = ask(served.endpoint, tmp_path, model)
    assert verdict == "refused"
    assert message in rest
    assert said == []


def test_an_unreachable_hub_is_said_quickly(tmp_path: Path) -> None:
    started = time.perf_counter()
    verdict, rest, _ = ask("http://127.0.0.1:9", tmp_path, "a/b")
    assert verdict == "refused"
    assert rest.startswith("a/b: the Hugging Face hub cannot be reached from here, and its cache does not hold the model")
    assert time.perf_counter() - started < 60  # start of Python and import of the hub's library included


def test_the_served_hub_answers_json(served: Hub) -> None:
    """What the client is not asked for here: a list of pull requests has its reader's fields."""
    from huggingface_hub import HfApi

    found = list(HfApi(endpoint=served.endpoint).get_repo_discussions("team/converted", discussion_status="open", author="mallory"))
    assert [(each.num, each.git_reference, each.author) for each in found] == [(7, "refs/pr/7", "mallory")]
    assert json.dumps([each.title for each in found]) == '["Adding `safetensors` variant of this model"]'
