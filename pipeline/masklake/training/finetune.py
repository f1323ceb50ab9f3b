"""One run of `masklake finetune`, from settings to a published checkpoint: what is decided before any work, and what each worker does.

Where workers run and how they are fed is `flow`'s; nothing here knows Ray.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from masklake import storage
from masklake.errors import MasklakeError, Refused, Say, first_line, unsaid
from masklake.evaluation.scoring import Scoring
from masklake.inference import processors, released
from masklake.inference import source as model_source
from masklake.inference.families import ALL_TASKS, FAMILIES, INSTANCE, PANOPTIC, SEMANTIC
from masklake.inference.limits import is_out_of_memory
from masklake.inference.preprocess import ResizePlan
from masklake.inference.segmenter import Segmenter
from masklake.inference.source import ModelSource
from masklake.schema import Task
from masklake.spelling import plural
from masklake.table.place import check_outside_tables
from masklake.training import models, result, sources
from masklake.training.augment import Augmentation
from masklake.training.batches import Recipe
from masklake.training.examples import MEND, BadExample, DataSet, Example, Size, load_image
from masklake.training.loop import Feed, Tell, Training
from masklake.training.models import Learner, Start
from masklake.training.oneformer import TextInputs
from masklake.training.settings import DataConfig, FinetuneConfig, LearningConfig, ModelConfig
from masklake.training.state import State, Store
from masklake.training.team import Team
from masklake.training.validate import HeldOut, Scores, judge
from masklake.truth.classes import classes_for, read_mapping
from masklake.truth.settings import TruthConfig

_SCORES = {PANOPTIC: "pq", SEMANTIC: "miou", INSTANCE: "ap"}  # of the first that a model does, the best weights are told
_OF_THE_LOSS = ("class_weight", "no_object_weight", "points")
_DIGESTED = ("validation_images_most",)  # of the work's settings, those that change what is kept as the best


@dataclass(frozen=True)
class Prepared:
    """Everything that is settled before the work: small but for the data, and picklable."""

    settings: FinetuneConfig
    training: DataSet
    held_out: DataSet
    begin: Start
    model: ModelSource | None
    backbone: ModelSource | None
    preprocessor: dict[str, Any]
    plan: ResizePlan
    crop: Size
    tasks: tuple[str, ...]
    """What the new checkpoint can do, of panoptic, instance, semantic."""
    digest: str
    """Of the examples and of where the model comes from."""
    sizes: tuple[int, int]
    """How many examples are learned from, and held out."""

    def without_examples(self) -> Prepared:
        """The same, small: what workers are given, who get their examples otherwise."""
        return replace(self, training=replace(self.training, examples=()), held_out=replace(self.held_out, examples=()))

    @property
    def asked(self) -> dict[str, Any]:
        """What decides the weights that come out: a state of other values is not gone on from."""
        named = [name for model in (TruthConfig, DataConfig, ModelConfig, LearningConfig) for name in model.model_fields]
        values = self.settings.model_dump(mode="json")
        return {name: values[name] for name in [*named, *_DIGESTED]} | {"micro_batch_size": self.settings.micro, "data_digest": self.digest}

    @property
    def recipe(self) -> Recipe:
        """How micro-batches are made."""
        given = self.settings
        return Recipe(
            seed=given.seed,
            batch=given.batch_size,
            micro=given.micro,
            augmentation=Augmentation(self.plan, self.crop, given.flip, given.scale_min, given.scale_max),
            tasks=self.tasks if self.begin.family == "oneformer" else (),
            thing_ids=self.training.thing_ids,
            skip_bad=given.bad_examples == "skip",
        )

    @property
    def best_by(self) -> str:
        """The score by which the best weights are told."""
        return next(score for task, score in _SCORES.items() if task in self.tasks)


def prepare(settings: FinetuneConfig, say: Say = unsaid) -> Prepared:
    """Read the data and the model's configuration, and settle everything else; `say` takes what the user should know of it.

    Raises:
        Refused: the data, the model or a setting is wrong, or they do not fit each other.
    """
    settings = settings.model_copy(update={"output": storage.normalise(settings.output).rstrip("/")})
    model = _resolved(settings.model, "--model", say)
    backbone = _resolved(settings.backbone, "--backbone", say)
    tokenizer = _resolved(settings.tokenizer, "--tokenizer", say)
    config_file = Path(settings.model_config_file) if settings.model_config_file else None
    fetched = [_fetched(source, say) for source in (model, backbone, tokenizer)]
    begin = models.start(fetched[0], config_file, fetched[1], fetched[2], settings.model or "")
    begin = models.with_loss(begin, {name: getattr(settings, name) for name in _OF_THE_LOSS})
    preprocessor = models.preprocessor(begin, _size(settings.resolution))
    plan = processors.plan(preprocessor, begin.name)
    training, held_out = sources.read(settings, FAMILIES[begin.family].tasks == (SEMANTIC,))
    tasks = _tasks(begin.family, training)
    if settings.norm == "auto":
        settings = settings.model_copy(update={"norm": "frozen" if begin.pretrained_backbone else "train"})
    crop = models.crop_size(plan, _size(settings.crop), begin.family)
    digest = hashlib.sha256(repr((training, held_out, model, backbone)).encode()).hexdigest()[:16]
    sizes = len(training.examples), len(held_out.examples)
    return Prepared(settings, training, held_out, begin, model, backbone, preprocessor, plan, crop, tasks, digest, sizes)


def _resolved(name: str | None, setting: str, say: Say) -> ModelSource | None:
    """Where a model comes from; folders by their whole paths, since a worker of Ray Train has a working directory of its own."""
    if name is None:
        return None
    source = model_source.resolve(name, setting, say, weights=setting != "--tokenizer")
    return replace(source, name=str(Path(name).resolve())) if source.kind == "folder" else source


def _fetched(source: ModelSource | None, say: Say = unsaid) -> Path | None:
    return None if source is None else source.fetch(say)


def _size(text: str | None) -> Size | None:
    if text is None:
        return None
    height, width = text.split("x")
    return int(height), int(width)


def _tasks(family: str, data: DataSet) -> tuple[str, ...]:
    """What a model with these labels can do, as `checkpoint.describe` will find."""
    if data.reader.by_class:
        return (SEMANTIC,)
    return (INSTANCE,) if len(data.thing_ids) == len(data.labels) else ALL_TASKS


def plan(prepared: Prepared) -> dict[str, Any]:
    """What would be trained, for `--dry-run`: builds the model, which also checks its weights, and starts nothing.

    Raises:
        Refused: the model cannot be built, or the output holds another run.
    """
    learner = _learner(prepared)
    settings, training = prepared.settings, prepared.training
    done = Store(settings.output, prepared.asked).check()
    parameters = list(learner.module.parameters())
    frozen = sum(parameter.numel() for parameter in parameters if not parameter.requires_grad)
    return {
        "outcome": "planned",
        "output": storage.normalise(settings.output),
        "family": learner.family,
        "tasks": list(prepared.tasks),
        "examples": len(training.examples),
        "held_out": len(prepared.held_out.examples),
        "classes": {label: training.counts.get(index, 0) for index, label in training.labels.items()},
        "things": [training.labels[index] for index in sorted(training.thing_ids)],
        "truth": training.read_as,
        "left_out": left_out(prepared),
        "input": prepared.plan.describe(),
        "crop": list(prepared.crop),
        "parameters": sum(parameter.numel() for parameter in parameters),
        "parameters_frozen": frozen,
        "new_weights": _shortened(learner.new),
        "labels_taken_over": list(learner.kept_labels),
        "steps": settings.steps,
        "steps_done": done,
        "remarks": list(remarks(prepared)),
        "epochs": round(settings.steps * settings.batch_size / len(training.examples), 2),
    }


def left_out(prepared: Prepared) -> dict[str, int]:
    """Why something of the data is not learned from, or not judged by -> how often."""
    told = {what: count for what, count in prepared.training.skipped.items() if count}
    told |= {f"held out: {what}": count for what, count in prepared.held_out.skipped.items() if count}
    if unknown := sources.unknown_classes(prepared.training, prepared.held_out):
        told[f"held out: classes that the training has not, which count as missed ({', '.join(unknown[:20])})"] = len(unknown)
    return told


def remarks(prepared: Prepared) -> Iterator[str]:
    """A sentence for everything that the model cannot learn of its data."""
    queries = models.queries(prepared.begin)
    if queries is not None:
        images, most = sources.more_than(prepared.training, queries)
        if images:
            yield (
                f"{plural(images, 'of the images has', 'of the images have')} more objects than the model has queries "
                f"({most} at most, and {queries}): of those that are in a crop together, "
                "some are not learned; num_queries in the model's configuration decides, or a smaller --crop"
            )


def _shortened(names: tuple[str, ...]) -> list[str]:
    return list(names) if len(names) <= 8 else [*names[:8], f"and {len(names) - 8} more"]


def finished(prepared: Prepared) -> bool:
    """Whether the output holds the finished checkpoint of this very run.

    Raises:
        Refused: it holds another run, or a checkpoint that no such run has written.
    """
    output = prepared.settings.output
    storage.check_output(output, "--output")
    check_outside_tables(output)
    done = step_of(prepared)
    published = storage.exists(f"{output}/config.json")
    if published and not done:
        raise Refused(f"--output {output}: holds a checkpoint already: give the new one a folder of its own")
    return published and done >= prepared.settings.steps


def step_of(prepared: Prepared) -> int:
    """The step that the run goes on from, 0 for a new one.

    Raises:
        Refused: the output holds another run.
    """
    return Store(prepared.settings.output, prepared.asked).check()


def _learner(prepared: Prepared) -> Learner:
    begin = _on_this_node(prepared)
    learner = models.build(begin, prepared.training.labels, prepared.training.thing_ids, prepared.settings.seed)
    setattr(learner.module.config, released.TASKS, list(prepared.tasks))
    models.freeze(learner, prepared.settings.freeze_backbone, prepared.settings.norm == "frozen")
    return learner


def _on_this_node(prepared: Prepared) -> Start:
    """The start with the model's files here: a worker may be on another machine than the driver."""
    folder = _fetched(prepared.model)
    tokenizer = folder if prepared.begin.tokenizer == prepared.begin.folder else prepared.begin.tokenizer
    return replace(prepared.begin, folder=folder, backbone=_fetched(prepared.backbone), tokenizer=tokenizer)


