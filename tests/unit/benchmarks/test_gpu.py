from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.benchmarks.gpu import __main__ as benchmark
from jobs.benchmarks.gpu import part, speed

ROOT = Path(__file__).parents[3]


def measured(parts: str, tmp_path: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'pipeline'}:{ROOT}")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(benchmark, "_LONGEST", dict.fromkeys(benchmark._LONGEST, 400.0))  # a busy machine takes longer than a GPU's
    process = benchmark._process

    def here(part_of: str, given: argparse.Namespace, scratch: Path, written: Path, *more: Any) -> int | None:
        """A part in this process, which has imported what it needs; one of them in its own, as all have where there is a GPU."""
        if part_of == "training":
            return process(part_of, given, scratch, written, *more)
        measurements = importlib.import_module(f"jobs.benchmarks.gpu.{part_of}").MEASUREMENTS
        return part.run(measurements, benchmark._passed_on(given, scratch, written))

    monkeypatch.setattr(benchmark, "_process", here)
    output = tmp_path / "gpu.json"
    benchmark.main(["--device", "cpu", "--small", "--minutes", "40", "--parts", parts, "--output", str(output), *arguments])
    found: dict[str, Any] = json.loads(output.read_text())["parts"]
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)  # half a minute where nothing else runs
def test_every_family_and_model_is_measured_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured("correctness,speed,processes,training", tmp_path, monkeypatch=monkeypatch)
    assert not [(part, name, one) for part, those in found.items() for name, one in those.items() if "result" not in one]
    assert found["correctness"]["families"]["result"].keys() == {"mask2former", "upernet", "sam3"}
    for answers in (*found["correctness"]["families"]["result"].values(), found["correctness"]["demo"]["result"]):
        same = answers["float32"]
        assert same["segments"] == same["found"] > 0
        assert same["moved"] == 0
    assert found["speed"].keys() == speed.MEASUREMENTS.keys()
    sized = [one["result"] for name, one in found["speed"].items() if not name.endswith("details")]
    assert len(sized) == len({case.model for case in speed.CASES}) + 4
    for one in sized:
        assert one["everything, panoptic, 1 caller"] > 0
        assert one["ms an image by stage"].keys() == {"to the device", "forward", "segments and run lengths"}
    assert found["processes"]["processes that share the device"]["result"]["2 processes, images a second"] > 0
    assert found["training"]["demo"]["result"]["2"]["backward, ms"] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_real_job_is_measured_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured("job", tmp_path, monkeypatch=monkeypatch)["job"]
    assert len(found) == 5
    assert {name for name, one in found.items() if "skipped" in one["result"]} == {"without CUDA graphs", "two actors on the device"}
    for one in (each for each in found.values() if "skipped" not in each["result"]):
        assert one["result"]["exit"] == 0, one
        assert one["result"]["told"]["images"] == one["result"]["images"]


DYING = """
import os, sys, time
from jobs.benchmarks.gpu import part
def dies(asked): os._exit(7)
def raises(asked): raise ValueError("no")
def sleeps(asked):
    if not os.path.exists(asked.scratch / "awake"):
        (asked.scratch / "asleep").touch()
        time.sleep(600)
sys.exit(part.run({"first": lambda asked: 1, "dies": dies, "raises": raises, "sleeps": sleeps, "last": lambda asked: asked.images}))
"""


class Patience(dict[str, float]):
    """A moment for what sleeps, and for the rest more than a busy machine needs to start a process."""

    def __init__(self, asleep: Path) -> None:
        super().__init__()
        self._asleep = asleep

    def __missing__(self, part: str) -> float:
        return 1.0 if self._asleep.exists() else 300.0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_dies_fails_or_takes_too_long_costs_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dying.py").write_text(DYING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT / "pipeline"), str(ROOT)]))

    def program(part: str) -> list[str]:
        (tmp_path / "asleep").unlink(missing_ok=True)
        return [sys.executable, str(tmp_path / f"{part}.py")]

    monkeypatch.setattr(benchmark, "_program", program)
    monkeypatch.setattr(benchmark, "_LONGEST", Patience(tmp_path / "asleep"))
    arguments = benchmark._parser().parse_args(["--device", "cpu", "--images", "5"])
    kept: list[set[str]] = []
    found = benchmark._measured("dying", arguments, tmp_path, 500, lambda there: kept.append(set(there)))
    assert found["first"]["result"] == 1
    assert found["dies"]["failed"] == part.UNENDED
    assert found["raises"]["failed"] == "ValueError: no"
    assert found["sleeps"]["failed"] == part.UNENDED
    assert found["last"]["result"] == 5
    assert any("last" not in there for there in kept)  # while it goes on
    (tmp_path / "awake").touch()
    found = benchmark._measured("dying", arguments, tmp_path, 500, lambda _: None, again=True)
    assert found["first"]["result"] == 1
    assert "result" in found["sleeps"]
    assert found["raises"]["failed"] == "ValueError: no"
