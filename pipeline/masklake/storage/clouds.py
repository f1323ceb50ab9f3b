"""Google's and Azure's object storage, by the drivers that the extras `gcs` and `azure` bring. Keys are where these look for them.

delta-rs, which writes tables, has its own clients; what its names for the same settings are is known here.
"""

from __future__ import annotations

import json
import os
import re

from masklake.storage.stores import Store

_ACCOUNT = re.compile(r"abfs://[^/@]+@([^/.]+)\.(?:dfs|blob)\.[^/]+")
_CONNECTION = {
    "AccountName": "azure_storage_account_name",
    "AccountKey": "azure_storage_account_key",
    "SharedAccessSignature": "azure_storage_sas_token",
    "BlobEndpoint": "azure_storage_endpoint",
}


class CloudStore(Store):
    """Object storage by a driver of fsspec: folders need not be made."""

    def check_writable(self, uri: str) -> None:
        super().check_writable(uri)
        probe = f"{uri.rstrip('/')}/_masklake/write-check-{os.getpid()}"
        self.write(probe, b"")
        self.delete(probe)


class AzureStore(CloudStore):
    """Azure's: URIs are `abfs://container/path`, or `abfs://container@account.dfs.core.windows.net/path`, which name their account."""

    def __init__(self, account: str) -> None:
        super().__init__("abfs", **({"account_name": account} if account else {}))
        self._host = f"@{account}.dfs.core.windows.net" if account else ""

    def _uri(self, name: str) -> str:
        container, _, path = name.partition("/")
        return f"abfs://{container}{self._host}/{path}"


def azure_account(uri: str) -> str:
    """The account that a URI names; '' where it is the environment's."""
    named = _ACCOUNT.match(uri)
    return named[1] if named else ""


def delta_options(scheme: str) -> dict[str, str]:
    """What delta-rs needs beside its own look at the environment; contains secrets."""
    if scheme == "abfs" and (text := os.environ.get("AZURE_STORAGE_CONNECTION_STRING")):
        said = dict(part.split("=", 1) for part in text.strip(";").split(";") if "=" in part)
        options = {option: said[name] for name, option in _CONNECTION.items() if name in said}
        http = options.get("azure_storage_endpoint", said.get("DefaultEndpointsProtocol", "https")).startswith("http:")
        return {**options, **({"azure_allow_http": "true"} if http else {})}
    if scheme == "gs" and (emulator := os.environ.get("STORAGE_EMULATOR_HOST")):
        nobody = {"gcs_base_url": emulator, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
        return {"google_service_account_key": json.dumps(nobody)}
    return {}
