"""A checkpoint folder: what it is and can do, told from its JSON files alone; where it comes from; its weights, loaded with care.

Importing this module, and `describe`, load neither torch nor transformers: the driver tells within a moment what is wrong with a model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from masklake.errors import Refused
from masklake.inference import labels as label_names
from masklake.inference import model_config, processors, released, splits, tokens
from masklake.inference.families import FAMILIES, INSTANCE, PANOPTIC, SEMANTIC, Family
from masklake.inference.files import SAFETENSORS_INDEX, read_json, stored_tensors, weight_files
from masklake.inference.options import POSTPROCESS_VERSION, Options
from masklake.inference.preprocess import Frame, ResizePlan
from masklake.inference.segments import Settings

if TYPE_CHECKING:
    from masklake.inference.model_input import ModelInput  # torch

__all__ = ["ModelDescription", "describe", "licence_of", "load", "verify"]

CONCEPTS = "--concepts"
_FROM_SETTING = "--thing-labels"
_CONCEPT_TOKENS = 32  # that SAM 3 reads, where the checkpoint does not say
_BINARY = ("segformer",)  # families whose single label is learned by a binary loss


@dataclass(frozen=True)
class ModelDescription:
    """Everything that a run needs to know of its checkpoint besides the weights; small and picklable."""

    name: str
    """As the user named the checkpoint; messages call it so."""
    family: str
    """Key of `families.FAMILIES`."""
    tasks: tuple[str, ...]
    """What the checkpoint can do, of panoptic, instance, semantic."""
    labels: Mapping[int, str]
    named_labels: bool
    """Whether the checkpoint names them itself, or the user as `concepts`."""
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
    concepts: tuple[str, ...] = ()
    """What a model that is told looks for: its labels, in their order; empty for others."""

    def asked_of(self, item: ModelInput) -> tuple[str, ...]:
        """What the model itself is asked for one image: its tasks, or concepts."""
        return (item.concepts or self.concepts) if self.concepts else item.tasks

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
        if self.concepts:
            del answer["things"]  # all of them
            answer["concepts"] = list(self.concepts)
        if task == SEMANTIC and len(self.labels) == 1:
            answer["single_label"] = "sigmoid at 0.5"
        if not self.named_labels:
            answer["labels"] = list(self.labels.values())
        names = {PANOPTIC: ("object_threshold", "overlap_threshold", "mask_threshold"), INSTANCE: ("score_threshold", "max_instances")}
        values = asdict(replace(self.settings, labels={}, thing_ids=frozenset())) if self.postprocess == "exact" else dict(self.asked)
        return answer | {name: values[name] for name in names.get(task, ()) if name in values}


def describe(folder: Path, options: Options, name: str = "") -> ModelDescription:
    """Tell what the checkpoint in `folder` is and settle how it will be used; reads JSON and headers, and hashes the weights.

    Refusals call it `name`, as the user did, or its folder.

    Raises:
        Refused: it is none, of no known family, cannot do a task of `options`, is damaged, or leaves open what is a thing.
    """
    name = name or str(folder)
    config = model_config.read(folder, name)
    family = FAMILIES[config["model_type"]]
    stored = stored_tensors(folder, name)
    told = released.told(name, folder, config)
    if concepts := asked_concepts(family, options, name):
        labels, from_elsewhere = concepts, ""
    else:
        labels, from_elsewhere = label_names.of_checkpoint(config, model_config.classes(config, stored), told.dataset, options.labels, name)
    dataset = None if concepts else splits.identify(labels)
    processor, notes = processors.settings(folder, config, family, name)
    thing_ids, things_from = (
        (frozenset(labels), CONCEPTS) if concepts else _things(folder, config, processor, labels, dataset, options, name)
    )
    tasks, untold = _tasks(family, processor, labels, thing_ids, things_from, told)
    _check_tasks(name, config["model_type"], tasks, options, things_from)
    _check_single_label(name, config["model_type"], labels, options)
    if family.vocabulary:
        tokens.check_files(folder, config, name, family.vocabulary)
    plan, frame = _geometry(config, family, processor, dataset, options, name)
    return ModelDescription(
        name=name,
        family=config["model_type"],
        tasks=tasks,
        labels=labels,
        named_labels=not from_elsewhere,
        concepts=tuple(concepts.values()),
        thing_ids=thing_ids,
        things_from=things_from,
        dataset=dataset.name if dataset else "",
        resize=plan,
        frame=frame,
        settings=_settings(family, labels, thing_ids, dataset, options),
        postprocess=options.postprocess,
        asked=_asked(options),
        digest=_digest(folder, _digested(folder, family, name)),
        licence=licence_of(folder),
        notes=tuple(note for note in (from_elsewhere, untold, *notes) if note),
    )


def load(description: ModelDescription, folder: Path, device: str = "cpu", dtype: str = "float32") -> Any:
    """The model as a torch module in evaluation mode; see `weights.load`."""
    from masklake.inference import sparing, weights

    return sparing.tried(lambda: weights.load(folder, device, dtype, description.name, description.settings))


def verify(description: ModelDescription, folder: Path) -> None:
    """Check that every weight of the model is there in its shape, without reading the weights; see `weights.verify`."""
    from masklake.inference import sparing, weights

    sparing.tried(lambda: weights.verify(folder, description.name))
    if description.concepts:
        text = model_config.read(folder, description.name).get("text_config") or {}
        tokenizer = tokens.Tokenizer(folder, text.get("vocab_size") or tokens.CLIP, description.name)
        for concept in description.concepts:
            tokens.of_concept(tokenizer, concept, text.get("max_position_embeddings") or _CONCEPT_TOKENS)


def asked_concepts(family: Family, options: Options, name: str) -> dict[int, str]:
    """Label id -> concept, in alphabetical order, so that the order in which they were said changes nothing; empty for other families.

    Raises:
        Refused: there are none and the family is told what to look for; there are some and it is not; or what else was set does not fit.
    """
    if not family.prompted:
        if options.concepts:
            raise Refused(f"{CONCEPTS}: {name} knows classes of its own, and takes none by name: leave it out, or use facebook/sam3")
        return {}
    if not options.concepts:
        raise Refused(f'{name} looks for what it is told: name it with {CONCEPTS}, as in {CONCEPTS} "person,yellow school bus"')
    for value, flag in ((options.labels, "--labels"), (options.thing_labels, _FROM_SETTING)):
        if value is not None:
            raise Refused(f"{flag}: the labels of {name} are what {CONCEPTS} names, and all are things: leave it out")
    if options.postprocess == "hf":
        raise Refused(f"--postprocess hf: transformers' own for {name} needs torchvision, which is not used here: leave it out")
    return dict(enumerate(sorted(options.concepts)))


def _things(
    folder: Path,
    config: Mapping[str, Any],
    processor: Mapping[str, Any],
    labels: Mapping[int, str],
    dataset: splits.Dataset | None,
    options: Options,
    name: str,
) -> tuple[frozenset[int], str]:
    """Which labels are things, and who says so: the checkpoint, else its dataset, else the user."""
    thing_ids, source = _things_of_checkpoint(folder, config, processor, name)
    if thing_ids is None and dataset is not None:
        thing_ids, source = dataset.thing_ids, f"{dataset.name}'s labels"
    if thing_ids is not None and not thing_ids <= set(labels):
        raise Refused(f"{name}: {source} calls ids {sorted(thing_ids - set(labels))} things, which id2label does not have")
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


def _things_of_checkpoint(
    folder: Path, config: Mapping[str, Any], processor: Mapping[str, Any], name: str
) -> tuple[frozenset[int] | None, str]:
    """`thing_ids` of config.json, the metadata in the preprocessor settings, or OneFormer's class file in the folder."""
    metadata = processor.get("metadata")
    for owner, source in ((config, "config.json (thing_ids)"), (metadata, "the preprocessor's metadata")):
        ids = owner.get("thing_ids") if isinstance(owner, dict) else None
        if isinstance(ids, list):
            if not all(isinstance(each, int) for each in ids):
                raise Refused(f"{name}: thing_ids in {source} must be whole numbers")
            return frozenset(ids), source
    file = Path(str(processor.get("class_info_file") or "")).name
    if file and (folder / file).is_file():
        info = read_json(folder / file, "", name)
        try:
            return frozenset(int(key) for key, entry in info.items() if entry["isthing"]), file
        except (ValueError, KeyError, TypeError):
            raise Refused(f"{name}: {file} must say of each class whether it is a thing, as {{'0': {{'isthing': 1}}}}") from None
    return None, ""


