"""A checkpoint folder: what it is and can do, told from its JSON files alone; where it comes from; its weights, loaded with care.

Importing this module, and `describe`, load neither torch nor transformers: the driver tells within a moment what is wrong with a model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from masklake.errors import Refused
from masklake.inference import splits
from masklake.inference.families import FAMILIES, INSTANCE, PANOPTIC, PROCESSORS, SEMANTIC, Family, check_backbone
from masklake.inference.files import read_json, weight_files
from masklake.inference.hub import resolve_hub
from masklake.inference.options import POSTPROCESS_VERSION, Options
from masklake.inference.preprocess import Frame, ResizePlan, plan_from_processor
from masklake.inference.segments import Settings

__all__ = ["ModelDescription", "describe", "licence_of", "load", "processor_settings", "resolve_hub", "verify"]

_FROM_SETTING = "--thing-labels"
_BINARY = ("segformer",)  # families whose single label is learned by a binary loss


@dataclass(frozen=True)
class ModelDescription:
    """Everything that a run needs to know of its checkpoint besides the weights; small and picklable."""

    family: str
    """Key of `families.FAMILIES`."""
    tasks: tuple[str, ...]
    """What the checkpoint can do, of panoptic, instance, semantic."""
    labels: Mapping[int, str]
    thing_ids: frozenset[int]
    """Empty where no split is known, which only semantic work allows: then no segment is a thing."""
    things_from: str
    """Where the split comes from: the checkpoint's file, a dataset's name, a setting; empty where there is none."""
    dataset: str
    """The known dataset whose labels these are, or empty."""
    resize: ResizePlan
    frame: Frame
    settings: Settings
    postprocess: Literal["exact", "hf"]
    asked: Mapping[str, float]
    """Thresholds that the user set, by their names in `Options`; `hf` takes these, and else transformers' own defaults."""
    digest: str
    """sha256 (hex) over configuration, preprocessor settings and weights."""
    licence: str
    """As the checkpoint's model card says it, or empty."""
    notes: tuple[str, ...]
    """What the user should be told at the start: decisions that the checkpoint left open."""

    def answer_settings(self, task: str) -> dict[str, Any]:
        """Everything, as JSON, that changes the answers to `task` for one image: it goes into the fingerprint."""
        answer: dict[str, Any] = {
            "checkpoint": self.digest,
            "task": task,
            "resize": asdict(self.resize) | {"size": list(self.resize.size), "mean": list(self.resize.mean), "std": list(self.resize.std)},
            "frame": asdict(self.frame),
            "things": sorted(self.thing_ids),
            "postprocess": self.postprocess,
            "postprocess_version": POSTPROCESS_VERSION,
        }
        if task == SEMANTIC and len(self.labels) == 1:
            answer["single_label"] = "sigmoid at 0.5"
        names = {PANOPTIC: ("object_threshold", "overlap_threshold", "mask_threshold"), INSTANCE: ("score_threshold", "max_instances")}
        values = asdict(replace(self.settings, labels={}, thing_ids=frozenset())) if self.postprocess == "exact" else dict(self.asked)
        return answer | {name: values[name] for name in names.get(task, ()) if name in values}


def describe(folder: Path, options: Options) -> ModelDescription:
    """Tell what the checkpoint in `folder` is and settle how it will be used; reads JSON and hashes the weights.

    Raises:
        Refused: it is none, of no known family, cannot do a task of `options`, has only pickled weights, or leaves open what is a thing.
    """
    config = read_json(folder / "config.json", f"{folder} holds no checkpoint: it has no config.json")
    model_type = str(config.get("model_type"))
    if model_type not in FAMILIES:
        raise Refused(f"{folder}: model_type {model_type!r} is none of the known families {', '.join(sorted(FAMILIES))}")
    family = FAMILIES[model_type]
    _check_class(folder, config, family)
    check_backbone(config)
    weights = weight_files(folder)
    labels = _labels(folder, config)
    dataset = splits.identify(labels)
    processor, notes = processor_settings(folder, config, family)
    thing_ids, things_from = _things(folder, config, processor, labels, dataset, options)
    tasks = _tasks(folder, family, processor, labels, thing_ids, things_from)
    _check_tasks(folder, model_type, tasks, options, things_from)
    _check_single_label(folder.name, model_type, labels, options)
    plan, frame = _geometry(config, family, processor, dataset, options)
    return ModelDescription(
        family=model_type,
        tasks=tasks,
        labels=labels,
        thing_ids=thing_ids,
        things_from=things_from,
        dataset=dataset.name if dataset else "",
        resize=plan,
        frame=frame,
        settings=_settings(family, labels, thing_ids, dataset, options),
        postprocess=options.postprocess,
        asked=_asked(options),
        digest=_digest(folder, [*_json_files(folder, family), *weights]),
        licence=licence_of(folder),
        notes=tuple(notes),
    )


