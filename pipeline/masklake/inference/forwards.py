"""The ways in which a model's forward runs, and where they cannot. Imports nothing heavy: the driver asks before anything is started."""

from __future__ import annotations

import importlib.util
from typing import Literal

from masklake.errors import Refused

Forward = Literal["auto", "eager", "graphs", "compiled", "openvino"]
"""As is fastest without a slow start; as torch runs it; from CUDA graphs; by torch.compile; by OpenVINO.

None of them is in a fingerprint: as by threads and batch sizes, which are not either, the last bits of a logit move, and with them a pixel
now and then.
"""


def chosen(asked: Forward, device: str, prompted: bool) -> Forward:
    """What `auto` means on a device: CUDA graphs on NVIDIA's GPUs but for a model that is asked concepts, of which none can be made."""
    if asked != "auto":
        return asked
    return "graphs" if device.startswith("cuda") and not prompted else "eager"


def check(forward: Forward, device: str, precision: str, prompted: bool) -> None:
    """See that a model can run so on a device (cpu, cuda, cuda:1, mps) in a precision. `prompted`: whether it is asked concepts.

    Raises:
        Refused: it cannot, or a package is missing.
    """
    if forward == "graphs" and not device.startswith("cuda"):
        raise Refused(f"--forward graphs: CUDA graphs are for NVIDIA's GPUs, and the model runs on {device}: leave it out")
    if forward != "openvino":
        return
    if device != "cpu":
        raise Refused(f"--forward openvino: it is for CPUs here, and the model runs on {device}: leave it out, or use --device cpu")
    if precision != "float32":
        raise Refused(
            f"--forward openvino: it answers in float32, and the precision is {precision}: leave it out, or say --precision float32"
        )
    if prompted:
        raise Refused(
            "--forward openvino: a model that is told --concepts finds more or less in each image, which is not converted: leave it out"
        )
    if importlib.util.find_spec("openvino") is None:
        raise Refused("--forward openvino needs openvino, which is not installed here: pip install 'masklake[openvino]'")
