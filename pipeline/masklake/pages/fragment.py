"""One result as a piece of HTML for a notebook: the picture, what lies over it, and its labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masklake.pages import rendering
from masklake.pages.cards import card_from, shot


def fragment(row: Mapping[str, Any], image: NDArray[np.uint8] | None, failure: str | None) -> str:
    """HTML that stands by itself in any page; text of others is escaped.

    Args:
        row: `image_uri, task, height, width, segments`.
        image: uint8 [height, width, 3]; None where the row has no segments.
        failure: why it has none.
    """
    card = None if image is None else card_from(image, row)
    _, name = rendering.name_of(row["image_uri"])
    return rendering.render(
        "fragment.html.j2",
        uri=row["image_uri"],
        task=row["task"],
        failure=failure,
        legend=() if card is None else card.painting.legend,
        shot=None if card is None else shot(name, f"{name} with masks", card.painting, card.image),
    )
