"""The settings of a run: what is wrong is refused by name, value and cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from masklake.config import resolve
from masklake.errors import Refused
from masklake.schema import TABLE, Task
from masklake.segment.settings import PROGRAM, Config

REQUIRED = ["--input", "s3://lake/images/", "--output", "s3://lake/masks", "--model", "pipeline/masklake/demo/model"]


def load(*argv: str) -> Config:
    return resolve([*REQUIRED, *argv], PROGRAM)


def test_defaults_are_enough_beside_input_output_and_model() -> None:
    settings = load()
    assert settings.tasks == (Task.PANOPTIC,)
    assert settings.partition_by == ("task",)
    assert settings.batch_size is None


def test_lists_are_separated_by_commas() -> None:
    settings = load("--tasks", "semantic, panoptic", "--partition-by", "dt,task")
    assert settings.tasks == (Task.SEMANTIC, Task.PANOPTIC)
    assert settings.partition_by == ("dt", "task")


def test_a_flag_beats_the_environment_and_the_environment_beats_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("limit: 1\nbatch-size: 1\ncommit_seconds: 1\npartition_by: [dt]\n")
    monkeypatch.setenv("MASKLAKE_BATCH_SIZE", "2")
    monkeypatch.setenv("MASKLAKE_COMMIT_SECONDS", "2")
    settings = load("--config", str(file), "--commit-seconds", "3")
    assert (settings.limit, settings.batch_size, settings.commit_seconds, settings.partition_by) == (1, 2, 3.0, ("dt",))


def test_every_setting_is_a_flag_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        load("--help")
    text = capsys.readouterr().out
    assert [name for name in Config.model_fields if "--" + name.replace("_", "-") not in text] == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--limit", "0"], "--limit 0 (on the command line): input should be greater than or equal to 1"),
        (["--tasks", "panoptic,depth"], "'panoptic', 'instance' or 'semantic'"),
        (["--tasks", ""], "give at least one value"),
        (["--tasks", "panoptic,panoptic"], "'panoptic' is listed twice"),
        (["--resolution", "12"], "must be 'checkpoint', 'reference'"),
        (["--max-error-rate", "5"], "--max-error-rate 5"),
        (["--precision", "int8"], "'float32', 'bfloat16' or 'float16'"),
        (["--partition-by", "segments"], "cannot partition by the column 'segments'"),
        (["--partition-by", "a b"], "is not a column name"),
        (["--carry", "split,image_etag"], "'image_etag' is a column of the table"),
        (["--carry", "Label"], "or of its segments, already: give the input's another name"),
        (["--carry", "a.b"], "is not a column name"),
        (["--carry", "split,Split"], "lists a name twice"),
        (["--carry", "split,DT", "--partition-by", "dt,task"], "--carry DT: it is in --partition-by"),
        (["--since", "yesterday"], "--since yesterday (on the command line): must be a time such as 2026-11-22"),
        (["--since", "99999999999d"], "or a span such as 30m, 24h or 7d"),
        (["--local", "--actors", "2"], "--local and --actors 2: without Ray there is one model"),
        (["--local", "--ray-address", "10.0.0.1:6379"], "--local and --ray-address 10.0.0.1:6379"),
        (["--local", "--gpus-per-actor", "0.5"], "--local and --gpus-per-actor 0.5"),
        (["--key-column", "id"], "say --bytes-column as well"),
        (["--key-column", "row", "--bytes-column", "image"], "give the column another name"),
        (["--bytes-column", "a&b"], "--bytes-column a&b"),
        (["--config", "absent.yaml"], "--config absent.yaml: cannot be read"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_value_and_what_would_be_right(argv: list[str], message: str) -> None:
    with pytest.raises(Refused) as refusal:
        load(*argv)
    assert message in str(refusal.value)
    assert refusal.value.exit_code == 2


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(Refused) as refusal:
        resolve(["--limit", "0"], PROGRAM)
    assert [line.split()[0] for line in str(refusal.value).splitlines()] == ["--input", "--output", "--limit", "--model"]


def test_an_unknown_yaml_key_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("batchsize: 3\n")
    with pytest.raises(Refused, match="did you mean 'batch_size'"):
        load("--config", str(file))


@pytest.mark.parametrize("content", ["- a\n", "a: [1\n"])
def test_a_file_that_holds_no_settings_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(content)
    with pytest.raises(Refused, match=r"--config .*run\.yaml"):
        load("--config", str(file))


def test_the_contract_columns_come_in_the_promised_order() -> None:
    promised = (
        "image_uri image_etag image_bytes image_modified width height format task model model_revision fingerprint "
        "run_id run_order processed_at status error_code error_message segments"
    )
    assert promised.split() == TABLE.names