def _tasks(
    family: Family,
    processor: Mapping[str, Any],
    labels: Mapping[int, str],
    thing_ids: frozenset[int],
    things_from: str,
    told: released.Told,
) -> tuple[tuple[str, ...], str]:
    """What this checkpoint can do, of what its family can, and what to tell the user where nothing says what it was trained for."""
    if processor.get("do_split_image"):
        return (SEMANTIC,), ""  # EoMT's windows see parts of objects
    if family.tasks == (SEMANTIC,) or told.tasks == (SEMANTIC,) or (things_from and not thing_ids):
        return (SEMANTIC,), ""
    if len(thing_ids) == len(labels):
        return (INSTANCE,), ""  # no class for what lies between the objects
    if told.tasks or family.forward_per_task:
        return told.tasks or family.tasks, ""
    return family.tasks, (
        "neither the model's name nor its card says what it was trained for: if that was semantic work alone, its panoptic and instance "
        "answers are meaningless"
    )


def _check_tasks(name: str, model_type: str, tasks: tuple[str, ...], options: Options, things_from: str) -> None:
    impossible = [task for task in options.tasks if task not in tasks]
    if impossible:
        raise Refused(f"{name} ({model_type}) cannot do {', '.join(impossible)}: this checkpoint can do {', '.join(tasks)}")
    if not things_from and any(task != SEMANTIC for task in options.tasks):
        needing = " and ".join(task for task in options.tasks if task != SEMANTIC)
        raise Refused(
            f"{name} does not say which of its labels are things (countable), as {needing} needs, and they are not those of COCO, "
            f"ADE20K, Cityscapes or Mapillary Vistas: name them with {_FROM_SETTING}, or as thing_ids in its config.json"
        )