def load(description: ModelDescription, folder: Path, device: str = "cpu", dtype: str = "float32") -> Any:
    """The model as a torch module in evaluation mode; see `weights.load`."""
    from masklake.inference import weights

    return weights.load(description.family, folder, device, dtype)


def verify(description: ModelDescription, folder: Path) -> None:
    """Check that every weight of the model is there in its shape, without reading the weights; see `weights.verify`."""
    from masklake.inference import weights

    weights.verify(description.family, folder)


def _check_class(folder: Path, config: Mapping[str, Any], family: Family) -> None:
    """A backbone or a detector may share `model_type` with a segmenter."""
    architectures = config.get("architectures") or [family.model_class]
    if family.model_class not in architectures:
        found = ", ".join(architectures)
        raise Refused(f"{folder} is a {found}, which makes no masks; the segmentation model of its family is {family.model_class}")


def _labels(folder: Path, config: Mapping[str, Any]) -> dict[int, str]:
    labels = {int(key): str(value) for key, value in (config.get("id2label") or {}).items()}
    if not labels:
        raise Refused(f"{folder}: config.json names no labels (id2label)")
    if set(labels) != set(range(len(labels))):
        raise Refused(f"{folder}: the ids of id2label in config.json are not 0 to {len(labels) - 1} without holes")
    return dict(sorted(labels.items()))


def processor_settings(folder: Path, config: Mapping[str, Any], family: Family) -> tuple[dict[str, Any], list[str]]:
    """The image processor's settings with transformers' defaults filled in, and what to tell the user.

    Raises:
        Refused: the processor is of an unknown kind.
    """
    written: dict[str, Any] = {}
    if (folder / "preprocessor_config.json").is_file():
        written = read_json(folder / "preprocessor_config.json", "")
    elif (folder / "processor_config.json").is_file():
        written = read_json(folder / "processor_config.json", "").get("image_processor") or {}
    if not written:
        return _processor_by_family(config, family)
    kind = str(written.get("image_processor_type") or written.get("feature_extractor_type") or family.processor)
    name = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", kind)
    if name not in PROCESSORS:
        known = ", ".join(f"{stem}ImageProcessor" for stem in PROCESSORS)
        raise Refused(f"{folder}: image processor {kind} is not known here; known are {known}")
    settings = PROCESSORS[name] | {key: value for key, value in written.items() if value is not None}
    notes = []
    if settings.get("do_center_crop"):
        notes.append("the checkpoint's centre crop is left out: it would leave parts of an image without an answer")
    return settings, notes


def _processor_by_family(config: Mapping[str, Any], family: Family) -> tuple[dict[str, Any], list[str]]:
    """Without preprocessor settings: the family's defaults, at the input size that config.json names."""
    settings = dict(PROCESSORS[family.processor])
    side = config.get("image_size")
    if isinstance(side, int) and family.fixed_input != "pad":
        # DeepLab resizes the longer side to its input size and keeps the aspect (`resize_ratio` of its demo); the others take squares
        settings["size"] = {"max_height": side, "max_width": side} if family.processor == "MobileNetV2" else {"height": side, "width": side}
    note = f"the checkpoint has no preprocessor_config.json: its family's defaults are used ({plan_from_processor(settings).describe()})"
    return settings, [note]


