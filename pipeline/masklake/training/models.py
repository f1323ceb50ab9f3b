"""The model that learns: a checkpoint with a class head for the data's labels, or one from scratch; and its loss.

The four families differ in the names of a few parts, which `PARTS` has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from masklake.errors import Refused
from masklake.inference import labels as label_names
from masklake.inference import model_config, preprocess, processors, released, splits, tokens, weights
from masklake.inference.families import FAMILIES, PROCESSORS, model_class
from masklake.inference.files import read_json, stored_tensors, weight_files
from masklake.spelling import plural
from masklake.training import matching
from masklake.training.examples import Size

_IGNORED = 255  # pixels without truth, in SegFormer's loss, where no label has this id
_NO_LABEL = -100  # else: the value that torch ignores by default


@dataclass(frozen=True)
class Parts:
    """Names of a family's parts in its state."""

    head: str
    """The class head, up to `.weight` and `.bias`; its rows are the labels."""
    backbone: str
    nothing_row: bool = True
    """Whether the head's last row is "no object"."""
    loss: Mapping[str, str] = field(default_factory=dict)
    """Setting of the loss -> its name in the family's configuration."""


_ENCODER = "model.pixel_level_module.encoder."
_POINT_LOSS = {"class_weight": "class_weight", "no_object_weight": "no_object_weight", "points": "train_num_points"}
_DENSE_LOSS = {"class_weight": "cross_entropy_weight", "no_object_weight": "no_object_weight"}
PARTS: Mapping[str, Parts] = {
    "mask2former": Parts("class_predictor", _ENCODER, loss=_POINT_LOSS),
    "maskformer": Parts("class_predictor", _ENCODER, loss=_DENSE_LOSS),
    "oneformer": Parts("model.transformer_module.decoder.class_embed", _ENCODER, loss=_POINT_LOSS),
    "segformer": Parts("decode_head.classifier", "segformer.", nothing_row=False),
}


@dataclass(frozen=True)
class Start:
    """What a model is begun from."""

    config: Mapping[str, Any]
    """As in config.json."""
    folder: Path | None = None
    """Of a checkpoint with this configuration; none: from scratch."""
    backbone: Path | None = None
    """From scratch: a checkpoint whose backbone is taken."""
    tokenizer: Path | None = None
    """OneFormer: the folder of its tokenizer."""
    name: str = ""
    """What the user called the checkpoint, or the file; messages do so, too."""
    labels: Mapping[int, str] = field(default_factory=dict)
    """Of the checkpoint; empty where nothing names them."""

    @property
    def family(self) -> str:
        """Key of `PARTS`."""
        return str(self.config.get("model_type"))

    @property
    def pretrained_backbone(self) -> bool:
        """Whether the backbone has learned before."""
        return self.folder is not None or self.backbone is not None


@dataclass(frozen=True)
class Learner:
    """A model with what is to be said of its beginning."""

    module: Any
    family: str
    new: tuple[str, ...]
    """Names of the weights that begin at random."""
    kept_labels: tuple[str, ...]
    """Labels whose row of the class head was taken over, by name."""


def start(folder: Path | None, config_file: Path | None, backbone: Path | None, tokenizer: Path | None, name: str = "") -> Start:
    """What to begin from: a checkpoint in `folder`, which the user called `name`, or the configuration in `config_file`.

    Raises:
        Refused: it is of a family that is not trained here, or parts are missing.
    """
    name = name or str(config_file or folder)
    if config_file is not None:
        config = model_config.checked(read_json(config_file, f"{config_file}: there is no such file"), name)
    else:
        config = model_config.read(folder or Path(), name)
    family, texts = str(config["model_type"]), tokenizer or folder
    if family not in PARTS:
        raise Refused(f"{name}: model_type {family!r} cannot be trained here; these can: {', '.join(PARTS)}")
    if family == "oneformer":
        if texts is None:
            raise Refused("--tokenizer is missing: OneFormer learns from texts, give a folder with a CLIP tokenizer (tokenizer.json)")
        tokens.check_files(texts, config, f"--tokenizer {texts}" if tokenizer else name)
    return Start(config, folder, backbone, texts, name, _labels_of(folder, config, name) if folder else {})


