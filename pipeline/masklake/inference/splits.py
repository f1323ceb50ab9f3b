"""Which labels of the known datasets are things (countable) and which are stuff; sizes at which results on them are published.

Sources: `panoptic_coco_categories.json` of cocodataset/panopticapi (80 things, 53 stuff); `register_ade20k_panoptic.py` of
facebookresearch/Mask2Former (100, 50), its `register_mapillary_vistas_panoptic.py` (37, 28); `labels.py` of mcordts/cityscapesScripts, the
19 evaluated classes (8, 11). Names of ADE20K are those of the hub's checkpoints (`ade20k-id2label.json` of huggingface/label-files).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_COCO_THINGS = (
    "person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant|stop sign|parking meter|bench|bird|"
    "cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|backpack|umbrella|handbag|tie|suitcase|frisbee|skis|snowboard|"
    "sports ball|kite|baseball bat|baseball glove|skateboard|surfboard|tennis racket|bottle|wine glass|cup|fork|knife|spoon|bowl|"
    "banana|apple|sandwich|orange|broccoli|carrot|hot dog|pizza|donut|cake|chair|couch|potted plant|bed|dining table|toilet|tv|"
    "laptop|mouse|remote|keyboard|cell phone|microwave|oven|toaster|sink|refrigerator|book|clock|vase|scissors|teddy bear|"
    "hair drier|toothbrush"
)
_COCO_STUFF = (
    "banner|blanket|bridge|cardboard|counter|curtain|door-stuff|floor-wood|flower|fruit|gravel|house|light|mirror-stuff|net|"
    "pillow|platform|playingfield|railroad|river|road|roof|sand|sea|shelf|snow|stairs|tent|towel|wall-brick|wall-stone|wall-tile|"
    "wall-wood|water-other|window-blind|window-other|tree-merged|fence-merged|ceiling-merged|sky-other-merged|cabinet-merged|"
    "table-merged|floor-other-merged|pavement-merged|mountain-merged|grass-merged|dirt-merged|paper-merged|food-other-merged|"
    "building-other-merged|rock-merged|wall-other-merged|rug-merged"
)
_ADE20K = (  # in the order of the ids, which every checkpoint keeps while names differ: "windowpane" here is "window" there
    "wall|building|sky|floor|tree|ceiling|road|bed|windowpane|grass|cabinet|sidewalk|person|earth|door|table|mountain|plant|"
    "curtain|chair|car|water|painting|sofa|shelf|house|sea|mirror|rug|field|armchair|seat|fence|desk|rock|wardrobe|lamp|"
    "bathtub|railing|cushion|base|box|column|signboard|chest of drawers|counter|sand|sink|skyscraper|fireplace|refrigerator|"
    "grandstand|path|stairs|runway|case|pool table|pillow|screen door|stairway|river|bridge|bookcase|blind|coffee table|"
    "toilet|flower|book|hill|bench|countertop|stove|palm|kitchen island|computer|swivel chair|boat|bar|arcade machine|hovel|"
    "bus|towel|light|truck|tower|chandelier|awning|streetlight|booth|television receiver|airplane|dirt track|apparel|pole|"
    "land|bannister|escalator|ottoman|bottle|buffet|poster|stage|van|ship|fountain|conveyer belt|canopy|washer|plaything|"
    "swimming pool|stool|barrel|basket|waterfall|tent|bag|minibike|cradle|oven|ball|food|step|tank|trade name|microwave|pot|"
    "animal|bicycle|lake|dishwasher|screen|blanket|sculpture|hood|sconce|vase|traffic light|tray|ashcan|fan|pier|crt screen|"
    "plate|monitor|bulletin board|shower|radiator|glass|clock|flag"
)
# fmt: off
_ADE20K_STUFF_IDS = frozenset([
    0, 1, 2, 3, 4, 5, 6, 9, 11, 13, 16, 17, 21, 25, 26, 28, 29, 34, 40, 46, 48, 51, 52, 54, 59, 60, 61, 63, 68, 77,
    79, 84, 91, 94, 96, 99, 100, 101, 105, 106, 109, 113, 114, 117, 122, 128, 131, 140, 141, 145,
])
# fmt: on
_CITYSCAPES_THINGS = "person|rider|car|truck|bus|train|motorcycle|bicycle"
_MAPILLARY = (
    "Bird|Ground Animal|Curb|Fence|Guard Rail|Barrier|Wall|Bike Lane|Crosswalk - Plain|Curb Cut|Parking|Pedestrian Area|"
    "Rail Track|Road|Service Lane|Sidewalk|Bridge|Building|Tunnel|Person|Bicyclist|Motorcyclist|Other Rider|"
    "Lane Marking - Crosswalk|Lane Marking - General|Mountain|Sand|Sky|Snow|Terrain|Vegetation|Water|Banner|Bench|Bike Rack|"
    "Billboard|Catch Basin|CCTV Camera|Fire Hydrant|Junction Box|Mailbox|Manhole|Phone Booth|Pothole|Street Light|Pole|"
    "Traffic Sign Frame|Utility Pole|Traffic Light|Traffic Sign (Back)|Traffic Sign (Front)|Trash Can|Bicycle|Boat|Bus|Car|"
    "Caravan|Motorcycle|On Rails|Other Vehicle|Trailer|Truck|Wheeled Slow|Car Mount|Ego Vehicle"
)
_MAPILLARY_STUFF = (
    "Curb|Fence|Guard Rail|Barrier|Wall|Bike Lane|Curb Cut|Parking|Pedestrian Area|Rail Track|Road|Service Lane|Sidewalk|"
    "Bridge|Building|Tunnel|Lane Marking - General|Mountain|Sand|Sky|Snow|Terrain|Vegetation|Water|Pothole|On Rails|"
    "Car Mount|Ego Vehicle"
)
_CITYSCAPES_STUFF = "road|sidewalk|building|wall|fence|pole|traffic light|traffic sign|vegetation|terrain|sky"

_SYNONYMS = {
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
    "hair dryer": "hair drier",
}
_PLACEHOLDER = re.compile(r"label_\d+|n/a|", re.IGNORECASE)  # ids that a checkpoint numbers but no image has: COCO's ids have holes
_ADE20K_LIKENESS = 0.75  # share of ids whose names agree; the rest are synonyms


@dataclass(frozen=True)
class Dataset:
    """A known dataset as a checkpoint's labels show it: `thing_ids` are the checkpoint's ids."""

    name: str
    thing_ids: frozenset[int]
    reference: tuple[int, int]
    """Published test size: shortest side, and the most the longest may have, in pixels."""


def identify(labels: Mapping[int, str]) -> Dataset | None:
    """The dataset whose labels these are (all of them, or its things alone); None where they are nobody's that is known here."""
    ade20k = [name.strip() for name in _ADE20K.split("|")]
    if _ade20k_likeness(labels, ade20k) >= _ADE20K_LIKENESS:
        return Dataset("ADE20K", frozenset(range(len(ade20k))) - _ADE20K_STUFF_IDS, (512, 2048))
    mapillary_things = "|".join(name for name in _MAPILLARY.split("|") if name not in _MAPILLARY_STUFF.split("|"))
    for name, things, stuff, reference in (
        ("Cityscapes", _CITYSCAPES_THINGS, _CITYSCAPES_STUFF, (1024, 2048)),
        ("COCO", _COCO_THINGS, _COCO_STUFF, (800, 1333)),
        ("Mapillary Vistas", mapillary_things, _MAPILLARY_STUFF, (2048, 2048)),
    ):
        thing_ids = _thing_ids(labels, _names(things), _names(stuff))
        if thing_ids is not None:
            return Dataset(name, thing_ids, reference)
    return None


