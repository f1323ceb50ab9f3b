"""Which of truth's categories and the table's labels are one class."""

from __future__ import annotations

from pathlib import Path

import pytest

from masklake.errors import Refused
from masklake.truth.classes import judged_classes, read_mapping
from masklake.truth.formats import Category

CATEGORIES = [Category(1, "Person", True), Category(2, "couch", True), Category(3, "sofa bed", True), Category(4, "sky", False)]


def test_names_are_the_same_whatever_their_case() -> None:
    classes = judged_classes(CATEGORIES, {})
    assert [classes.of_label(label) for label in ("person", "PERSON", "couch", "sky", "dog")] == [0, 0, 1, 3, None]
    assert classes.of_category == {1: 0, 2: 1, 3: 2, 4: 3}


def test_cocos_synonyms_and_a_categorys_other_names_are_one_class() -> None:
    things = ("motorcycle", "airplane", "couch", "potted plant", "dining table", "tv")
    coco = [Category(number, name, True) for number, name in enumerate(things)]
    classes = judged_classes([*coco, Category(187, "sky-other-merged", False)], {})
    names = ("motorbike", "aeroplane", "sofa", "sky", "pottedplant", "diningtable", "tvmonitor", "Motorbike", "sofa bed")
    assert [classes.of_label(name) for name in names] == [0, 1, 2, 6, 3, 4, 5, 0, None]
    assert judged_classes([Category(1, "sofa", True)], {}).of_label("couch") == 0
    both = judged_classes([Category(1, "sofa", True), Category(2, "couch", True)], {})
    assert [both.of_label(name) for name in ("sofa", "couch")] == [0, 1]
    assert judged_classes([Category(1, "sky", False)], {}).of_label("sky-other-merged") is None  # which is a part of what may be meant
    ade = judged_classes([Category(9, "windowpane", False, ("window",)), Category(14, "earth", False, ("ground",))], {})
    assert [ade.of_label(name) for name in ("window", "ground")] == [0, 1]
    shared = judged_classes([Category(14, "earth", False, ("ground",)), Category(95, "land", False, ("ground", "soil"))], {})
    assert [shared.of_label(name) for name in ("ground", "soil")] == [None, 1]


def test_several_categories_may_be_one_label_and_others_match_by_themselves() -> None:
    classes = judged_classes(CATEGORIES, {"couch": "sofa", "sofa bed": "sofa", "sky": None})
    assert [(each.label, each.categories) for each in classes.judged] == [("Person", ("Person",)), ("sofa", ("couch", "sofa bed"))]
    assert classes.of_category == {1: 0, 2: 1, 3: 1, 4: None}
    assert classes.not_judged == ("sky",)
    assert [classes.of_label(label) for label in ("sofa", "couch", "sky", "person")] == [1, None, None, 0]


def test_a_label_of_the_mapping_is_spelt_as_in_the_table() -> None:
    assert judged_classes(CATEGORIES, {"couch": "Sofa"}).of_label("sofa") is None
    joined = judged_classes(CATEGORIES, {"couch": "person"})
    assert [joined.of_label(label) for label in ("person", "Person")] == [0, 0]


def test_a_star_is_everything_that_the_mapping_does_not_name() -> None:
    classes = judged_classes(CATEGORIES, {"Person": "person", "*": None})
    assert (len(classes), classes.not_judged) == (1, ("couch", "sofa bed", "sky"))
    classes = judged_classes(CATEGORIES, {"Person": "person", "background": "bg", "*": "bg"}, background=True)
    assert [each.categories for each in classes.judged] == [("Person",), ("couch", "sofa bed", "sky", "background")]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"cuoch": "sofa"}, "'cuoch' is not a category of the ground truth; it has 'couch'"),
        ({"*": None}, "leaves no category to judge"),
        ({"sky": "x", "couch": "x"}, r"'x' would stand for things and stuff at once \(couch, sky\)"),
    ],
)
def test_a_wrong_mapping_is_refused(mapping: dict[str, str | None], message: str) -> None:
    with pytest.raises(Refused, match=message):
        judged_classes(CATEGORIES, mapping, apart=True)


def test_a_file_of_names(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text('couch: sofa\nno: "12"\non: 5\n"*": null\ntv: ~\n')
    assert read_mapping(str(tmp_path / "a.yaml")) == {"couch": "sofa", "no": "12", "on": "5", "*": None, "tv": None}
    for text in ("- a\n", "a: [b]\n", "a: {b: c}\n", "", "a: 'b"):
        (tmp_path / "a.yaml").write_text(text)
        with pytest.raises(Refused, match="--categories"):
            read_mapping(str(tmp_path / "a.yaml"))
    with pytest.raises(Refused, match="--categories"):
        read_mapping(str(tmp_path / "absent.yaml"))
