"""Settings from flags, variables and a YAML file: which goes first, how lists are said, and what a mistake is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from masklake.config import Names, OneTask, Pairs, Positional, Program, Shown, Texts, Time, Uri, resolve
from masklake.config.sources import OTHERS
from masklake.errors import Refused
from masklake.tasks import Task
from tests.lakes import ROOT


class Toy(BaseModel):
    """A setting of each kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: Uri = Field(description="the table")
    thing: Annotated[Texts, Positional(), Shown("THING")] = Field((), description="things")
    rows_per_file: Annotated[int, Shown("ROWS")] = Field(8, ge=1, description="rows")
    columns: Names = Field((), description="columns")
    label: Texts = Field((), description="labels")
    task: OneTask = Field(Task.PANOPTIC, description="whose")
    precision: Literal["auto", "float32", "float16"] = Field("auto", description="arithmetic")
    since: Time | None = Field(None, description="when")
    dry_run: bool = Field(False, description="only say it")
    secrets: Pairs = Field({}, repr=False, description="keys")

    @model_validator(mode="after")
    def _no_rows_of_tables(self) -> Toy:
        if self.rows_per_file == 13:
            raise ValueError("--rows-per-file 13 brings bad luck")
        return self


TOY = Program("masklake toy", Toy, {"all": Toy}, about="Plays.", examples={})
TABLE = ["--table", "t"]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(*argv: str, elsewhere: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(Refused) as refused:
        resolve(argv, TOY, lambda: elsewhere)
    assert refused.value.exit_code == 2
    return str(refused.value).splitlines()


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["--columns", "a, b"], "columns", ("a", "b")),
        (["--columns", "a,b", "--columns", "c"], "columns", ("a", "b", "c")),
        (["--label", "a, b", "--label", "c"], "label", ("a, b", "c")),
        (["x,y", "--dry-run", "z"], "thing", ("x,y", "z")),
        (["--rows-per-file=3"], "rows_per_file", 3),
        (["--task", "instance"], "task", Task.INSTANCE),
        (["--tasks", "instance"], "task", Task.INSTANCE),
        (["--dry-run"], "dry_run", True),
        (["--secrets", "a=b=c", "--secrets", "d="], "secrets", {"a": "b=c", "d": ""}),
        ([], "columns", ()),
    ],
)
def test_a_flag_is_a_setting(argv: list[str], name: str, value: object) -> None:
    assert getattr(resolve([*TABLE, *argv], TOY), name) == value


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("ROWS_PER_FILE", "3", "rows_per_file", 3),
        ("COLUMNS", "a,b", "columns", ("a", "b")),
        ("LABEL", "a,b", "label", ("a", "b")),
        ("THING", "x", "thing", ("x",)),
        ("TASKS", "semantic", "task", Task.SEMANTIC),
        ("DRY_RUN", "yes", "dry_run", True),
        ("DRY_RUN", "", "dry_run", False),
        ("SECRETS", "a=b,c=d", "secrets", {"a": "b", "c": "d"}),
    ],
)
def test_a_variable_is_a_setting(monkeypatch: pytest.MonkeyPatch, variable: str, text: str, name: str, value: object) -> None:
    monkeypatch.setenv("MASKLAKE_TABLE", "t")
    monkeypatch.setenv(f"MASKLAKE_{variable}", text)
    assert getattr(resolve([], TOY), name) == value


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("rows-per-file: 3", "rows_per_file", 3),
        ("columns: [a, b]", "columns", ("a", "b")),
        ("columns: a", "columns", ("a",)),
        ("columns: [2026, true]", "columns", ("2026", "true")),
        ("label: ['a, b']", "label", ("a, b",)),
        ("tasks: instance", "task", Task.INSTANCE),
        ("since: 2026-11-22", "since", "2026-11-22"),
        ("since: 2026-11-22 10:00:00", "since", "2026-11-22 10:00:00"),
        ("since: null", "since", None),
        ("dry_run: on", "dry_run", True),
        ("secrets: {uri: 'http://x'}", "secrets", {"uri": "http://x"}),
    ],
)
def test_a_yaml_key_is_a_setting_and_says_what_the_flag_would(line: str, name: str, value: object) -> None:
    Path("toy.yaml").write_text(f"table: t\n{line}\n", encoding="utf-8")
    assert getattr(resolve(["--config", "toy.yaml"], TOY), name) == value


