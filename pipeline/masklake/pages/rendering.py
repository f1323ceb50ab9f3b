"""Pages from the templates beside this module: escaping is the environment's, not a habit of those who write them.

URIs, labels and messages come from the lake and are untrusted. Every value that a template prints is escaped (`autoescape`), after its
controls were spelt out (`finalize`); a name that a template does not find is an error. Nothing here and no template marks text as safe:
`tests/unit/pages/test_templates.py` looks at every expression of every template.

No script is used, and the Content-Security-Policy of `page.html.j2` forbids everything that would leave the page: pages are mailed, and
opened in viewers that run no script. What can be pressed there works by style sheets and by what HTML itself can do (popovers, radio
buttons), so that the policy needs no exception.
"""

from __future__ import annotations

import base64
import functools
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masklake.spelling import plural, visible

if TYPE_CHECKING:
    from jinja2 import Environment

_QUALITY = 80


def render(template: str, **values: Any) -> str:
    """A template of this package with these values."""
    return environment().get_template(template).render(**values)


@functools.cache
def environment() -> Environment:
    """What all templates share: escaping, and the filters `hex`, `plural`, `short`, `thousands`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # many that can render a page never do

    made = Environment(
        loader=PackageLoader("masklake.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printed,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"hex": hex_colour, "plural": plural, "short": short, "thousands": lambda count: f"{count:,}"}
    return made


def _printed(value: Any) -> Any:
    """A value as templates print it, before it is escaped. What is HTML already comes from a template."""
    return shown(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def shown(text: str) -> str:
    """Text of others as a page shows it, where a script puts it there as text: its controls spelt out."""
    return visible(text)


def short(text: str, longest: int) -> str:
    """Text without its middle, where it has more than `longest` characters."""
    return text if len(text) <= longest else f"{text[: longest // 2]}\N{HORIZONTAL ELLIPSIS}{text[-(longest // 2) :]}"


def photograph(pixels: NDArray[np.uint8]) -> str:
    """The address of a picture that is its content: uint8 [H, W, 3] as WebP in a data URI."""
    return _inlined(pixels, quality=_QUALITY, method=2)  # by 4, a twentieth of the bytes less in twice the time


def layer(pixels: NDArray[np.uint8], quick: bool = False) -> str:
    """As `photograph`, of what lies over one: uint8 RGBA [H, W, 4]. Nothing is lost, and few colours take few bytes; `quick`, a third more
    in a third of the time."""
    return _inlined(pixels, lossless=True, **({"method": 0, "quality": 0} if quick else {}))


def _inlined(pixels: NDArray[np.uint8], **settings: Any) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", **{"method": 4, **settings})
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def name_of(uri: str) -> tuple[str, str]:
    """The folder of a URI, with its slash, and the file name."""
    folder, slash, name = uri.rpartition("/")
    return folder + slash, name


def hex_colour(colour: tuple[int, int, int]) -> str:
    """RGB, 0..255, as CSS writes it."""
    return "#" + "".join(f"{min(255, max(0, int(part))):02x}" for part in colour)