def _things(
    folder: Path,
    config: Mapping[str, Any],
    processor: Mapping[str, Any],
    labels: Mapping[int, str],
    dataset: splits.Dataset | None,
    options: Options,
) -> tuple[frozenset[int], str]:
    """Which labels are things, and who says so: the checkpoint, else its dataset, else the user."""
    thing_ids, source = _things_of_checkpoint(folder, config, processor)
    if thing_ids is None and dataset is not None:
        thing_ids, source = dataset.thing_ids, f"{dataset.name}'s labels"
    if thing_ids is not None and not thing_ids <= set(labels):
        raise Refused(f"{folder}: {source} calls ids {sorted(thing_ids - set(labels))} things, which id2label does not have")
    if options.thing_labels is None:
        return (frozenset(), "") if thing_ids is None else (thing_ids, source)
    unknown = [label for label in options.thing_labels if label not in labels.values()]
    if unknown:
        raise Refused(f"{_FROM_SETTING} {','.join(unknown)}: not among the model's labels {', '.join(labels.values())}")
    asked = frozenset(label_id for label_id, label in labels.items() if label in options.thing_labels)
    if thing_ids is not None and thing_ids != asked:
        things = ", ".join(labels[label_id] for label_id in sorted(thing_ids)) or "none"
        raise Refused(f"{_FROM_SETTING} contradicts {source}, where things are {things}: leave it out")
    return asked, _FROM_SETTING


def _things_of_checkpoint(folder: Path, config: Mapping[str, Any], processor: Mapping[str, Any]) -> tuple[frozenset[int] | None, str]:
    """`thing_ids` of config.json, the metadata in the preprocessor settings, or OneFormer's class file in the folder."""
    if isinstance(config.get("thing_ids"), list):
        return frozenset(int(value) for value in config["thing_ids"]), "config.json (thing_ids)"
    metadata = processor.get("metadata") or {}
    if isinstance(metadata, dict) and isinstance(metadata.get("thing_ids"), list):
        return frozenset(int(value) for value in metadata["thing_ids"]), "the preprocessor's metadata"
    name = processor.get("class_info_file")
    if name and (folder / Path(str(name)).name).is_file():
        info = read_json(folder / Path(str(name)).name, "")
        return frozenset(int(key) for key, entry in info.items() if entry["isthing"]), Path(str(name)).name
    return None, ""


def _tasks(
    folder: Path, family: Family, processor: Mapping[str, Any], labels: Mapping[int, str], thing_ids: frozenset[int], things_from: str
) -> tuple[str, ...]:
    """What this checkpoint can do, of what its family can: published ones are named after what they were trained for."""
    if processor.get("do_split_image"):
        return (SEMANTIC,)  # EoMT's windows see parts of objects
    named = _trained_for(folder)
    if SEMANTIC in family.tasks and (named == SEMANTIC or (things_from and not thing_ids)):
        return (SEMANTIC,)
    if len(thing_ids) == len(labels) and family.tasks != (SEMANTIC,):
        return (INSTANCE,)  # no class for what lies between the objects
    if named == INSTANCE and INSTANCE in family.tasks:
        return (INSTANCE,)
    return family.tasks


def _trained_for(folder: Path) -> str:
    """The one task in the checkpoint's name, as in facebook/mask2former-swin-large-ade-semantic; empty where it names none."""
    cached = [
        part for part in folder.resolve().parts if part.startswith("models--")
    ]  # of the hub's cache: models--owner--name/snapshots/...
    name = cached[-1].split("--")[-1] if cached else folder.resolve().name
    named = {word for word in re.split(r"[^a-z0-9]+", name.lower()) if word in (PANOPTIC, INSTANCE, SEMANTIC)}
    return named.pop() if len(named) == 1 else ""


def _check_tasks(folder: Path, model_type: str, tasks: tuple[str, ...], options: Options, things_from: str) -> None:
    impossible = [task for task in options.tasks if task not in tasks]
    if impossible:
        raise Refused(f"{folder.name} ({model_type}) cannot do {', '.join(impossible)}: this checkpoint can do {', '.join(tasks)}")
    if not things_from and any(task != SEMANTIC for task in options.tasks):
        needing = " and ".join(task for task in options.tasks if task != SEMANTIC)
        raise Refused(
            f"{folder.name} does not say which of its labels are things (countable), as {needing} needs, and they are not those of COCO, "
            f"ADE20K or Cityscapes: name them with {_FROM_SETTING}, or as thing_ids in its config.json"
        )


def _check_single_label(name: str, model_type: str, labels: Mapping[int, str], options: Options) -> None:
    """The likeliest of one label is that label, everywhere. Of per-pixel models, SegFormer alone has a loss for one."""
    if SEMANTIC in options.tasks and len(labels) == 1 and (model_type not in _BINARY or options.postprocess == "hf"):
        (label,) = labels.values()
        cure = "leave out --postprocess hf" if model_type in _BINARY else "leave semantic out of --tasks"
        raise Refused(f"{name} has {label!r} as its only label, and so its semantic answer would be {label!r} at every pixel: {cure}")


