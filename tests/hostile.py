"""Files that keep a decoder busy, or crash it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

CRASHING = b"P6 1 1 255 # crash"
"""An image on which the decoder dies where `crashing_decoder` is the first folder of `sys.path`."""

ENDLESS = b"P6 1 1 255 # loop"
"""The same, of one that never ends."""

_SITE = """\
import os, signal
from PIL import PpmImagePlugin

opened = PpmImagePlugin.PpmImageFile._open

def open_(self):
    content = self.fp.read(20)
    self.fp.seek(0)
    if content.endswith(b"# crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    while content.endswith(b"# loop"):
        pass
    opened(self)

PpmImagePlugin.PpmImageFile._open = open_
"""


def crashing_decoder(folder: Path) -> Path:
    """Put a module there that Python imports as it starts, and that gives Pillow's reader of PPM two faults."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_SITE)
    return folder


def jpeg_of_scans(scans: int, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan is repeated, so that it has so many more than the encoder wrote."""
    data = saved("JPEG", side, progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (scans + 1) + data[-2:]


def saved(format_: str, side: int = 64, mode: str = "RGB", **options: object) -> bytes:
    """A picture of a gradient in a format."""
    rows = np.linspace(0, 255, side, dtype=np.float32)
    pixels = np.broadcast_to(rows[:, None], (side, side))
    image = Image.fromarray(pixels if mode == "F" else pixels.astype(np.uint8))
    file = io.BytesIO()
    (image if mode == "F" else image.convert(mode)).save(file, format_, **options)
    return file.getvalue()