def test_a_variable_names_the_file_and_a_flag_another(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("one.yaml").write_text("table: one\n", encoding="utf-8")
    Path("two.yaml").write_text("table: two\n", encoding="utf-8")
    monkeypatch.setenv("MASKLAKE_CONFIG", "one.yaml")
    assert resolve([], TOY).table == "one"
    assert resolve(["--config", "two.yaml"], TOY).table == "two"


def test_no_turns_off_what_a_file_turns_on() -> None:
    Path("toy.yaml").write_text("table: t\ndry_run: true\n", encoding="utf-8")
    assert resolve(["--config", "toy.yaml", "--no-dry-run"], TOY).dry_run is False


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--tabel", "x"], "--tabel is not a setting: did you mean --table?"),
        (["--tabel=x"], "--tabel is not a setting: did you mean --table?"),
        (["--rows_per_file", "3"], "--rows_per_file is not a setting: did you mean --rows-per-file?"),
        (["--rowsperfile", "3"], "--rowsperfile is not a setting: did you mean --rows-per-file?"),
        (["--dry"], "--dry is not a setting: did you mean --dry-run?"),
        (["--confg", "a"], "--confg is not a setting: did you mean --config?"),
        (["-x"], "-x is not a setting; `--help` lists them"),
        (["--quux", "3"], "--quux is not a setting; `--help` lists them"),
        (["--rows-per-file"], "--rows-per-file has no value: say --rows-per-file ROWS"),
        (["--config"], "--config has no value: say --config FILE"),
        (["--dry-run=yes"], "--dry-run takes no value: give it, or leave it out"),
        (["--rows-per-file", "0"], "--rows-per-file 0 (on the command line): input should be greater than or equal to 1"),
        (["--rows-per-file", "13"], "--rows-per-file 13 brings bad luck"),
        (
            ["--precision", "fp16"],
            "--precision fp16 (on the command line): input should be 'auto', 'float32' or 'float16': did you mean 'float16'?",
        ),
        (["--columns", "a,b,a"], "--columns a,b,a (on the command line): 'a' is listed twice"),
        (["--secrets", "hunter2"], "--secrets (on the command line): must be KEY=VALUE, such as uri=https://catalog.example.org"),
    ],
)
def test_a_mistake_is_one_sentence_that_says_what_was_meant(argv: list[str], sentence: str) -> None:
    assert refusal(*TABLE, *argv) == [sentence]


def test_a_misspelt_name_is_not_told_as_missing_but_all_else_is_told_with_it() -> None:
    assert refusal("--tabel", "x") == ["--tabel is not a setting: did you mean --table?"]
    assert [line.split()[0] for line in refusal("--tabel", "x", "--rows-per-file", "0")] == ["--tabel", "--rows-per-file"]
    assert refusal() == ["--table is missing: the table"]


def test_a_value_without_a_setting_is_told_how_settings_are_said() -> None:
    class Bare(BaseModel):
        model_config = ConfigDict(extra="forbid")
        tasks: Names = Field((), description="several")

    with pytest.raises(Refused, match=r"'instance' belongs to no setting: .* commas between several values \(--tasks NAME,...\)"):
        resolve(["--tasks", "panoptic", "instance"], Program("masklake bare", Bare, {"all": Bare}, about="", examples={}))


class Loose(BaseModel):
    model_config = ConfigDict(extra="forbid")
    table: Annotated[Uri, Positional(), Shown("TABLE")] = Field(description="the table's folder")
    shell: Literal["bash", "zsh"] = Field("bash", description="which")


LOOSE = Program("masklake loose", Loose, {"all": Loose}, about="", examples={})


@pytest.mark.parametrize("argv", [["m"], ["--table", "m"], ["--table=m"]])
def test_what_stands_without_a_name_may_be_given_by_it(argv: list[str]) -> None:
    """`masklake browse --table masks`, as `masklake compact --table masks`."""
    assert resolve(argv, LOOSE).table == "m"
    with pytest.raises(Refused, match=r"--table n and m: give one of them"):
        resolve(["m", "--table", "n"], LOOSE)
    with pytest.raises(Refused, match="--tabel is not a setting: did you mean --table"):
        resolve(["--tabel", "m"], LOOSE)