def _check_single_label(name: str, model_type: str, labels: Mapping[int, str], options: Options) -> None:
    """The likeliest of one label is that label, everywhere. Of per-pixel models, SegFormer alone has a loss for one."""
    if SEMANTIC in options.tasks and len(labels) == 1 and (model_type not in _BINARY or options.postprocess == "hf"):
        (label,) = labels.values()
        cure = "leave out --postprocess hf" if model_type in _BINARY else "leave semantic out of --tasks"
        raise Refused(f"{name} has {label!r} as its only label, and so its semantic answer would be {label!r} at every pixel: {cure}")


def _geometry(
    config: Mapping[str, Any], family: Family, processor: dict[str, Any], dataset: splits.Dataset | None, options: Options, name: str
) -> tuple[ResizePlan, Frame]:
    """How images are resized and padded for this checkpoint at the asked resolution."""
    plan = _at_resolution(processors.plan(processor, name), dataset, options.resolution)
    if not family.fixed_input:
        return plan, Frame(divisor=family.divisor)
    side = config.get("image_size") or 0
    side = side[0] if isinstance(side, list) and side else side
    if not isinstance(side, int):
        raise Refused(f"{name}: image_size in config.json must be a whole number, not {config['image_size']!r}")
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
                "--resolution reference: the model's labels are not those of COCO, ADE20K, Cityscapes or Mapillary Vistas, whose test "
                "sizes are known"
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
        "score_threshold": family.score_threshold,
    }
    return Settings(labels=labels, thing_ids=thing_ids, **{**defaults, **_asked(options)})  # type: ignore[arg-type]


def _asked(options: Options) -> dict[str, float]:
    thresholds = {name: getattr(options, name) for name in ("object_threshold", "overlap_threshold", "score_threshold")}
    return {name: value for name, value in thresholds.items() if value is not None} | {"max_instances": options.max_instances}


def _digested(folder: Path, family: Family, name: str) -> list[Path]:
    """The files that answers depend on."""
    files = ("config.json", "preprocessor_config.json", "processor_config.json", SAFETENSORS_INDEX, *family.extra_files)
    return [*weight_files(folder, name), *(folder / file for file in files if (folder / file).is_file())]


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
