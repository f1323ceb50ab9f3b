"""What a listing came across, counted while its pages go by."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from masklake.images.formats import SUFFIXES

_LONGEST = max(map(len, SUFFIXES))
_ENDING = r"(?P<ending>\.[a-z][a-z0-9]{0,7})$"  # of a name in lower case; a name without one may be an image's


@dataclass
class Tally:
    """Of what was listed: objects, and the images of others. It is complete when the last page was read."""

    listed: int = 0
    """What the input lists itself, before anything is left out; an object that holds images counts as one."""
    excluded: int = 0
    """Images that `--include` and `--exclude` leave out, and objects that hold some."""
    older: int = 0
    """Of the others, those that were modified before `--since`."""
    images: int = 0
    """What is left, the images of objects that hold some among it."""
    unlike: Counter[str] = field(default_factory=Counter)
    """Of `images`: objects that are not images by their names, by the ending."""
    endings: Counter[str] = field(default_factory=Counter)
    """Of `excluded`."""

    def leave_out(self, uris: pa.ChunkedArray) -> None:
        """Count what patterns leave out."""
        self.excluded += len(uris)
        self.endings += _endings(uris)

    def count(self, page: pa.Table) -> pa.Table:
        """Count a page of what is left, and give it on."""
        self.images += page.num_rows
        # Few names end in as many ways: where all are images', which is so in most lakes, nothing more is looked at.
        first = page["image_uri"][0].as_py() if page.num_rows else ""
        if first.endswith(SUFFIXES) and pc.all(pc.ends_with(page["image_uri"], first[first.rindex(".") :])).as_py():
            return page
        tails = pc.dictionary_encode(pc.utf8_slice_codeunits(page["image_uri"], -_LONGEST)).combine_chunks()
        odd = [not tail.lower().endswith(SUFFIXES) for tail in tails.dictionary.to_pylist()]
        if any(odd):
            objects = pc.and_(pc.is_null(page["image_source"]), pc.is_null(page["error_code"]))
            uris = page["image_uri"].filter(pc.and_(objects, pa.array(odd).take(tails.indices)))
            self.unlike += Counter({ending: number for ending, number in _endings(uris).items() if ending})
        return page


def _endings(uris: pa.ChunkedArray) -> Counter[str]:
    """How many names end so; an empty text for those without an ending."""
    found = pc.struct_field(pc.extract_regex(pc.utf8_lower(uris), _ENDING), "ending")
    return Counter({pair["values"] or "": pair["counts"] for pair in pc.value_counts(found).to_pylist()})


def most_common(endings: Counter[str], most: int) -> list[tuple[str, int]]:
    """The most frequent ones with their numbers; equally frequent ones by name."""
    return sorted(endings.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
