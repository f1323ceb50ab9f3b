"""Models from a hub: the real client against a hub on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hub
from tests.hub import COMMIT, Hub
from tests.unit.inference import tiny_checkpoints

_ASK = """
import sys
from masklake.errors import Refused
from masklake.inference.checkpoint import resolve_hub
try:
    print("found", *resolve_hub(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
except Refused as refusal:
    print("refused", refusal)
"""


def ask(endpoint: str, cache: Path, *arguments: str) -> tuple[str, str]:
    """What resolving a model says, in a process of its own: the client reads its environment once. Returns (found or refused, the rest)."""
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache)}
    done = subprocess.run([sys.executable, "-c", _ASK, *arguments], capture_output=True, text=True, check=True, env=environment)
    verdict, _, rest = done.stdout.strip().partition(" ")
    return verdict, rest


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    model = tiny_checkpoints.write("segformer", root)
    (model / "training_state.pt").write_bytes(b"nobody wants this")
    (model / "modeling_evil.py").write_text("raise SystemExit('remote code ran')")
    pickled = root / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text(json.dumps({"model_type": "segformer"}))
    (pickled / "pytorch_model.bin").write_bytes(b"a pickle")
    bare = root / "bare"
    bare.mkdir()
    (bare / "config.json").write_text("{}")
    models: dict[str, Path | tuple[int, str]] = {"team/model": model, "team/pickled": pickled, "team/bare": bare}
    with hub.running(models | {"team/gated": (403, "GatedRepo"), "team/busy": (503, "")}) as running:
        yield running


def test_a_model_is_pinned_to_a_commit_and_found_again_without_the_hub(served: Hub, tmp_path: Path) -> None:
    verdict, rest = ask(served.endpoint, tmp_path, "team/model")
    folder, commit = rest.split()
    assert (verdict, commit) == ("found", COMMIT)
    assert {path.name for path in Path(folder).iterdir()} == {"config.json", "preprocessor_config.json", "model.safetensors"}
    assert "training_state.pt" not in served.files_sent
    assert "modeling_evil.py" not in served.files_sent
    nowhere = "http://127.0.0.1:9"
    for revision in ([], [COMMIT], ["main"]):
        assert ask(nowhere, tmp_path, "team/model", *revision) == ("found", f"{folder} {COMMIT}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["team/absent"], "team/absent: there is no such model on the Hugging Face hub, or it is private and HF_TOKEN does not open it"),
        (["team/model", "v9"], "team/model: has no revision v9 on the Hugging Face hub"),
        (
            ["team/gated"],
            "team/gated: its owner asks you to accept terms on the Hugging Face hub first; do so, and give a token in HF_TOKEN",
        ),
        (["team/bare"], "team/bare: has no model.safetensors on the Hugging Face hub"),
        (["team/pickled"], "pytorch_model.bin"),
        (["team/busy"], "503"),
    ],
)
def test_what_the_hub_refuses_is_said_in_a_sentence(served: Hub, tmp_path: Path, arguments: list[str], message: str) -> None:
    verdict, rest = ask(served.endpoint, tmp_path, *arguments)
    assert verdict == "refused"
    assert message in rest
    assert "\n" not in rest


def test_a_pickled_checkpoint_is_refused_with_the_way_to_convert_it(served: Hub, tmp_path: Path) -> None:
    _, rest = ask(served.endpoint, tmp_path, "team/pickled")
    assert "safetensors" in rest
    assert "save_pretrained" in rest
    assert "pytorch_model.bin" not in served.files_sent


def test_an_unreachable_hub_is_said_quickly(tmp_path: Path) -> None:
    started = time.perf_counter()
    said = ask("http://127.0.0.1:9", tmp_path, "a/b")
    assert said == ("refused", "a/b: the Hugging Face hub cannot be reached from here, and its cache does not hold the model")
    assert time.perf_counter() - started < 60  # start of Python and import of the hub's library included
