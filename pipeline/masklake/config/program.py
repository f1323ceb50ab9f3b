"""What a command is to its user: its name, its settings, and what `--help` says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from masklake.config.kinds import Also, mark

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True)
class Program(Generic[S]):
    """A command line: its settings, in titled groups, and what `--help` says around them."""

    name: str
    settings: type[S]
    groups: Mapping[str, type[BaseModel]]
    """Title -> the model whose fields are the group's flags."""
    about: str
    """What the command does; lines that belong together are filled to the terminal's width, others stay apart by their indentation."""
    examples: Mapping[str, str]
    """Command -> what it does."""
    rules: str = ""
    """What there is to say after the settings, laid out as `about`."""
    exit_codes: str = "0 done, 1 failed, 2 refused (nothing was started), 130 or 143 stopped"
    prints_summary: bool = True
    """Whether the last line on stdout is one JSON object also where all went well."""
    interrupted: str = "interrupted; what was committed stays, run the same command to go on"
    """What to say where the user, or the cluster, ends it."""
    needs: tuple[str, ...] = ()
    """The package's extras without which the command cannot work."""

    @property
    def fields(self) -> Mapping[str, FieldInfo]:
        """Name -> setting."""
        return self.settings.model_fields

    @property
    def names(self) -> dict[str, str]:
        """Every name of a setting -> the one it has in the schema."""
        also = {other.name: name for name, field in self.fields.items() if (other := mark(field, Also))}
        return {**also, **{name: name for name in self.fields}}