def _labels_of(folder: Path, config: Mapping[str, Any], name: str) -> Mapping[int, str]:
    """The checkpoint's labels, whose rows of the class head may be taken over by name; none where nothing says them."""
    told, classes = released.told(name, folder, config), model_config.classes(config, stored_tensors(folder, name))
    try:
        return label_names.of_checkpoint(config, classes, told.dataset, None, name)[0]
    except Refused:
        return {}


def with_loss(begin: Start, asked: Mapping[str, float | None]) -> Start:
    """The same with these settings of the loss, by the names of `Parts.loss`; None leaves the configuration's own.

    Raises:
        Refused: the family's loss has no such setting.
    """
    names = PARTS[begin.family].loss
    given = {name: value for name, value in asked.items() if value is not None}
    if unknown := [name for name in given if name not in names]:
        flag = f"--{unknown[0].replace('_', '-')}"
        have = ", ".join(f"--{name.replace('_', '-')}" for name in names) or "none of them"
        raise Refused(f"{flag} {given[unknown[0]]:g}: the loss of {begin.family} has no such setting (it has {have}); leave it out")
    return replace(begin, config={**begin.config, **{names[name]: value for name, value in given.items()}})


def build(begin: Start, labels: Mapping[int, str], thing_ids: frozenset[int], seed: int) -> Learner:
    """The model in float32 on the CPU, in training mode, with a class head for `labels`.

    From a checkpoint, every weight is taken over but those of the head; of the head, the row of "no object" and those of labels that the
    checkpoint has by name.

    Raises:
        Refused: the checkpoint's weights do not fit its configuration, or the backbone's do not fit the model.
    """
    torch.manual_seed(seed)
    module = weights.construct(model_class(FAMILIES[begin.family]), _config(begin, labels, thing_ids), begin.name)
    if begin.family == "oneformer":
        # As published. By transformers' deviation of 0.02, queries are nearly one and the same: in training, dropout tells them apart, and
        # the model learns to rely on it; answering, without dropout, it finds next to nothing.
        torch.nn.init.normal_(module.model.transformer_module.queries_embedder.weight)
    state = module.state_dict()
    kept: tuple[str, ...] = ()
    old: dict[str, torch.Tensor] = {}
    if begin.folder is not None:
        old = _weights_of(begin, begin.folder, set(state))
        old, kept = _with_head(old, state, PARTS[begin.family], begin.labels, labels)
    elif begin.backbone is not None:
        old = _backbone(begin.backbone, module, PARTS[begin.family].backbone)
    fitting = {name: value for name, value in old.items() if name in state and state[name].shape == value.shape}
    module.load_state_dict(fitting, strict=False)
    new = sorted(weights.needed_weights(module, (name for name, _ in module.named_parameters() if name not in fitting)))
    head = PARTS[begin.family].head
    if kept and f"{head}.weight" not in new and set(kept) != set(labels.values()):
        new += [f"{head}.weight (rows of {', '.join(label for label in labels.values() if label not in kept)})"]
    matching.together(module)
    module.train()
    return Learner(module, begin.family, tuple(new), kept)


def _config(begin: Start, labels: Mapping[int, str], thing_ids: frozenset[int]) -> Any:
    config = model_config.build(begin.config, len(labels), begin.name)
    config.id2label = dict(labels)
    config.label2id = {label: index for index, label in labels.items()}
    config.thing_ids = sorted(thing_ids)
    if begin.family == "oneformer":
        config.is_training = True
    if begin.family == "segformer":
        config.semantic_loss_ignore_index = _IGNORED if len(labels) <= _IGNORED else _NO_LABEL
    return config


