"""One run of the main job.

    run -> plan (digests) -> flow, the wiring on Ray Data, of the stages, which are plain functions -> report, gallery

Needs `images`, `inference`, `table`, `pages` and `cluster`. Knows nothing of the command line.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def segment(*, listener: Any = None, **settings: Any) -> dict[str, Any]:
    """Run the job from Python: what `masklake segment` does, with its settings as arguments.

    Args:
        listener: told how it goes on (`masklake.segment.progress.Listener`); by default what the command tells goes to the log "masklake".
        **settings: as `masklake segment --help` lists them, with `_` for `-`; environment variables and files are not looked at.

    Returns:
        The run's summary: `outcome`, `images`, `rows`, `errors`, `seconds`, `table`, ...

    Raises:
        Refused: a setting, credential, bucket or model is wrong; nothing was started.
        Fenced: a newer run on overlapping input took over.
        MasklakeError: the run failed; what was committed stays.

    Example:
        masklake.segment(input="s3://lake/images/", output="s3://lake/masks", tasks=["panoptic"],
                         model="facebook/mask2former-swin-tiny-coco-panoptic", limit=100)
    """
    from masklake.segment.call import call

    return call(settings, listener)


class _Callable(ModuleType):
    """This room, which is also the function of its name: as an attribute of `masklake`, a module and a function cannot both be."""

    def __call__(self, **settings: Any) -> dict[str, Any]:
        return segment(**settings)


_Callable.__call__.__doc__ = segment.__doc__
sys.modules[__name__].__class__ = _Callable
