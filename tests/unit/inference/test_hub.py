"""Models from a hub: the real client against a hub on loopback."""

from __future__ import annotations

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
for model in sys.argv[1:]:
    try:
        source = resolve(model, say=said.append)
        print("found", source.fetch(said.append), source.revision)
    except Refused as refusal:
        print("refused", refusal)
print(*said, sep="\\n")
"""


def ask(endpoint: str, cache: Path, model: str) -> tuple[str, str, list[str]]:
    """What resolving a model says, in a process of its own: the client reads its environment once.

    Returns found or refused, the rest of that line, and what the user is told.
    """
    first, *said = _asked(endpoint, cache, model)
    verdict, _, rest = first.partition(" ")
    return verdict, rest, said


def ask_for_many(endpoint: str, cache: Path, *models: str) -> list[tuple[str, str]]:
    """The same of several models in one process, where nothing is to be told of any: found or refused, and the rest."""
    lines = [line.partition(" ") for line in _asked(endpoint, cache, *models)]
    return [(verdict, rest) for verdict, _, rest in lines]


def _asked(endpoint: str, cache: Path, *models: str) -> list[str]:
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "MASKLAKE_CACHE": str(cache / "masklake")}
    done = subprocess.run([sys.executable, "-c", _ASK, *models], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip().splitlines()


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


@pytest.mark.slow
def test_a_model_is_pinned_to_a_commit_and_found_again_without_the_hub(served: Hub, tmp_path: Path) -> None:
    verdict, rest, said = ask(served.endpoint, tmp_path, "team/model")
    folder, commit = rest.split()
    assert (verdict, commit, said) == ("found", COMMIT, [])
    assert {path.name for path in Path(folder).iterdir()} == {"config.json", "preprocessor_config.json", "model.safetensors"}
    assert not {"training_state.pt", "model.fp16.safetensors", "modeling_evil.py"} & set(served.files_sent)
    models = ("team/model", f"team/model@{COMMIT}", "team/model@main")
    assert ask_for_many("http://127.0.0.1:9", tmp_path, *models) == [("found", f"{folder} {COMMIT}")] * 3


@pytest.mark.slow
def test_the_conversion_bots_safetensors_are_taken_where_main_has_pickles_alone(served: Hub, tmp_path: Path) -> None:
    """Pull request 9 is closed, 7 is not the bot's, 4 converts other weights: it is 1."""
    verdict, rest, said = ask(served.endpoint, tmp_path, "team/converted")
    folder, commit = rest.split()
    assert (verdict, commit) == ("found", commit_of(1))
    assert (Path(folder) / "model.safetensors").is_file()
    assert not (Path(folder) / "pytorch_model.bin").exists()
    assert len(said) == 1
    assert said[0].endswith(f"the hub's conversion bot made of them are taken, refs/pr/1 at commit {commit_of(1)[:12]}")
    models = ("team/converted", f"team/converted@{commit_of(1)}")
    assert ask_for_many("http://127.0.0.1:9", tmp_path, *models) == [("found", f"{folder} {commit_of(1)}")] * 2


@pytest.mark.slow
def test_pickles_that_nobody_converted_are_converted_here_once_and_that_is_said(served: Hub, tmp_path: Path) -> None:
    verdict, rest, said = ask(served.endpoint, tmp_path, "team/pickled")
    folder, commit = rest.split()
    assert (verdict, commit) == ("found", COMMIT)
    assert [line.partition(":")[0] for line in said] == ["team/pickled has pickled weights (pytorch_model.bin)"]
    assert {path.name for path in Path(folder).iterdir()} == {"config.json", "preprocessor_config.json", "model.safetensors"}
    assert ask(served.endpoint, tmp_path, "team/pickled") == ("found", rest, [])
    assert ask("http://127.0.0.1:9", tmp_path, "team/pickled") == ("found", rest, [])


REFUSALS = {
    "team/absent": "team/absent: there is no such model on the Hugging Face hub, or it is private and HF_TOKEN does not open it",
    "team/model@v9": "team/model: has no revision v9 on the Hugging Face hub",
    "team/gated": "team/gated: its owner asks you to accept terms on the Hugging Face hub first; do so, and give a token in HF_TOKEN",
    "team/bare": "team/bare: has no model.safetensors on the Hugging Face hub, and no pytorch_model.bin",
    "team/busy": "503",
}


@pytest.mark.slow
def test_what_the_hub_refuses_is_said_in_a_sentence(served: Hub, tmp_path: Path) -> None:
    answers = ask_for_many(served.endpoint, tmp_path, *REFUSALS)
    assert [verdict for verdict, _ in answers] == ["refused"] * len(REFUSALS)
    for (_, said), message in zip(answers, REFUSALS.values(), strict=True):
        assert message in said


def test_an_unreachable_hub_is_said_quickly(tmp_path: Path) -> None:
    started = time.perf_counter()
    verdict, rest, _ = ask("http://127.0.0.1:9", tmp_path, "a/b")
    assert verdict == "refused"
    assert rest.startswith("a/b: the Hugging Face hub cannot be reached from here, and its cache does not hold the model")
    assert time.perf_counter() - started < 60  # start of Python and import of the hub's library included