def work(
    prepared: Prepared,
    held_out: list[Example],
    feed: Feed,
    team: Team,
    tell: Tell,
    stop: Callable[[], bool] = lambda: False,
    device: torch.device | None = None,
) -> None:
    """What each worker does: train to the end, and, the first of them, publish the checkpoint.

    Args:
        prepared: of the run; its `training.examples` are not needed here.
        held_out: the examples that all workers judge together.
        feed: gives this worker its micro-batches.
        team: who it works with.
        tell: takes the lines of progress; those of the first worker count.
        stop: whether to save the state and end; asked after each step, and before each forward pass of a validation.
        device: where it is computed; None: on the GPU where there is one.

    Raises:
        MasklakeError: training cannot go on.
    """
    settings = prepared.settings
    device = device or best_device()
    held_out = held_out[: settings.validation_images_most]
    begin, learner = _on_this_node(prepared), _learner(prepared)
    described = result.describe(learner, begin, prepared.preprocessor, prepared.tasks) if team.rank == 0 else None
    segmenter = Segmenter(learner.module, team.gather(described)[0], device)
    texts = None
    if learner.family == "oneformer" and begin.tokenizer is not None:
        texts = TextInputs(begin.tokenizer, learner.module.config, prepared.training.labels, begin.name)
    mine, scorings = list(enumerate(held_out))[team.rank :: team.size], _scorings(prepared)
    training = Training(
        learner,
        settings,
        feed,
        judge=lambda: _judge(
            segmenter,
            begin.tokenizer,
            team,
            lambda: judge(segmenter, scorings, _images(mine, settings.bad_examples == "skip"), settings.bad_examples == "skip", stop),
        ),
        store=Store(settings.output, prepared.asked),
        texts=texts,
        team=team,
        device=device,
        best_by=prepared.best_by,
        tell=tell,
        stop=stop,
    )
    try:
        state = training.run()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        height, width = prepared.crop
        raise MasklakeError(
            f"memory does not hold a forward pass of {plural(settings.micro, 'image')} of {height}x{width} ({first_line(error)}): lower "
            "--micro-batch-size or --crop, and give another --output; the last saved state stays"
        ) from error
    if team.rank == 0 and state.step == settings.steps and not state.unjudged:
        _publish(prepared, begin, learner, training.store, state)
        tell({"event": "finished", "step": state.step, "best": state.best})


