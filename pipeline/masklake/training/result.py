"""What a run leaves: a checkpoint folder with its model card, which `masklake segment --model` and transformers take as it is."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from masklake import storage
from masklake.inference import checkpoint, weights
from masklake.inference.checkpoint import ModelDescription
from masklake.inference.families import FAMILIES
from masklake.inference.options import Options
from masklake.spelling import plural, visible
from masklake.training.curves import svg
from masklake.training.examples import DataSet
from masklake.training.models import Learner, Start

CARD, CURVES, LOG = "README.md", "curves.svg", "training.jsonl"


def write_checkpoint(learner: Learner, begin: Start, preprocessor: Mapping[str, Any], folder: Path) -> None:
    """Write the model as it is: config.json with labels and thing ids, model.safetensors, preprocessor_config.json, a tokenizer's files."""
    config = learner.module.config
    training = getattr(config, "is_training", None)
    if training is not None:
        config.is_training = False  # the checkpoint is for answering; its weights have the text mapper all the same
    try:
        with weights.quiet():
            learner.module.save_pretrained(folder)
    finally:
        if training is not None:
            config.is_training = training
    (folder / "preprocessor_config.json").write_text(json.dumps(dict(preprocessor), indent=2) + "\n")
    if learner.family == "oneformer" and begin.tokenizer is not None:
        for name in FAMILIES["oneformer"].extra_files:
            if (begin.tokenizer / name).is_file():
                shutil.copy(begin.tokenizer / name, folder / name)


def publish(folder: Path, output: str) -> None:
    """Copy a checkpoint folder into the output, config.json last: without it, nobody takes the folder for a checkpoint."""
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.name == "config.json")
    for path in files:
        storage.upload_file(path, f"{output}/{path.relative_to(folder)}")


def write_story(folder: Path, history: Sequence[Mapping[str, Any]], card: str) -> None:
    """Write what tells of the run: the model card, the curves, and the lines of the log."""
    (folder / CARD).write_text(card, encoding="utf-8")
    (folder / CURVES).write_text(svg(history), encoding="utf-8")
    (folder / LOG).write_text("".join(json.dumps(dict(line)) + "\n" for line in history), encoding="utf-8")


def card(begin: Start, base: str, data: DataSet, sizes: tuple[int, int], asked: Mapping[str, Any], best: Mapping[str, Any] | None) -> str:
    """The model card: data, classes, scores, settings, and the base's licence, under which the result stands as well."""
    licence = checkpoint.licence_of(begin.folder or begin.backbone) if begin.pretrained_backbone else ""  # type: ignore[arg-type]
    head = [
        "---",
        *([f"license: {json.dumps(licence)}"] if licence else []),
        "pipeline_tag: image-segmentation",
        "library_name: transformers",
        "---",
    ]
    scores = (
        ", ".join(f"{name} {value:.4f}" for name, value in best.items() if name != "step") + f" (after {plural(best['step'], 'step')})"
        if best
        else "none: nothing was held out, these are the weights of the last step"
    )
    rows = [
        ("started from", base),
        ("licence of that", licence or "not stated by it: find out before you share this model"),
        ("data", data.source),
        ("examples", f"{sizes[0]} learned from, {sizes[1]} held out"),
        ("left out", "; ".join(f"{count} {what}" for what, count in data.skipped.items()) or "nothing"),
        ("validation", scores),
    ]
    classes = [
        f"| {index} | {_in_cell(label)} | {'thing' if index in data.thing_ids else 'stuff'} | {data.counts.get(index, 0)} |"
        for index, label in data.labels.items()
    ]
    settings = "\n".join(f"    {name}: {visible(str(value))}" for name, value in asked.items())
    table = "\n".join(f"| {name} | {_in_cell(value)} |" for name, value in rows)
    return (
        "\n".join(head)
        + f"\n# A segmentation model trained by masklake\n\n| | |\n|---|---|\n{table}\n\n"
        + "## Classes\n\n| id | label | kind | examples |\n|---|---|---|---|\n"
        + "\n".join(classes)
        + f"\n\n## Settings\n\n{settings}\n\n![curves]({CURVES})\n"
    )


def _in_cell(text: str) -> str:
    """Text of data or a base model, in a cell of a table in Markdown."""
    return visible(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def describe(learner: Learner, begin: Start, preprocessor: Mapping[str, Any], tasks: tuple[str, ...]) -> ModelDescription:
    """How `masklake segment` would use the model.

    Of a process group, the first member alone can do this: transformers lets no other one write a checkpoint.

    Raises:
        Refused: it would not take the checkpoint, for any of `tasks`.
    """
    with tempfile.TemporaryDirectory(prefix="masklake-model-") as scratch:
        write_checkpoint(learner, begin, preprocessor, Path(scratch))
        return checkpoint.describe(Path(scratch), Options(tasks=tasks))
