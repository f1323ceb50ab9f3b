"""Which of the table's images is which of truth's."""

from __future__ import annotations

import pytest

from masklake.errors import Refused
from masklake.truth.formats import TruthImage
from masklake.truth.match import match

LAKE = "s3://lake/images/"


def found(names: list[str], uris: list[str], stem: bool = False) -> dict[str, str]:
    matched = match([TruthImage(order, name, stem) for order, name in enumerate(names)], [LAKE + uri for uri in uris])
    assert sorted([each.name for each in matched.missing] + [each.name for each in matched.images.values()]) == sorted(names)
    return {uri.removeprefix(LAKE): image.name for uri, image in matched.images.items()}


def test_the_end_of_the_uri_is_truths_name() -> None:
    assert found(["a.jpg", "b.jpg"], ["dt=1/a.jpg", "dt=1/ba.jpg", "c.jpg"]) == {"dt=1/a.jpg": "a.jpg"}
    assert found(["x/a.jpg", "y/a.jpg"], ["x/a.jpg", "y/a.jpg"]) == {"x/a.jpg": "x/a.jpg", "y/a.jpg": "y/a.jpg"}


def test_the_file_name_alone_is_enough_where_there_is_one() -> None:
    assert found(["val/a.jpg"], ["b/a.jpg"]) == {"b/a.jpg": "val/a.jpg"}
    assert match([TruthImage(0, "val/a.jpg")], [LAKE + "a.jpg"]).by_name_alone == 1
    assert found(["val/a.jpg", "train/a.jpg"], ["b/a.jpg"]) == {}


def test_label_maps_have_another_ending() -> None:
    assert found(["x/a", "b.jpg", "c"], ["x/a.jpg", "b.jpg", "c.tar.jpg"], stem=True) == {"x/a.jpg": "x/a", "b.jpg": "b.jpg"}


def test_the_uri_of_truth_itself_decides() -> None:
    images = [TruthImage(0, "a.jpg", uri=LAKE + "x/a.jpg"), TruthImage(1, "a.jpg", uri=LAKE + "y/a.jpg")]
    matched = match(images, [LAKE + "x/a.jpg", LAKE + "y/a.jpg"])
    assert {uri: image.order for uri, image in matched.images.items()} == {LAKE + "x/a.jpg": 0, LAKE + "y/a.jpg": 1}


@pytest.mark.parametrize(
    ("names", "uris", "message"),
    [
        (["a.jpg"], ["x/a.jpg", "y/a.jpg"], "'a.jpg' could be 2 images of the table, such as s3://lake/images/x/a.jpg and .*y/a.jpg"),
        (["val/a.jpg"], ["x/a.jpg", "y/a.jpg"], "could be 2 images"),
        (["a.jpg", "x/a.jpg"], ["x/a.jpg"], "'a.jpg' and 'x/a.jpg' both mean s3://lake/images/x/a.jpg"),
    ],
)
def test_what_could_be_several_is_refused(names: list[str], uris: list[str], message: str) -> None:
    with pytest.raises(Refused, match=message):
        found(names, uris)
