"""Which images go through the model together: those of all callers that wait, by the shape of the model's input.

Photographs whose aspect is kept come in dozens of shapes: the images of one caller alone would leave most batches nearly empty.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from masklake.inference.answers import Answers
from masklake.inference.model_input import ModelInput
from masklake.inference.preprocess import Size


@dataclass(frozen=True)
class Kind:
    """What images of a batch have in common: the shape of the model's input and, where each task has its own forward, the tasks."""

    padded: Size
    tasks: tuple[str, ...] = ()


@dataclass(eq=False)
class Call:
    """A caller's images, those of them that are in no batch yet, by kind, and their answers."""

    inputs: Sequence[ModelInput]
    kind_of: Callable[[ModelInput], Kind]
    answers: list[Answers] = field(init=False)
    waiting: dict[Kind, deque[int]] = field(init=False)
    left: int = field(init=False)
    """Images without an answer."""
    error: BaseException | None = None
    """What befell another caller's thread, which may have had some of these images."""

    def __post_init__(self) -> None:
        self.answers, self.left = [{} for _ in self.inputs], len(self.inputs)
        self.waiting = defaultdict(deque)
        for index, item in enumerate(self.inputs):
            self.waiting[self.kind_of(item)].append(index)


@dataclass(frozen=True)
class Member:
    """An image on its way."""

    call: Call
    index: int

    @property
    def input(self) -> ModelInput:
        """The image."""
        return self.call.inputs[self.index]

    def answer(self, answers: Answers) -> None:
        """Give the caller its answers."""
        self.call.answers[self.index] = answers
        self.call.left -= 1


class Waiting:
    """The calls under way, the oldest first. Callers come and go in their own threads; one of them at a time takes images."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._calls: list[Call] = []

    def __len__(self) -> int:
        """How many callers there are."""
        return len(self._calls)

    def come(self, call: Call) -> None:
        """A caller waits."""
        self._calls.append(call)

    def go(self, call: Call) -> None:
        """A caller has its answers, or an error."""
        self._calls.remove(call)

    def fail(self, error: BaseException) -> None:
        """All callers are told what befell one."""
        for call in tuple(self._calls):
            call.error = call.error or error

    def kind(self, first: Call) -> Kind | None:
        """The next batch's: of those that `first`, else the oldest caller, waits for, the one of most images of all; None: none wait."""
        calls = tuple(self._calls)
        for call in (first, *calls):
            own = [kind for kind, those in call.waiting.items() if those]
            if own:
                return max(own, key=lambda kind: sum(len(each.waiting.get(kind, ())) for each in calls))
        return None

    def take(self, kind: Kind, count: int, first: Call) -> list[Member]:
        """At most `count` images of a kind, those of `first` before others'."""
        taken: list[Member] = []
        for call in (first, *(other for other in tuple(self._calls) if other is not first)):
            those = call.waiting.get(kind)
            while those and len(taken) < count:
                taken.append(Member(call, those.popleft()))
        return taken

    @staticmethod
    def put_back(kind: Kind, members: Sequence[Member]) -> None:
        """They wait again, in front."""
        for member in reversed(members):
            member.call.waiting[kind].appendleft(member.index)
