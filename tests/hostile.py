"""Files that keep a decoder busy, or crash it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

CRASHING = b"P6 1 1 255 # crash"
"""An image on which the decoder dies where `crashing_decoder` is the first folder of `sys.path`."""

ENDLESS = b"P6 1 1 255 # loop"
"""The same, of one that never ends."""

_SITE = """\
import os, signal, time
from PIL import PpmImagePlugin

opened = PpmImagePlugin.PpmImageFile._open

def open_(self):
    content = self.fp.read(20)
    self.fp.seek(0)
    if content.endswith(b"# crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    while content.endswith(b"# loop"):
        pass
    if content.startswith(b"P6\\n# until "):
        path = self.fp.read(4096).split(b"\\n")[1].removeprefix(b"# until ")
        self.fp.seek(0)
        limit = time.monotonic() + 500
        while not os.path.exists(path):
            if time.monotonic() > limit:
                raise OSError("nobody made " + path.decode())
            time.sleep(0.05)
    opened(self)

PpmImagePlugin.PpmImageFile._open = open_
"""


def waiting(path: Path) -> bytes:
    """An image that is decoded as soon as there is something at a path, where `crashing_decoder` is the first folder of `sys.path`."""
    return b"P6\n# until %b\n1 1\n255\n\0\0\0" % os.fsencode(path)


def crashing_decoder(folder: Path) -> Path:
    """Put a module there that Python imports as it starts, and that gives Pillow's reader of PPM its faults."""
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