def best_device() -> torch.device:
    """The GPU of this process, where there is one."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def _scorings(prepared: Prepared) -> dict[str, Scoring]:
    """How held-out images are scored: by all classes of their truth, as an evaluation does."""
    truth, settings = prepared.held_out.truth, prepared.settings
    mapping = read_mapping(settings.categories) if settings.categories else {}
    return {task: Scoring(Task(task), truth.coding, classes_for(truth, Task(task), mapping), worst=0) for task in prepared.tasks}


def _judge(segmenter: Segmenter, tokenizer: Path | None, team: Team, share: Callable[[], Scores | None]) -> dict[str, float] | None:
    """The scores of all members' shares; None for all of them where one was stopped."""
    segmenter.module.eval()
    with _answering(segmenter, tokenizer or Path()):
        shares = team.gather(share())
    return None if None in shares else sum(shares, Scores()).result()


@contextmanager
def _answering(segmenter: Segmenter, tokenizer: Path) -> Iterator[None]:
    """The module as a checkpoint is loaded to answer, and afterwards as it was."""
    module, family = segmenter.module, segmenter.family
    settings = {name: getattr(module.config, name) for name in family.config_changes}
    trained = [part for part in module.modules() if getattr(part, "is_training", False)]
    for part in trained:  # OneFormer's dropout asks this, and not whether the module is in training
        part.is_training = False
    for name, value in family.config_changes.items():
        setattr(module.config, name, value)
    family.prepare(module, tokenizer, str(tokenizer))
    module.to(segmenter.device)
    try:
        yield
    finally:
        for part in trained:
            part.is_training = True
        for name, value in settings.items():
            setattr(module.config, name, value)


def _images(examples: list[tuple[int, Example]], skip_bad: bool) -> Iterator[HeldOut]:
    for place, example in examples:
        try:
            yield HeldOut(place, example.image, load_image(example.image).pixels, example.truth)
        except BadExample as error:
            if not skip_bad:
                raise BadExample(f"{error}; {MEND}") from None


def _publish(prepared: Prepared, begin: Start, learner: Learner, store: Store, state: State) -> None:
    """Write the best weights, the last ones where nothing was held out, as a checkpoint into the output."""
    if state.best is not None:
        learner.module.load_state_dict(store.load_best(state.best["step"]))
    learner.module.to("cpu")
    base = prepared.settings.model or f"{prepared.settings.model_config_file}, backbone {prepared.settings.backbone or 'from nothing'}"
    with tempfile.TemporaryDirectory(prefix="masklake-result-") as scratch:
        folder = Path(scratch)
        result.write_checkpoint(learner, begin, prepared.preprocessor, folder)
        card = result.card(begin, base, prepared.training, prepared.sizes, prepared.asked, state.best)
        result.write_story(folder, state.history, card)
        result.publish(folder, store.output)
    store.clear()
