"""`masklake convert`: a checkpoint becomes a folder that needs nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from masklake.commands import cli
from masklake.inference import checkpoint, released
from masklake.inference.options import Options
from tests.released import layouts


def convert(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, object], str]:
    code = cli.main(["convert", *arguments])
    said = capsys.readouterr()
    return code, json.loads(said.out.strip().splitlines()[-1]), said.err


@pytest.mark.slow
def test_a_pickled_checkpoint_is_converted_with_everything_that_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKLAKE_CACHE", str(tmp_path / "cache"))
    folder = layouts.write("oneformer-swin", tmp_path / "shi-labs--oneformer_ade20k_swin_tiny", pickled=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A card\n")
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    code, summary, said = convert(str(folder), "--output", str(tmp_path / "mine"), capsys=capsys)
    assert (code, summary["outcome"]) == (0, "converted")
    assert "they are converted to safetensors once" in said
    written = {path.name for path in (tmp_path / "mine").iterdir()}
    assert written == {path.name for path in folder.iterdir()} - {"pytorch_model.bin", "modeling_evil.py"} | {"model.safetensors"}
    assert json.loads((tmp_path / "mine" / "config.json").read_text())[released.SOURCE] == "shi-labs--oneformer_ade20k_swin_tiny"
    assert released.told("mine", tmp_path / "mine", {released.SOURCE: "shi-labs--oneformer_ade20k_swin_tiny"}).dataset == "ADE20K"
    description = checkpoint.describe(tmp_path / "mine", Options(tasks=("semantic",)))
    assert (description.licence, len(description.tasks)) == ("mit", 3)
    code, summary, said = convert(str(folder), "--output", str(tmp_path / "mine"), capsys=capsys)
    assert code == 2
    assert "holds something already" in said


@pytest.mark.parametrize("arguments", [[], ["one", "two", "--output", "x"], ["nowhere", "--output", "x"]])
def test_what_is_asked_wrongly_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert convert(*arguments, capsys=capsys)[0] == 2


def test_a_damaged_checkpoint_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = layouts.write("segformer", tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    code, _, said = convert(str(folder), "--output", str(tmp_path / "mine"), capsys=capsys)
    assert code == 2
    assert "model.safetensors ends too early" in said
    assert not (tmp_path / "mine" / "config.json").exists()
