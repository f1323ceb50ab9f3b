"""What the GPU benchmark needs and a machine without a network lacks, packed into archives that can be carried there one by one.

    python -m jobs.benchmarks.gpu.carry --output .carry

Writes `NAME.txz` files of unpacked wheels for Python 3.12 on Linux x86-64, without the parts that a local job does not use (Ray's jars,
rllib and the dashboard's pages, the descriptions of AWS's other services). On the machine, `tar -xJf NAME.txz -C /tmp/site` for each, and
PYTHONPATH=/tmp/site.
"""

from __future__ import annotations

import argparse
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

_ARCHIVES = {
    "table": ("deltalake", "arro3-core", "duckdb"),
    "job": (
        "ray", "s3fs", "aiobotocore", "botocore", "aioitertools", "jmespath", "wrapt", "pydantic", "pydantic_core", "annotated-types",
        "typing-inspection", "pycocotools", "msgpack", "jsonschema", "jsonschema-specifications", "referencing", "rpds-py", "click",
    ),
    "beside": (
        "protobuf", "requests", "urllib3", "charset-normalizer", "attrs", "pandas", "python-dateutil", "six", "aiohttp", "multidict",
        "yarl", "propcache", "aiohappyeyeballs", "aiosignal", "frozenlist",
    ),
}  # fmt: skip
_UNUSED = ("ray/jars", "ray/rllib", "ray/dashboard/client/build", "ray/cpp")
_SERVICES = ("s3", "sts", "sso", "sso-oidc")
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def main() -> int:
    """Download, prune, strip and pack; prints the archives' sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(".carry"), help="folder for the archives (default: %(default)s)")
    parser.add_argument("--preset", type=int, default=6, help="of xz: 0 is quick, 9 is small (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, packages in _ARCHIVES.items():
        with tempfile.TemporaryDirectory() as folder:
            site = Path(folder) / "site"
            _unpack(packages, Path(folder) / "wheels", site)
            _prune(site)
            archive = arguments.output / f"{name}.txz"
            with lzma.open(archive, "wb", preset=arguments.preset) as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
                tar.add(site, ".")
            print(f"{archive}: {archive.stat().st_size / 2**20:.1f} MiB")
    return 0


def _unpack(packages: tuple[str, ...], wheels: Path, site: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--python-version", "3.12"]
    command += ["--implementation", "cp", *(word for name in _PLATFORMS for word in ("--platform", name)), "-d", str(wheels)]
    subprocess.run([*command, *(f"{package}=={version(package)}" for package in packages)], check=True)
    for wheel in wheels.glob("*.whl"):
        shutil.unpack_archive(wheel, site, "zip")


def _prune(site: Path) -> None:
    for unused in _UNUSED:
        shutil.rmtree(site / unused, ignore_errors=True)
    for service in (site / "botocore" / "data").glob("*/"):
        if service.name not in _SERVICES:
            shutil.rmtree(service)
    binaries = [*site.rglob("*.so*"), *site.glob("ray/core/src/ray/*/raylet"), *site.glob("ray/core/src/ray/gcs/gcs_server")]
    for binary in binaries:
        subprocess.run(["strip", "--strip-unneeded", str(binary)], check=False, stderr=subprocess.DEVNULL)
        binary.chmod(0o755)


if __name__ == "__main__":
    sys.exit(main())
