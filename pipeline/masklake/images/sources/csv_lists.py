"""Lists of images in CSV: a header, then a row an image. All columns are text, as CSV knows nothing else."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice

import pyarrow as pa

from masklake import storage
from masklake.images.lines import lines, with_gzip
from masklake.images.lists import Lists
from masklake.images.source import Unreadable
from masklake.spelling import plural

_DELIMITERS = ",;\t|"
_SAYS_SO = re.compile(r"sep=([,;\t|])\s*")  # a line before the header that spreadsheets write, and take


class CsvLists(Lists):
    """CSV with commas, semicolons, tabs or bars, whichever the header has most of or a line `sep=;` before it names; quoted as RFC 4180
    says."""

    name = "csv"
    suffixes = with_gzip(".csv", ".tsv")

    def schema(self, uri: str, names: Sequence[str]) -> pa.Schema:
        """The header's names."""
        del names
        return pa.schema([(name, pa.string()) for name in _header(_records(uri))])

    def rows(self, uri: str, columns: pa.Schema) -> Iterator[pa.Table]:
        """Text; what is empty is null."""
        records = _records(uri)
        header = _header(records)
        places = [header.index(name) for name in columns.names]
        numbered = ((number, record) for number, record in enumerate(records, 2) if any(record))  # spreadsheets write empty rows, too
        while part := list(islice(numbered, storage.PAGE)):
            for number, record in part:
                if len(record) != len(header):
                    raise Unreadable(f"record {number} has {plural(len(record), 'value')}, and the header {plural(len(header), 'name')}")
            arrays = [pa.array([record[place] or None for _, record in part], pa.string()) for place in places]
            yield pa.table(arrays, names=columns.names)


def _records(uri: str) -> Iterator[list[str]]:
    text = lines(uri)
    header = next(text, "")
    if told := _SAYS_SO.fullmatch(header):
        header = next(text, "")
    if "\r" in header.rstrip("\r\n"):
        raise Unreadable("its lines end in CR alone, as in old files of a Mac: save it with LF or CRLF")
    delimiter = told[1] if told else max(_DELIMITERS, key=header.count)  # the first of them where there is none

    def all_lines() -> Iterator[str]:
        yield header
        yield from text

    try:
        yield from csv.reader(all_lines(), delimiter=delimiter, strict=True)
    except csv.Error as error:
        raise Unreadable(f"not CSV: {error}") from None


def _header(records: Iterator[list[str]]) -> list[str]:
    names = [name.strip() for name in next(records, [])]
    if not any(names):
        raise Unreadable("it has no header")
    return names