def _weights_of(begin: Start, folder: Path, wanted: set[str]) -> dict[str, torch.Tensor]:
    """A checkpoint's state by today's names; what it keeps for training alone is read from its files."""
    state: dict[str, torch.Tensor] = dict(weights.load(folder, name=begin.name).state_dict())
    for path in weight_files(folder, begin.name):
        with safe_open(path, framework="pt") as file:
            state |= {name: file.get_tensor(name) for name in file.keys() if name in wanted - set(state)}  # noqa: SIM118 - no mapping
    return state


def _with_head(
    old: dict[str, torch.Tensor], new: Mapping[str, torch.Tensor], parts: Parts, old_labels: Mapping[int, str], labels: Mapping[int, str]
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """The old state with a head of the new shape: old rows where a label has them by name or by COCO's synonyms, else the new model's
    random ones."""
    by_name = {label: index for index, label in old_labels.items()}
    alike = Counter(splits.plain(label) for label in old_labels.values())
    otherwise = {name: index for index, label in old_labels.items() if alike[name := splits.plain(label)] == 1}
    found = {index: by_name.get(label, otherwise.get(splits.plain(label))) for index, label in labels.items()}
    rows = {index: row for index, row in found.items() if row is not None}
    result = {name: value for name, value in old.items() if not name.startswith("criterion.empty_weight")}
    for ending in (".weight", ".bias"):
        name = parts.head + ending
        head = new[name].clone()
        for index, old_index in rows.items():
            head[index] = old[name][old_index]
        if parts.nothing_row:
            head[-1] = old[name][-1]
        result[name] = head
    if not rows:  # "no object" alone is nothing to speak of
        return result, ()
    return result, tuple(labels[index] for index in sorted(rows))


def _backbone(folder: Path, module: Any, prefix: str) -> dict[str, torch.Tensor]:
    """The weights of the checkpoint in `folder`, a classifier or a segmenter, that are the model's backbone, by the model's names.

    Raises:
        Refused: a weight of the backbone, other than the norms of its outputs, is not there in its shape.
    """
    part, name = module.get_submodule(prefix.removesuffix(".")), f"--backbone {folder}"
    with weights.slices(folder, name) as found:
        inner = {key.removeprefix(_ENCODER): value for key, value in found.items() if key.startswith(_ENCODER)} or found
        loaded, info = weights.from_pretrained(type(part), part.config, inner, name)
    needed = weights.needed_weights(part, part.state_dict())
    absent = {key for key in info["missing_keys"] if not _optional(key)} | {key for key, *_ in info["mismatched_keys"]}
    if missing := sorted(absent & needed):
        raise Refused(
            f"{name}: of the backbone's {plural(len(needed), 'weight')}, {len(missing):,} not there in its shape "
            f"({', '.join(missing[:3])}, ...): backbone_config in --model-config-file must be that checkpoint's"
        )
    return {prefix + key: value for key, value in loaded.state_dict().items() if key in needed and key not in info["missing_keys"]}


def _optional(name: str) -> bool:
    """What an image classifier does not have: the norms of a Swin's outputs; and a count that nothing reads."""
    return name.startswith("hidden_states_norms.") or name.endswith("num_batches_tracked")


def preprocessor(begin: Start, size: Size | None) -> dict[str, Any]:
    """The image processor's settings of the new checkpoint: the old one's, or the family's defaults, at `size` where it is given.

    Raises:
        Refused: the checkpoint's cannot be used.
    """
    family = FAMILIES[begin.family]
    kind = f"{family.processor}ImageProcessor"
    if begin.folder is not None:
        settings, _ = processors.settings(begin.folder, begin.config, family, begin.name)
    else:
        settings = dict(PROCESSORS[family.processor])
    if size is not None:
        settings["size"] = {"height": size[0], "width": size[1]}
        for name in ("size_divisor", "max_size", "ensure_multiple_of", "do_center_crop", "crop_size"):
            settings.pop(name, None)
        settings["default_to_square"] = True
    return {"image_processor_type": kind, **settings, "ignore_index": _IGNORED}


def queries(begin: Start) -> int | None:
    """How many objects an image may have at most for each to have a query; None of a model without queries."""
    config = _config(begin, {0: "", 1: ""}, frozenset())
    found = getattr(config, "num_queries", None) or getattr(getattr(config, "decoder_config", None), "num_queries", None)
    return None if found is None else int(found)


def crop_size(plan: preprocess.ResizePlan, asked: Size | None, family: str) -> Size:
    """The size that is trained on: as asked for, else the model's input, squared where its longer side is open.

    Raises:
        Refused: the model does not take it.
    """
    found = asked or (plan.size if plan.rule in ("exact", "within") else (plan.size[0], plan.size[0]))
    if plan.rule == "keep" and asked is None:
        raise Refused("--crop is missing: the checkpoint takes images of any size, and training needs one")
    divisor = FAMILIES[family].divisor
    padded = tuple(-(-side // divisor) * divisor for side in found)
    return padded[0], padded[1]


def loss(
    learner: Learner, pixel_values: torch.Tensor, masks: list[torch.Tensor], label_ids: list[torch.Tensor], **texts: Any
) -> torch.Tensor:
    """The family's published loss of a micro-batch, a scalar.

    Args:
        learner: the model.
        pixel_values: float [N, 3, H, W].
        masks: of each image bool [n, H, W].
        label_ids: of each image int64 [n].
        texts: OneFormer's `task_inputs` and `text_inputs`.
    """
    if learner.family == "segformer":
        ignored = learner.module.config.semantic_loss_ignore_index
        labels = torch.stack([_label_map(mask, ids, ignored) for mask, ids in zip(masks, label_ids, strict=True)])
        if (labels == ignored).all():  # the mean over no pixel is not a number: there is nothing to learn here
            nothing: torch.Tensor = learner.module(pixel_values=pixel_values).logits.sum() * 0.0
            return nothing
        found: torch.Tensor = learner.module(pixel_values=pixel_values, labels=labels).loss
        return found
    if learner.family == "maskformer":
        texts = {"output_hidden_states": learner.module.config.use_auxiliary_loss}  # which its auxiliary loss needs, and does not ask for
    targets = [mask.to(pixel_values.dtype) for mask in masks]
    outputs = learner.module(pixel_values=pixel_values, mask_labels=targets, class_labels=label_ids, **texts)
    total: torch.Tensor = outputs.loss
    return total.squeeze()


def _label_map(masks: torch.Tensor, label_ids: torch.Tensor, ignored: int) -> torch.Tensor:
    """int64 [H, W]: the label of each pixel; where masks overlap, the last one's."""
    labels = torch.full(masks.shape[1:], ignored, dtype=torch.int64, device=masks.device)
    for mask, label in zip(masks, label_ids, strict=True):
        labels[mask] = label
    return labels


def parameter_groups(learner: Learner, rate: float, backbone_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for AdamW, each with its `peak` rate: the backbone's own, and no decay of biases, norms and embeddings, as published for
    Mask2Former. Weights that do not learn are in none.
    """
    prefix = PARTS[learner.family].backbone
    undecayed = {
        f"{name}.{parameter}" if name else parameter
        for name, part in learner.module.named_modules()
        for parameter, _ in part.named_parameters(recurse=False)
        if isinstance(part, torch.nn.Embedding | torch.nn.LayerNorm | torch.nn.GroupNorm | torch.nn.BatchNorm2d)
        or parameter.endswith("bias")
    }
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in learner.module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith(prefix), name not in undecayed), []).append(parameter)
    return [
        {"params": parameters, "peak": rate * (backbone_rate if backbone else 1.0), "weight_decay": weight_decay if decayed else 0.0}
        for (backbone, decayed), parameters in groups.items()
    ]


def freeze(learner: Learner, backbone: bool, norms: bool) -> None:
    """Leave the backbone, or its batch normalisation alone, as it is; to be called after every `module.train()`."""
    prefix = PARTS[learner.family].backbone
    for name, part in learner.module.named_modules():
        if f"{name}.".startswith(prefix) and (backbone or (norms and isinstance(part, torch.nn.BatchNorm2d))):
            part.eval()
            for parameter in part.parameters(recurse=False):
                parameter.requires_grad_(False)
