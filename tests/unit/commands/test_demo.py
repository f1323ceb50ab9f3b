"""`masklake demo` before it begins: what it would replace in the folder must be its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from masklake.commands import demo
from masklake.errors import Refused


def test_a_table_of_the_users_own_is_not_replaced(tmp_path: Path) -> None:
    """`--output .` where `masks` is what README's own command left there."""
    (tmp_path / "masks").mkdir()
    with pytest.raises(Refused, match=r"--output \S+: holds masks, which no demonstration left there: name another folder"):
        demo.check(tmp_path)
    (tmp_path / "report.json").write_text(json.dumps({"table": "s3://bucket/masks"}))
    with pytest.raises(Refused, match=r"holds masks, report.json, which"):
        demo.check(tmp_path)
    (tmp_path / "report.json").write_text(json.dumps({"table": demo.TABLE}))
    demo.check(tmp_path)
    demo.check(tmp_path / "new")
    assert (tmp_path / "new").is_dir()


def test_a_folder_that_cannot_be_made_is_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="--output"):
        demo.check(tmp_path / "file" / "demo")
