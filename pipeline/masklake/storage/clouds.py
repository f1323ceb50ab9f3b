"""Google's and Azure's object storage, by the drivers that the extras `gcs` and `azure` bring. Keys are where these look for them.

delta-rs, which writes tables, has its own clients; what its names for the same settings are is known here.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path

from fsspec.config import conf

from masklake.storage.faults import MissingKeysError
from masklake.storage.stores import Store

_ACCOUNT = re.compile(r"abfs://[^/@]+@([^/.]+)\.(?:dfs|blob)\.[^/]+")
_CONNECTION = {
    "AccountName": "azure_storage_account_name",
    "AccountKey": "azure_storage_account_key",
    "SharedAccessSignature": "azure_storage_sas_token",
    "BlobEndpoint": "azure_storage_endpoint",
}
_PODS = "KUBERNETES_SERVICE_HOST"  # where a machine's own keys may be had, though nothing else tells so
# Where drivers find keys, or a machine of the cloud's own tells that it has some.
_SIGNS = {
    "gs": (
        *("STORAGE_EMULATOR_HOST", "GCE_METADATA_HOST", "GCE_METADATA_IP", "GCE_METADATA_ROOT", "K_SERVICE", "CLOUD_RUN_JOB", "GAE_ENV"),
        _PODS,
    ),
    "abfs": (
        *("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CLIENT_ID"),
        *("AZURE_STORAGE_ANON", "AZURE_CLIENT_ID", "AZURE_USERNAME", "AZURE_FEDERATED_TOKEN_FILE", "IDENTITY_ENDPOINT", "MSI_ENDPOINT"),
        _PODS,
    ),
}
_FILES = {"gs": ("~/.gcs_tokens",), "abfs": ("~/.azure", "~/.IdentityService")}
_MACHINES = {"gs": ("product_name", "Google"), "abfs": ("sys_vendor", "Microsoft")}
_ANONYMOUS = {"gs": "google_skip_signature", "abfs": "azure_skip_signature"}
KEYS = {
    "gs": "GOOGLE_APPLICATION_CREDENTIALS to the file of a key, or log in with gcloud auth application-default login",
    "abfs": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_CONNECTION_STRING",
}
"""What to set, for each scheme."""


def check_keys(scheme: str, machine: Path = Path("/sys/class/dmi/id")) -> None:
    """See that there may be keys, before a driver asks addresses for them that do not answer outside of its cloud, for minutes.

    Raises:
        MissingKeysError: nothing in the environment, the user's folder or the machine says so; or a file of keys is named and not there.
    """
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") if scheme == "gs" else None
    if named and not Path(named).is_file():
        raise MissingKeysError(f"GOOGLE_APPLICATION_CREDENTIALS={named}: there is no such file: correct it")
    gcloud = os.environ.get("CLOUDSDK_CONFIG") or "~/.config/gcloud"
    files = (*_FILES[scheme], *((f"{gcloud}/application_default_credentials.json",) if scheme == "gs" else ()))
    told = named or any(os.environ.get(name) for name in _SIGNS[scheme]) or any(conf.get(name) for name in ("gs", "gcs", "abfs", "az"))
    if told or any(Path(file).expanduser().exists() for file in files):
        return
    field, maker = _MACHINES[scheme]
    with suppress(OSError):
        if maker in (machine / field).read_text():
            return
    raise MissingKeysError(f"there are no credentials: set {KEYS[scheme]}; segment reads a public bucket with --input-anonymous")


class CloudStore(Store):
    """Object storage by a driver of fsspec: folders need not be made."""

    def check_writable(self, uri: str) -> None:
        super().check_writable(uri)
        probe = f"{uri.rstrip('/')}/_masklake/write-check-{os.getpid()}"
        self.write(probe, b"")
        self.delete(probe)


class AzureStore(CloudStore):
    """Azure's: URIs are `abfs://container/path`, or `abfs://container@account.dfs.core.windows.net/path`, which name their account."""

    def __init__(self, account: str, anonymous: bool = False) -> None:
        super().__init__("abfs", **({"account_name": account} if account else {}), **({"anon": True} if anonymous else {}))
        self._host = f"@{account}.dfs.core.windows.net" if account else ""

    def _uri(self, name: str) -> str:
        container, _, path = name.partition("/")
        return f"abfs://{container}{self._host}/{path}"


def azure_account(uri: str) -> str:
    """The account that a URI names; '' where it is the environment's."""
    named = _ACCOUNT.match(uri)
    return named[1] if named else ""


def google_store(anonymous: bool = False) -> CloudStore:
    """Google's."""
    return CloudStore("gs", **({"token": "anon"} if anonymous else {}))


def delta_options(scheme: str, anonymous: bool = False) -> dict[str, str]:
    """What delta-rs needs beside its own look at the environment; contains secrets."""
    if anonymous and scheme in _ANONYMOUS:
        return {_ANONYMOUS[scheme]: "true"}
    if scheme == "abfs" and (text := os.environ.get("AZURE_STORAGE_CONNECTION_STRING")):
        said = dict(part.split("=", 1) for part in text.strip(";").split(";") if "=" in part)
        options = {option: said[name] for name, option in _CONNECTION.items() if name in said}
        http = options.get("azure_storage_endpoint", said.get("DefaultEndpointsProtocol", "https")).startswith("http:")
        return {**options, **({"azure_allow_http": "true"} if http else {})}
    if scheme == "gs" and (emulator := os.environ.get("STORAGE_EMULATOR_HOST")):
        nobody = {"gcs_base_url": emulator, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
        return {"google_service_account_key": json.dumps(nobody)}
    return {}
