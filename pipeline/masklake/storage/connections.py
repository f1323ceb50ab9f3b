"""How S3 is reached: endpoint, region, addressing, trusted certificates and credentials, resolved once, as botocore does it.

botocore looks into the environment, a profile (also its `endpoint_url`, `services`, `ca_bundle` and `s3.addressing_style`) and, for
credentials, wherever else AWS's tools look. What it finds is given to each half of the program: s3fs, delta-rs and pyiceberg.
"""

from __future__ import annotations

import functools
import hashlib
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.exceptions import ConfigParseError, ProfileNotFound

from masklake.errors import Refused
from masklake.storage.files import cache_root
from masklake.storage.places import USUAL, Place

if TYPE_CHECKING:
    from botocore.session import Session

DEFAULT_REGION = "us-east-1"
_AWS_HOSTS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
_VARIABLES = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"),
    *(
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_CA_BUNDLE",
    ),
)


@dataclass(frozen=True)
class Connection:
    """One way to reach S3. Holds no secrets."""

    endpoint: str | None
    """The URL of a store that is configured; None for AWS's own of the region."""
    region: str
    virtual: bool
    """The bucket is part of the host's name, instead of the path."""
    ca_bundle: str | None
    """The file of the certificates to trust instead of the usual ones."""
    place: Place = USUAL

    @property
    def shown(self) -> str:
        """The endpoint for a message: without what may be secret in it."""
        parts = urlsplit(self.endpoint or "https://s3.amazonaws.com")
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def delta_options(self, bucket: str) -> dict[str, str]:
        """What delta-rs needs to open a table in this bucket over this connection; contains secrets.

        Credentials that renew themselves (an instance's or a pod's role) are left to delta-rs, which finds and renews them as well.
        """
        options = {"aws_region": self.region, "aws_conditional_put": "etag"}
        if self.endpoint:
            # By another name of the option, delta-rs would take the environment's AWS_ENDPOINT_URL_S3 instead.
            options |= {
                "aws_endpoint_url_s3": self._endpoint_of(bucket),
                "aws_allow_http": str(self.endpoint.startswith("http://")).lower(),
            }
        if self.virtual:
            options["aws_virtual_hosted_style_request"] = "true"
        if self.place.requester_pays:
            options["aws_request_payer"] = "true"
        if self.place.anonymous:
            return options | {"aws_skip_signature": "true"}
        return options | self._lasting_credentials("aws_access_key_id", "aws_secret_access_key", "aws_session_token")

    def iceberg_options(self) -> dict[str, str]:
        """The same for pyiceberg: properties of a catalog, of which it stores none; contains secrets."""
        options = {"s3.region": self.region}
        if self.endpoint:
            options["s3.endpoint"] = self.endpoint
        if self.virtual:
            options["s3.force-virtual-addressing"] = "true"
        if self.ca_bundle:  # Arrow's own S3 client takes no certificates; s3fs takes botocore's
            options["py-io-impl"] = "pyiceberg.io.fsspec.FsspecFileIO"
        return options | self._lasting_credentials("s3.access-key-id", "s3.secret-access-key", "s3.session-token")

    def _lasting_credentials(self, access_key: str, secret_key: str, token: str) -> dict[str, str]:
        """The credentials under these names; none where there are none, or they renew themselves."""
        from botocore.credentials import RefreshableCredentials

        credentials = _credentials(environment(), self.place.profile)
        if credentials is None or isinstance(credentials, RefreshableCredentials):
            return {}
        found = {access_key: credentials.access_key, secret_key: credentials.secret_key, token: credentials.token}
        return {name: value for name, value in found.items() if value}

    def _endpoint_of(self, bucket: str) -> str:
        """The endpoint as delta-rs wants it: it adds the bucket to a path, and never to a host."""
        endpoint = self.endpoint or ""
        scheme, _, host = endpoint.partition("://")
        return f"{scheme}://{bucket}.{host}" if self.virtual else endpoint


def environment() -> tuple[str | None, ...]:
    """The variables that decide which store answers, and to whom."""
    return tuple(os.environ.get(name) for name in _VARIABLES)


def connection(place: Place = USUAL) -> Connection:
    """The connection to a place that its settings and the environment, as they are now, ask for.

    Raises:
        Refused: there is no such profile, or the file of certificates is not there.
    """
    try:
        return _resolve(environment(), place)
    except ProfileNotFound:
        named = f"profile {place.profile}" if place.profile else f"AWS_PROFILE {os.environ.get('AWS_PROFILE')}"
        raise Refused(f"{named}: there is no such profile in AWS's configuration files") from None
    except ConfigParseError as error:
        raise Refused(f"AWS's configuration: {error}") from None


@functools.lru_cache(maxsize=8)
def _resolve(_environment: tuple[str | None, ...], place: Place) -> Connection:
    session = _session(place.profile)
    profile = session.get_scoped_config()
    bundle = session.get_config_variable("ca_bundle")
    if bundle and not Path(bundle).expanduser().is_file():
        raise Refused(f"AWS_CA_BUNDLE, or the profile's ca_bundle, {bundle}: there is no such file of certificates")
    bundle = str(Path(bundle).expanduser()) if bundle else None
    _trust(bundle)  # now, before there is a client with threads of its own: `masklake.variables` says why
    endpoint = place.endpoint or _endpoint(session, profile, own=place.profile is not None)
    if endpoint and "@" in urlsplit(endpoint).netloc:
        raise Refused(
            "AWS_ENDPOINT_URL, or the profile's endpoint_url: it carries a password, which errors would show: put keys into the environment"
        )
    return Connection(
        endpoint=endpoint,
        region=os.environ.get("AWS_REGION") or session.get_config_variable("region") or DEFAULT_REGION,
        virtual=_section(profile, "s3").get("addressing_style") == "virtual",
        ca_bundle=bundle,
        place=place,
    )


def _endpoint(session: Session, profile: dict[str, Any], own: bool) -> str | None:
    """As AWS's reference guide orders them: service-specific before general, the environment before the profile.

    A profile of a place's own goes before the environment: who names one for the input does not mean the endpoint of the output.
    """
    of_environment = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    services = _section(_section(session.full_config, "services"), str(profile.get("services")))
    of_profile = _section(services, "s3").get("endpoint_url") or profile.get("endpoint_url")
    named = of_profile if own else of_environment or of_profile
    return None if session.get_config_variable("ignore_configured_endpoint_urls") else named or None


def _section(of: dict[str, Any], name: str) -> dict[str, Any]:
    found = of.get(name)
    return found if isinstance(found, dict) else {}


@functools.lru_cache(maxsize=8)
def _credentials(_environment: tuple[str | None, ...], profile: str | None) -> Any:
    return _session(profile).get_credentials()


def _session(profile: str | None) -> Session:
    from botocore.session import Session  # which takes long to be imported: only where the store is S3

    return Session(profile=profile)


@functools.lru_cache(maxsize=8)
def _trust(ca_bundle: str | None) -> None:
    """Let delta-rs trust these certificates beside the usual ones: it takes them from the file of SSL_CERT_FILE, and by no option."""
    usual = ssl.get_default_verify_paths().cafile
    if ca_bundle is None or os.environ.get("SSL_CERT_FILE") or (usual and Path(ca_bundle).resolve() == Path(usual).resolve()):
        return
    both = (Path(usual).read_bytes() + b"\n" if usual else b"") + Path(ca_bundle).read_bytes()
    path = cache_root() / "certificates" / f"{hashlib.sha256(both).hexdigest()[:32]}.pem"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(both)
        partial.replace(path)
    os.environ["SSL_CERT_FILE"] = str(path)
