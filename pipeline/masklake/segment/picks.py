"""A few images that stand for a whole input: spread over its folders, and in a folder over its names; the same for the same seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb


@dataclass(frozen=True)
class Some:
    """So many images; another seed picks others."""

    count: int
    seed: int = 0


_FOLDER = "coalesce(left(image_uri, image_container), regexp_extract(image_uri, '^.*/'))"  # a tar file is a folder, too


def pick(database: duckdb.DuckDBPyConnection, some: Some) -> None:
    """Make the table `picked` of `listing_order`, from `listing` and `work`, which has the first mention of each image.

    Folders get images in turn until all are given; where there are more folders than images, every so many-th folder gets one. The images
    of a folder, by name, are cut into as many equal parts as it gets, and of each part the image with the lowest hash is taken.
    """
    database.execute(
        f"CREATE TABLE folders AS SELECT {_FOLDER} AS folder, count(*) AS images "  # noqa: S608 - constants
        "FROM listing JOIN work USING (listing_order) GROUP BY folder"
    )
    (counted,) = database.execute("SELECT count(*) FROM folders").fetchall()
    folders = int(counted[0])
    if folders > some.count:
        offset = int.from_bytes(hashlib.blake2b(str(some.seed).encode(), digest_size=4).digest(), "big") % folders
        database.execute(
            f"""
            CREATE TABLE shares AS SELECT folder, images, 1 AS share
            FROM (FROM folders SELECT *, row_number() OVER (ORDER BY folder) - 1 AS place)
            WHERE ((place + 1) * {some.count} + {offset}) // {folders} > (place * {some.count} + {offset}) // {folders}
            """  # noqa: S608 - numbers only
        )
    else:
        database.execute("CREATE TABLE shares (folder VARCHAR, images BIGINT, share BIGINT)")
        found = database.execute("FROM folders ORDER BY folder").fetchall()
        shares = in_turn([images for _, images in found], some.count)
        for (folder, images), share in zip(found, shares, strict=True):
            database.execute("INSERT INTO shares VALUES (?, ?, ?)", [folder, images, share])
    database.execute(
        f"""
        CREATE TABLE picked AS SELECT arg_min(listing_order, md5('{some.seed} ' || image_uri)) AS listing_order
        FROM (
            SELECT listing_order, image_uri, folder,
                (row_number() OVER (PARTITION BY folder ORDER BY image_uri) - 1) * share // images AS part
            FROM (SELECT listing_order, image_uri, {_FOLDER} AS folder FROM listing JOIN work USING (listing_order))
            JOIN shares USING (folder) WHERE share > 0
        )
        GROUP BY folder, part
        """  # noqa: S608 - numbers only
    )


def in_turn(held: Sequence[int], count: int) -> list[int]:
    """How many of `count` each gets that holds so many, one after another in turn; all that they hold where that is less."""
    shares = [0] * len(held)
    while count and any(share < most for share, most in zip(shares, held, strict=True)):
        for place, most in enumerate(held):
            if count and shares[place] < most:
                shares[place] += 1
                count -= 1
    return shares