def test_what_comes_first_without_a_name_is_told_the_name_that_it_lacks() -> None:
    """`masklake toy masks`, as `masklake browse masks`."""

    class Named(BaseModel):
        model_config = ConfigDict(extra="forbid")
        table: Uri = Field(description="the table")
        columns: Names = Field((), description="several")

    named = Program("masklake named", Named, {"all": Named}, about="", examples={})
    with pytest.raises(Refused, match=r"^'masks' belongs to no setting: say --table masks$"):
        resolve(["masks", "--columns", "a"], named)
    with pytest.raises(Refused, match=r"^'b' belongs to no setting: put a setting's name before its value"):
        resolve(["--table", "t", "--columns", "a", "b"], named)


def test_a_misspelt_yaml_key_is_refused_with_the_nearest_name() -> None:
    Path("toy.yaml").write_text("tabel: t\nquux: 1\n", encoding="utf-8")
    assert refusal("--config", "toy.yaml") == [
        "'tabel' in toy.yaml is not a setting: did you mean 'table'?",
        "'quux' in toy.yaml is not a setting; `--help` lists them",
    ]


@pytest.mark.parametrize("content", ["- a\n", "a: [1\n", "table\n", "\xff"])
def test_a_file_that_holds_no_settings_is_refused(content: str) -> None:
    Path("toy.yaml").write_bytes(content.encode("latin-1"))
    assert refusal("--config", "toy.yaml")[0].startswith("--config toy.yaml: ")


def test_a_misspelt_variable_is_refused_and_one_of_another_command_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLAKE_ROWSPERFILE", "4")
    assert refusal(*TABLE) == ["MASKLAKE_ROWSPERFILE in the environment is not a setting: did you mean MASKLAKE_ROWS_PER_FILE?"]
    monkeypatch.delenv("MASKLAKE_ROWSPERFILE")
    monkeypatch.setenv("MASKLAKE_TARGET_MB", "4")
    assert resolve(TABLE, TOY, lambda: ["target_mb"]).table == "t"


def test_what_other_variables_the_sources_read_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [file for file in (ROOT / "pipeline").rglob("*.py") if file.parent.name != "config"]
    read = {name.lower() for file in files for name in re.findall(r'"MASKLAKE_([A-Z_]+)"', file.read_text(encoding="utf-8"))}
    assert read | {"config"} == OTHERS
    said: list[str] = []
    monkeypatch.setenv("MASKLAKE_CACHE", "/models")
    assert resolve(TABLE, TOY, tuple, said.append).table == "t"
    assert said == []
    monkeypatch.setenv("MASKLAKE_CACH", "/models")
    monkeypatch.setenv("MASKLAKE_CONFIGG", "run.yaml")
    assert refusal(*TABLE) == [
        f"MASKLAKE_{wrong} in the environment is not a setting: did you mean MASKLAKE_{wrong[:-1] if wrong[-1] == 'G' else wrong + 'E'}?"
        for wrong in ("CACH", "CONFIGG")
    ]


def test_a_variable_that_resembles_no_setting_is_ignored_aloud_and_what_a_cluster_sets_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    for name in ("QUUX", "SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT", "PORT_8265_TCP_ADDR", "HEAD_SVC_SERVICE_PORT"):
        monkeypatch.setenv(f"MASKLAKE_{name}", "1")
    assert resolve(TABLE, TOY, tuple, said.append).table == "t"
    assert said == ["MASKLAKE_QUUX in the environment is not a setting of any command: it is ignored"]


def test_a_sentence_on_several_settings_says_which_of_them_stand_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLAKE_ROWS_PER_FILE", "13")
    assert refusal(*TABLE) == ["--rows-per-file 13 brings bad luck (--rows-per-file stands in the environment)"]
    assert refusal(*TABLE, "--rows-per-file", "13") == ["--rows-per-file 13 brings bad luck"]


def test_no_message_repeats_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLAKE_SINCE", "s3://me:hunter2@lake")
    monkeypatch.setenv("MASKLAKE_SECRETS", "hunter2")
    assert "hunter2" not in "".join(refusal(*TABLE))