_NAMES = {
    ("COCO", 133): f"{_COCO_THINGS}|{_COCO_STUFF}",
    ("COCO", 80): _COCO_THINGS,
    ("ADE20K", 150): _ADE20K,
    ("Cityscapes", 19): f"{_CITYSCAPES_STUFF}|{_CITYSCAPES_THINGS}",
    ("Cityscapes", 8): _CITYSCAPES_THINGS,
    ("Mapillary Vistas", 65): _MAPILLARY,
}


def names(dataset: str, count: int) -> dict[int, str] | None:
    """The labels that a checkpoint of `count` classes has which was trained on `dataset`, in the order of their ids."""
    found = _NAMES.get((dataset, count))
    return None if found is None else dict(enumerate(found.split("|")))


def is_placeholder(label: str) -> bool:
    """Whether a label stands for none: `LABEL_7`, `N/A`, nothing."""
    return _PLACEHOLDER.fullmatch(label.strip()) is not None


def _thing_ids(labels: Mapping[int, str], things: frozenset[str], stuff: frozenset[str]) -> frozenset[int] | None:
    """Ids of the things where the labels are all of `things` and all or none of `stuff`; else None."""
    named = {label_id: plain(label) for label_id, label in labels.items() if not is_placeholder(label)}
    if frozenset(named.values()) not in (things, things | stuff):
        return None
    return frozenset(label_id for label_id, name in named.items() if name in things)


def _ade20k_likeness(labels: Mapping[int, str], names: list[str]) -> float:
    if set(labels) != set(range(len(names))):
        return 0.0
    return sum(name in re.split(r"\s*[,;]\s*", labels[label_id].strip().lower()) for label_id, name in enumerate(names)) / len(names)


def _names(joined: str) -> frozenset[str]:
    return frozenset(plain(name) for name in joined.split("|"))


def synonym(label: str) -> str:
    """One name for what is called otherwise here and there in COCO's 80 classes, in lower case: `motorcycle` for `Motorbike`."""
    name = label.strip().lower()
    return _SYNONYMS.get(name, name)


def other_names(label: str) -> tuple[str, ...]:
    """What else a label of COCO is called: by its synonyms, and stuff without its suffix (`sky` for `sky-other-merged`)."""
    name = label.strip().lower()
    known = synonym(name)
    others = [known, *(each for each, one in _SYNONYMS.items() if one == known), *([plain(name)] if name in _COCO_STUFF.split("|") else [])]
    return tuple(each for each in dict.fromkeys(others) if each != name)


def plain(label: str) -> str:
    """A label without what some checkpoints leave out: COCO's suffixes of merged stuff, case, blanks at the ends."""
    name = re.sub(r"(-other)?(-merged|-stuff|-other)?$", "", label.strip().lower())
    return _SYNONYMS.get(name, name)
