"""The released checkpoints: what each was trained for, which most say in their names and cards only.

Names of repositories are patterns (`*` stands for sizes and backbones). A copy is known by the repository's name in its path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from masklake.inference.families import ALL_TASKS, INSTANCE, PANOPTIC, SEMANTIC

SOURCE, TASKS = "masklake_source", "masklake_tasks"
"""Keys that masklake writes into config.json: the repository that a checkpoint was converted from; what it was fine-tuned for."""

_COCO, _ADE20K, _CITYSCAPES, _MAPILLARY, _VOC = "COCO", "ADE20K", "Cityscapes", "Mapillary Vistas", "Pascal VOC"

NAMED = "what --concepts names"
"""In place of a dataset: the model has no classes of its own."""


@dataclass(frozen=True)
class Released:
    """Checkpoints of one kind."""

    kind: str
    repositories: str
    dataset: str
    tasks: tuple[str, ...]


RELEASED = (
    Released("Mask2Former", "facebook/mask2former-*-coco-panoptic", _COCO, ALL_TASKS),
    Released("Mask2Former", "facebook/mask2former-*-coco-instance", _COCO, (INSTANCE,)),
    Released("Mask2Former", "facebook/mask2former-*-ade-panoptic", _ADE20K, ALL_TASKS),
    Released("Mask2Former", "facebook/mask2former-*-ade-instance", _ADE20K, (INSTANCE,)),
    Released("Mask2Former", "facebook/mask2former-*-ade-semantic", _ADE20K, (SEMANTIC,)),
    Released("Mask2Former", "facebook/mask2former-*-cityscapes-panoptic", _CITYSCAPES, ALL_TASKS),
    Released("Mask2Former", "facebook/mask2former-*-cityscapes-instance", _CITYSCAPES, (INSTANCE,)),
    Released("Mask2Former", "facebook/mask2former-*-cityscapes-semantic", _CITYSCAPES, (SEMANTIC,)),
    Released("Mask2Former", "facebook/mask2former-*-mapillary-vistas-panoptic", _MAPILLARY, ALL_TASKS),
    Released("Mask2Former", "facebook/mask2former-*-mapillary-vistas-semantic", _MAPILLARY, (SEMANTIC,)),
    Released("OneFormer", "shi-labs/oneformer_coco_swin_*", _COCO, ALL_TASKS),
    Released("OneFormer", "shi-labs/oneformer_ade20k_swin_*", _ADE20K, ALL_TASKS),
    Released("OneFormer", "shi-labs/oneformer_cityscapes_swin_*", _CITYSCAPES, ALL_TASKS),
    Released("MaskFormer", "facebook/maskformer-swin-*-coco", _COCO, ALL_TASKS),
    Released("MaskFormer", "facebook/maskformer-swin-*-ade", _ADE20K, (SEMANTIC,)),
    Released("MaskFormer", "facebook/maskformer-resnet*-ade", _ADE20K, (SEMANTIC,)),
    Released("MaskFormer", "facebook/maskformer-resnet*-ade20k-full", "ADE20K, 847 classes", (SEMANTIC,)),
    Released("MaskFormer", "facebook/maskformer-resnet*-cityscapes", _CITYSCAPES, (SEMANTIC,)),
    Released("MaskFormer", "facebook/maskformer-resnet*-coco-stuff", "COCO-Stuff", (SEMANTIC,)),
    Released("MaskFormer", "facebook/maskformer-resnet*-vistas", _MAPILLARY, (SEMANTIC,)),
    Released("EoMT", "tue-mps/coco_panoptic_eomt_*", _COCO, ALL_TASKS),
    Released("EoMT", "tue-mps/coco_instance_eomt_*", _COCO, (INSTANCE,)),
    Released("EoMT", "tue-mps/ade20k_panoptic_eomt_*", _ADE20K, ALL_TASKS),
    Released("EoMT", "tue-mps/ade20k_semantic_eomt_*", _ADE20K, (SEMANTIC,)),
    Released("EoMT", "tue-mps/cityscapes_semantic_eomt_*", _CITYSCAPES, (SEMANTIC,)),
    Released("EoMT, DINOv3", "tue-mps/eomt-dinov3-coco-panoptic-*", _COCO, ALL_TASKS),
    Released("EoMT, DINOv3", "tue-mps/eomt-dinov3-coco-instance-*", _COCO, (INSTANCE,)),
    Released("EoMT, DINOv3", "tue-mps/eomt-dinov3-ade*-semantic-*", _ADE20K, (SEMANTIC,)),
    Released("DETR", "facebook/detr-resnet-*-panoptic", _COCO, ALL_TASKS),
    Released("SegFormer", "nvidia/segformer-*-finetuned-ade-*", _ADE20K, (SEMANTIC,)),
    Released("SegFormer", "nvidia/segformer-*-finetuned-cityscapes-*", _CITYSCAPES, (SEMANTIC,)),
    Released("UperNet", "openmmlab/upernet-swin-*", _ADE20K, (SEMANTIC,)),
    Released("UperNet", "openmmlab/upernet-convnext-*", _ADE20K, (SEMANTIC,)),
    Released("BEiT", "microsoft/beit-*-finetuned-ade-640-640", _ADE20K, (SEMANTIC,)),
    Released("DPT", "Intel/dpt-large-ade", _ADE20K, (SEMANTIC,)),
    Released("SAM 3", "facebook/sam3", NAMED, (INSTANCE,)),
    Released("DeepLabV3", "google/deeplabv3_mobilenet_v2_*", _VOC, (SEMANTIC,)),
)

_DATASET_WORDS = {"coco": _COCO, "ade": _ADE20K, "ade20k": _ADE20K, "cityscapes": _CITYSCAPES, "vistas": _MAPILLARY}
_TRAINED_ON = re.compile(r"trained (?:end-to-end )?on (?:the )?([\w .-]{2,40}?) (panoptic|instance|semantic)\b", re.IGNORECASE)
_CARD_READ = 6000  # characters: the sentence is among the first


@dataclass(frozen=True)
class Told:
    """What a checkpoint was trained for."""

    tasks: tuple[str, ...] = ()
    """Empty where nothing tells."""
    dataset: str = ""


def told(name: str, folder: Path, config: Mapping[str, Any]) -> Told:
    """What the checkpoint that the user called `name` was trained for.

    By what masklake wrote into config.json, by the table of the released ones, by the words in its name, by its model card.
    """
    written = config.get(TASKS)
    own = Told(tuple(task for task in ALL_TASKS if isinstance(written, list) and task in written))
    names = [given for given in (config.get(SOURCE), name, str(folder.resolve())) if isinstance(given, str) and given]
    repositories = [_repository(given) for given in names]
    found = [Told(each.tasks, each.dataset) for owner, last in repositories for each in RELEASED if _is(each, owner, last)]
    evidence = [own, *found[:1], *(_by_words(last) for _, last in repositories), _by_card(folder / "README.md")]
    if isinstance(config.get("thing_ids"), list):  # which masklake writes, of data with things and stuff
        evidence.append(Told(ALL_TASKS))
    tasks = next((each.tasks for each in evidence if each.tasks), ())
    return Told(tasks, next((each.dataset for each in evidence if each.dataset), ""))


_VERSIONS = re.compile(r"v?\d[\w.]*|[0-9a-f]{40}|snapshots|main|latest|model|checkpoint(-\d+)?|", re.IGNORECASE)


def _repository(name: str) -> tuple[str, str]:
    """(owner, repository) as a hub id, a path or a URI holds them at its end: `x@main`, `facebook--x`, `.../facebook/x/v1`."""
    hub_id = re.fullmatch(r"([\w.-]+/[\w.-]+)@.+", name)
    pieces = re.split(r"[/\\]", hub_id[1] if hub_id else name.partition("://")[2] or name)
    while len(pieces) > 1 and _VERSIONS.fullmatch(pieces[-1]):
        pieces.pop()
    piece = pieces[-1].removeprefix("models--")
    owner, dashes, last = piece.partition("--")
    return (owner, last) if dashes else (pieces[-2] if len(pieces) > 1 else "", piece)


def _is(released: Released, owner: str, repository: str) -> bool:
    """Whether it is one of these; a copy keeps the repository's name, and may have lost the owner's."""
    known, _, pattern = released.repositories.partition("/")
    return fnmatchcase(repository, pattern) and (owner == known or owner not in _OWNERS)


_OWNERS = {each.repositories.partition("/")[0] for each in RELEASED}


def _by_words(name: str) -> Told:
    """By the one task and the dataset that a name says, as in `mine-cityscapes-semantic`."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    tasks = {word for word in words if word in ALL_TASKS}
    task = tasks.pop() if len(tasks) == 1 else ""
    return Told(_tasks(task), next((_DATASET_WORDS[word] for word in words if word in _DATASET_WORDS), ""))


def _by_card(card: Path) -> Told:
    """By the sentence that the released checkpoints' cards begin with: "trained on COCO panoptic segmentation"."""
    try:
        with card.open(encoding="utf-8", errors="replace") as file:
            found = _TRAINED_ON.search(" ".join(file.read(_CARD_READ).split()))
    except OSError:
        return Told()
    return Told(_tasks(found[2].lower()), _by_words(found[1]).dataset) if found else Told()


def _tasks(task: str) -> tuple[str, ...]:
    """What a model does that was trained for `task`: panoptic training teaches all three."""
    return ALL_TASKS if task == PANOPTIC else (task,) if task else ()
