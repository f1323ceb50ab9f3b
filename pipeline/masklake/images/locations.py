"""Where images may lie that somebody's list names: beside the list, unless the user says more.

Whoever writes a list would otherwise choose what this machine reads for them: files of its own, addresses within its network, buckets to
which its keys happen to open.
"""

from __future__ import annotations

from collections.abc import Iterable

from masklake import storage
from masklake.errors import Refused


def own_location(uri: str) -> str:
    """What belongs to an input of this URI without being asked: its bucket; of a local one, its folder."""
    scheme, _, rest = uri.partition("://")
    if scheme != "file":
        return f"{scheme}://{rest.partition('/')[0]}/"
    root = storage.glob_root(uri) if storage.is_glob(uri) else uri
    return root[: root.rindex("/") + 1]


def named_by(owner: str, names: Iterable[str]) -> list[str]:
    """The canonical forms of URIs or local paths that `owner`, an input, names.

    Raises:
        Refused: one carries a password, a signature or a token; the message does not repeat it.
    """
    try:
        return [storage.normalise(name) for name in names]
    except Refused as refused:
        raise Refused(f"--input {owner}: it names {refused}") from None


def check_locations(named: Iterable[str], owner: str, allowed: Iterable[str]) -> None:
    """See that URIs in canonical form lie where `owner`, the input that names them, does, or below one of the `allowed` prefixes.

    Raises:
        Refused: one lies elsewhere, or by a scheme of which no store is known here.
    """
    known = set[str]()
    prefixes = (own_location(owner), *(storage.normalise(prefix).rstrip("/") + "/" for prefix in allowed))
    for uri in named:
        if uri.startswith(prefixes):
            scheme = uri.partition("://")[0]
            if scheme not in known:
                storage.check_scheme(uri)
                known.add(scheme)
        else:
            raise Refused(
                f"--input {owner}: it names {uri}, and may name what is below {prefixes[0]}: "
                f"say --allow-location {own_location(uri)} if images there are meant"
            )
