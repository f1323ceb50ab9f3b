"""An input without an image is refused, with what would match; patterns leave images in and out; what is none by its name is counted."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from masklake import storage
from masklake.errors import Refused
from masklake.images.discover import discover
from masklake.images.nothing import refuse_absent, refuse_empty
from masklake.images.patterns import Patterns
from masklake.images.source import Input
from masklake.images.tally import Tally
from tests.unit.images.sources.test_shards import write_tar
from tests.unit.images.test_discover import files

LATE = datetime(2100, 1, 1, tzinfo=UTC)


def listed(uri: object, patterns: Patterns | None = None, since: datetime | None = None) -> tuple[list[str], Tally]:
    """The images of an input, without the folder, and what was counted."""
    tally = Tally()
    asked = Input(str(uri), since=since, patterns=patterns or Patterns())
    return [name for page in discover(asked, tally=tally) for name in page["image_uri"].to_pylist()], tally


def refusal(uri: object, patterns: Patterns | None = None) -> str:
    """The message of either check."""
    asked = Input(str(uri))
    with pytest.raises(Refused) as refused:  # noqa: PT012 - whichever of the two
        refuse_absent(asked.uri)
        refuse_empty(asked.uri, listed(uri, patterns)[1])
    assert str(refused.value).endswith("; if that is as it should be, say --allow-empty")
    return str(refused.value)


def test_an_input_with_images_is_not_refused(tmp_path: Path) -> None:
    files(tmp_path, "in/dt=1/a.jpg")
    for uri in (tmp_path, tmp_path / "in/dt=1/a.jpg", f"{tmp_path}/in/dt=*/", f"{tmp_path}/in/dt={{1,2}}/*.{{jpg,png}}"):
        refuse_absent(f"file://{uri}" if isinstance(uri, Path) else uri)
        refuse_empty(str(uri), listed(uri)[1])


def test_nothing_new_is_no_mistake(tmp_path: Path) -> None:
    files(tmp_path, "a.jpg", "b.txt")
    refuse_empty(str(tmp_path), listed(tmp_path, since=LATE)[1])
    refuse_empty(str(tmp_path), listed(tmp_path, Patterns(("*.jpg",)), LATE)[1])


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "in/dt=2026-10-*",
            "the pattern matches 2 folders (dt=2026-10-01/, dt=2026-10-02/) and no object: write {root}in/dt=2026-10-*/ for ",
        ),
        (
            "in/dt=2026-1[1]-*",
            "the pattern matches a folder (dt=2026-11-01/) and no object: write {root}in/dt=2026-1[1]-*/ for what is below",
        ),
        ("in/dt=2026-{10,11}-01", "the pattern matches 2 folders (dt=2026-10-01/, dt=2026-11-01/) and no object"),
        (
            "in/dt=2026-10",
            "there is nothing there: 2 names in {root}in/ begin so (dt=2026-10-01/, dt=2026-10-02/): write {root}in/dt=2026-10*/",
        ),
        ("imag/", "there is nothing there: did you mean {root}images/?"),
        ("Images/x/y", "there is nothing there: did you mean {root}images/?"),
        ("in/dt=2026-10-03/", "there is nothing there: did you mean {root}in/dt=2026-10-0"),
        ("images/a.jpg", "there is nothing there: did you mean {root}images/b.jpg?"),
        ("zzz/", "there is nothing there: {root} holds empty/, hidden/, hiden/ and "),
        ("images/*.jpeg", "no object matches: {root}images/ holds b.jpg"),
        ("in/dt=2025-*/*.jpg", "no object matches: did you mean {root}in/dt=2026-"),
        ("hidden/", "all that it holds is hidden, with names that begin with _ or . (.b.jpg, _a.jpg)"),
        ("empty", "there is nothing there; "),  # and not: did you mean empty/?
        ("empty/", "there is nothing there; "),
        ("empty/x/y.jpg", "there is nothing there; "),
        ("emp*", "no object matches: did you mean {root}empty/?"),
        ("empty/*.jpg", "there is nothing there; "),
        ("hiden/", "there is nothing there: did you mean {root}hidden/?"),  # empty, beside the one that was meant
        ("images/b.jpg/", "there is nothing there: did you mean {root}images/b.jpg?"),
        ("images/b.jpg/c.jpg", "there is nothing there: did you mean {root}images/b.jpg?"),
        ("none.csv", "it names no image"),
        ("none.parquet", "it names no image"),
        ("texts.tar", "none of its objects (1) holds an image"),
    ],
)
def test_an_input_without_images_is_refused_with_what_would_match(tmp_path: Path, uri: str, message: str) -> None:
    files(
        tmp_path,
        "in/dt=2026-10-01/a.jpg",
        "in/dt=2026-10-02/a.jpg",
        "in/dt=2026-11-01/a.jpg",
        "images/b.jpg",
        "hidden/_a.jpg",
        "hidden/.b.jpg",
    )
    for name in ("empty", "hiden"):
        (tmp_path / name).mkdir()
    (tmp_path / "none.csv").write_text("uri\n")
    pq.write_table(pa.table({"uri": pa.array([], pa.string())}), tmp_path / "none.parquet")
    write_tar(tmp_path / "texts.tar", {"a.txt": b"a"})
    assert message.format(root=f"file://{tmp_path}/") in refusal(f"{tmp_path}/{uri}")


def test_a_path_that_is_not_there_is_refused_with_what_it_may_mean(tmp_path: Path) -> None:
    files(tmp_path, "images/b.jpg")
    with pytest.raises(
        Refused, match=r"--input .*imagse: there is no such file or folder: correct the path; did you mean file://.*/images/\?"
    ):
        storage.check_input(f"{tmp_path}/imagse")


# --- patterns -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (Patterns(), ["a.jpg", "raw/b.JPG", "raw/x/c.png", "t.tar/1.jpg", "t.tar/raw/2.png", "z.txt"]),
        (Patterns(("*.jpg",)), ["a.jpg", "t.tar/1.jpg"]),
        (Patterns(("*.{jpg,JPG}", "z*")), ["a.jpg", "raw/b.JPG", "t.tar/1.jpg", "z.txt"]),
        (Patterns((), ("*.txt", "raw/")), ["a.jpg", "t.tar/1.jpg"]),
        (Patterns((), ("raw/*",)), ["a.jpg", "raw/x/c.png", "t.tar/1.jpg", "z.txt"]),
        (Patterns(("raw/**",)), ["raw/b.JPG", "raw/x/c.png", "t.tar/raw/2.png"]),
        (Patterns(("*.png",), ("t.tar",)), ["raw/x/c.png"]),
        (Patterns(("/a.jpg", "?.txt")), ["a.jpg", "z.txt"]),
    ],
)
def test_patterns_leave_images_in_and_out(tmp_path: Path, patterns: Patterns, left: list[str]) -> None:
    files(tmp_path, "in/a.jpg", "in/raw/b.JPG", "in/raw/x/c.png", "in/z.txt")
    write_tar(tmp_path / "in/t.tar", {"1.jpg": b"1", "raw/2.png": b"2"})
    names, tally = listed(tmp_path / "in", patterns)
    assert sorted(name.removeprefix(f"file://{tmp_path}/in/") for name in names) == left
    members_unseen = 1 if "t.tar" in patterns.exclude else 0  # the tar itself is left out, and so not opened
    assert (tally.listed, tally.images, tally.excluded) == (5, len(left), 6 - len(left) - members_unseen)


def test_what_holds_images_and_cannot_be_read_stays_a_row(tmp_path: Path) -> None:
    (tmp_path / "torn.tar").write_bytes(b"no tar" * 1000)
    assert listed(tmp_path, Patterns(("*.jpg",)))[0] == [f"file://{tmp_path}/torn.tar"]
    assert listed(tmp_path, Patterns(("*.jpg",), ("torn*",)))[0] == []


def test_rows_of_tables_go_by_their_files(tmp_path: Path) -> None:
    for name in ("train-0", "test-0"):
        pq.write_table(pa.table({"image": [b"x"]}), tmp_path / f"{name}.parquet")
    pages = discover(Input(str(tmp_path), bytes_column="image", patterns=Patterns((), ("test-*",))))
    assert [name for page in pages for name in page["image_uri"].to_pylist()] == [f"file://{tmp_path}/train-0.parquet#column=image&row=0"]


def test_patterns_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    files(tmp_path, "a.jpg", "b.jpg", "c.txt", "noending")
    message = refusal(tmp_path, Patterns(("*.jpeg",)))
    assert message.startswith(
        f"--include, --exclude: they leave out every image of file://{tmp_path} (2 .jpg, 1 without an ending, 1 .txt); if that is as it "
        "should be, say --allow-empty"
    )
    with pytest.raises(Refused, match="not a pattern"):
        Patterns(("**x",))


def test_what_is_no_image_by_its_name_is_counted(tmp_path: Path) -> None:
    files(
        tmp_path,
        "a.JPG",
        "b.jpeg",
        "c",
        "d.v2.tiff",
        "photo.2026",
        "Thumbs.db",
        "README.txt",
        "x/LICENSE.TXT",
        "meta.json",
        "_SUCCESS",
        "e.tar.gz",
    )
    write_tar(tmp_path / "t.tar", {"1.jpg": b"1", "1.json": b"{}"})
    names, tally = listed(tmp_path)
    assert (len(names), tally.listed) == (11, 11)
    assert tally.unlike == {".txt": 2, ".db": 1, ".json": 1, ".gz": 1}
    (tmp_path / "list.txt").write_text("a.JPG\nREADME.txt\ngone.txt\n")
    assert listed(tmp_path / "list.txt")[1].unlike == {".txt": 1}, "what is known to be gone is not counted"
