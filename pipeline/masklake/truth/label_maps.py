"""Folders of label maps as truth: a single-channel PNG per image whose pixels are label ids."""

from __future__ import annotations

from masklake import storage
from masklake.errors import Refused
from masklake.truth import label_names
from masklake.truth.formats import Category, Format, Truth, TruthImage

DEFAULT_IGNORE = 255


def from_folder(folder: str, labels: str | None, ignore_index: int | None) -> Truth:
    """All PNGs below `folder`, which ends in a slash; they are read when they are judged.

    Args:
        folder: of the PNGs, which may lie in folders as the images do.
        labels: a file of names, see `label_names.read`; None: one of `label_names.NAMES` in or above the folder.
        ignore_index: value of the pixels that are not judged; None: what the file of names says, else 255.

    Raises:
        Refused: there is no PNG, or no file of names.
    """
    pictures = sorted(file.uri for page in storage.list_files(folder) for file in page if file.uri.lower().endswith(".png"))
    if not pictures:
        raise Refused(f"--truth {folder}: there are no PNG files")
    if labels is None:
        labels = _find_names(folder)
    else:
        storage.check_input(labels, "--labels")
    names, void = label_names.read(labels)
    ignore = ignore_index if ignore_index is not None else DEFAULT_IGNORE if void is None else void
    names.pop(ignore, None)  # a file may name what is not judged
    return Truth(
        Format.LABEL_MAPS,
        folder,
        tuple(Category(label_id, name) for label_id, name in sorted(names.items())),
        tuple(TruthImage(order, uri[len(folder) :].rpartition(".")[0], stem=True, picture=uri) for order, uri in enumerate(pictures)),
        ignore,
    )


def _find_names(folder: str) -> str:
    above = folder.rstrip("/").rpartition("/")[0] + "/"
    for place in (folder, above):
        there = storage.list_names(place) if place.count("/") > 2 else []
        for name in label_names.NAMES:
            if name in there:
                return place + name
    raise Refused(
        f"--truth {folder}: give a file that says which id has which name by --labels: there is no {' or '.join(label_names.NAMES)}"
    )