def _geometry(
    config: Mapping[str, Any], family: Family, processor: dict[str, Any], dataset: splits.Dataset | None, options: Options
) -> tuple[ResizePlan, Frame]:
    """How images are resized and padded for this checkpoint at the asked resolution."""
    try:
        plan = plan_from_processor(processor)
    except ValueError as error:
        raise Refused(f"the checkpoint's preprocessor settings cannot be used: {error}") from None
    plan = _at_resolution(plan, dataset, options.resolution)
    if not family.fixed_input:
        return plan, Frame(divisor=family.divisor)
    side = config.get("image_size") or 0
    side = side[0] if isinstance(side, list) else int(side)
    windows = bool(processor.get("do_split_image"))
    frame = Frame(square=side, windows=windows, black=family.fixed_input == "pad")
    if windows and (plan.rule != "edges" or plan.size != (side, 0)):
        window = f"slides a window of {side}x{side} over images whose shortest side is {side}"
        raise Refused(f"--resolution {options.resolution}: this checkpoint {window}: leave it out")
    if windows or (plan.rule == "exact" and plan.size == (side, side) and not plan.keep_aspect):
        return plan, frame
    fits = plan.size if plan.rule in ("exact", "within") else (plan.size[1] or side + 1,) * 2
    if family.fixed_input == "exact" or plan.rule == "keep" or max(fits) > side:
        takes = f"this model takes {side}x{side} pixels, not {plan.describe()}"
        raise Refused(f"--resolution {options.resolution}: {takes}; use --resolution {side}x{side}")
    return plan, frame


def _at_resolution(plan: ResizePlan, dataset: splits.Dataset | None, resolution: str) -> ResizePlan:
    """The plan with another size; the checkpoint's filter and normalisation stay."""
    if resolution == "checkpoint":
        return plan
    if resolution == "reference":
        if dataset is None:
            raise Refused(
                "--resolution reference: the model's labels are not those of COCO, ADE20K or Cityscapes, of which test sizes are known"
            )
        return replace(plan, rule="edges", size=dataset.reference, multiple=1, keep_aspect=False)
    exact, edges = re.fullmatch(r"(\d+)x(\d+)", resolution), re.fullmatch(r"(\d+)/(\d+)", resolution)
    found = exact or edges
    if not found or not all(int(number) for number in found.groups()):
        raise Refused(f"--resolution {resolution}: use checkpoint, reference, HEIGHTxWIDTH such as 384x384, or SHORT/LONG such as 800/1333")
    size = int(found[1]), int(found[2])
    return replace(plan, rule="exact" if exact else "edges", size=size, multiple=1, keep_aspect=False)


def _settings(
    family: Family, labels: Mapping[int, str], thing_ids: frozenset[int], dataset: splits.Dataset | None, options: Options
) -> Settings:
    defaults = {
        "object_threshold": family.object_thresholds.get(dataset.name if dataset else "", family.object_threshold),
        "overlap_threshold": family.overlap_threshold,
    }
    return Settings(labels=labels, thing_ids=thing_ids, **{**defaults, **_asked(options)})  # type: ignore[arg-type]


def _asked(options: Options) -> dict[str, float]:
    thresholds = {name: getattr(options, name) for name in ("object_threshold", "overlap_threshold", "score_threshold")}
    return {name: value for name, value in thresholds.items() if value is not None} | {"max_instances": options.max_instances}


def _json_files(folder: Path, family: Family) -> list[Path]:
    """The files besides the weights that answers depend on."""
    names = ("config.json", "preprocessor_config.json", "processor_config.json", *family.extra_files)
    return [folder / name for name in names if (folder / name).is_file()]


def _digest(folder: Path, files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as file:
            digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def licence_of(folder: Path) -> str:
    """`license:` (or `license_name:`) of the model card's front matter; empty where there is none."""
    card = folder / "README.md"
    if not card.is_file():
        return ""
    head = card.read_text(encoding="utf-8", errors="replace").split("\n---", 1)[0]
    found = re.search(r"^license_name:\s*(\S.*)$", head, re.MULTILINE) or re.search(r"^license:\s*(\S.*)$", head, re.MULTILINE)
    return found[1].strip() if found else ""
