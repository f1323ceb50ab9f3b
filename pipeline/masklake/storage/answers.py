"""S3's answers, read faster: as botocore reads a listing, that takes longer than all the rest of a plan."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from aiobotocore.parsers import AioResponseParserFactory, AioRestXMLParser
from aiobotocore.session import AioSession
from botocore.utils import parse_timestamp


def session_for_listing(profile: str | None = None) -> AioSession:
    """A session whose clients read listings several times as fast as usual, and all else as usual."""
    session = AioSession(profile=profile)
    session.register_component("response_parser_factory", _Factory())
    return session


class _Factory(AioResponseParserFactory):  # type: ignore[misc]
    def create_parser(self, protocol_name: str) -> Any:
        return _Parser(timestamp_parser=_time) if protocol_name == "rest-xml" else super().create_parser(protocol_name)


class _Parser(AioRestXMLParser):  # type: ignore[misc]
    def _handle_list(self, shape: Any, node: Any) -> Any:
        if shape.name != "ObjectList":
            return super()._handle_list(shape, node)
        return [_listed(entry) for entry in (node if isinstance(node, list) else [node])]


def _listed(entry: Any) -> dict[str, Any]:
    """What is used of an object's entry; a thousand of them by their model would take four times as long."""
    texts = {child.tag.rpartition("}")[2]: child.text or "" for child in entry}
    return {
        "Key": texts["Key"],
        "ETag": texts.get("ETag", ""),
        "Size": int(texts["Size"]),
        "LastModified": _time(texts["LastModified"]),
    }


def _time(text: Any) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except (ValueError, TypeError):
        return cast("datetime", parse_timestamp(text))
