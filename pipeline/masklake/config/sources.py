"""Where settings come from beside the command line: environment variables, and a YAML file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from masklake.errors import Refused

ENV_PREFIX = "MASKLAKE_"
FILE_VARIABLE = ENV_PREFIX + "CONFIG"
"""Names the YAML file where no --config does."""

OTHERS = frozenset({"cache", "config", "log_format"})
"""Variables that are not settings of any command: `MASKLAKE_CACHE` is the folder of downloaded models, `MASKLAKE_CONFIG` the YAML file,
`MASKLAKE_LOG_FORMAT` whether lines are JSON."""

_NULL = "tag:yaml.org,2002:null"
# What Kubernetes puts into every container for a service that is called masklake, and where the tests find their data.
_NOT_SETTINGS = re.compile(r"(\w+_)?SERVICE_(HOST|PORT(_\w+)?)|(\w+_)?PORT(_\d+_\w+)?|SHARED")


def environment() -> dict[str, str]:
    """The settings that variables give: those that begin with `MASKLAKE_` and are not empty; `batch_size` of `MASKLAKE_BATCH_SIZE`."""
    found = {name.removeprefix(ENV_PREFIX): value for name, value in os.environ.items() if name.startswith(ENV_PREFIX) and value}
    found.pop("CONFIG", None)
    return {name.lower(): value for name, value in found.items() if not _NOT_SETTINGS.fullmatch(name)}


def yaml_file(file: str | None) -> dict[str, Any]:
    """The settings of a YAML file: text, as on a command line (a time stays what was written), lists of text, or mappings of text.

    A key whose value is null is left out, and so means the default.

    Raises:
        Refused: the file cannot be read, or holds something else.
    """
    if file is None:
        return {}
    import yaml  # which most commands do without

    class Text(yaml.SafeLoader):
        """Everything is text but null, so that a YAML file and a flag say the same with the same letters."""

    resolvers = {letter: [each for each in pairs if each[0] == _NULL] for letter, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()}
    Text.yaml_implicit_resolvers = resolvers
    try:
        content = yaml.load(Path(file).read_text(encoding="utf-8"), Loader=Text)  # noqa: S506 - a SafeLoader that makes less
    except OSError as error:
        raise Refused(f"--config {file}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"--config {file}: is not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise Refused(f"--config {file}: must hold settings as `name: value` lines, not a {type(content).__name__}")
    return {str(name).replace("-", "_"): value for name, value in content.items() if value is not None}


def chosen_file(flag: str | None) -> str | None:
    """The YAML file that the flag names, or else the variable."""
    return flag or os.environ.get(FILE_VARIABLE) or None
