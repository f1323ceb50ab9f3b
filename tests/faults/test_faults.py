"""A few of the trials that `make faults` makes many of, and the proxy that breaks requests."""

from __future__ import annotations

from collections.abc import Iterator

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from masklake.demo.seaweedfs import REGION, SeaweedFS
from tests.faults.kinds import NEED_ROOT, can_mount
from tests.faults.proxy import Faults, broken
from tests.faults.trials import Harness
from tests.faults.verify import COUNTS

# With seeds whose moments come before the job is over: what does not strike is tried again. The other kinds are for `make faults`: a lost
# node, say, takes actors and tasks with it; and what a driver makes of a cluster that answers no more is in `test_flow.py`.
SELECTION = {"lose-node": 1, "break-requests": 1, "fill-store": 1}


@pytest.fixture(scope="module")
def harness() -> Iterator[Harness]:
    with Harness() as running:
        yield running


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "seed"), SELECTION.items(), ids=list(SELECTION))
def test_nothing_is_lost_doubled_or_left_behind(harness: Harness, kind: str, seed: int) -> None:
    if kind in NEED_ROOT and not can_mount():
        pytest.skip("only root can mount the small disk that is to fill up")
    trial = harness.run(kind, seed)
    assert trial["problems"] == []
    assert {name: trial[name] for name in COUNTS} == dict.fromkeys(COUNTS, 0)


@pytest.mark.parametrize("fault", ["500", "503", "reset", "lost", "truncated"])
def test_the_proxy_breaks_what_it_is_asked_to_and_forwards_the_rest_as_signed(s3: SeaweedFS, bucket: str, fault: str) -> None:
    faults = Faults(seed=1, share=0.0, of_commits=0.0, kinds=(fault,))
    with broken(s3.endpoint, faults) as endpoint:
        client = botocore.session.Session().create_client(
            "s3",
            endpoint_url=endpoint,
            region_name=REGION,
            aws_access_key_id=s3.access_key,
            aws_secret_access_key=s3.secret_key,
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )
        client.put_object(Bucket=bucket, Key="whole", Body=b"12345678")
        assert client.get_object(Bucket=bucket, Key="whole")["Body"].read() == b"12345678"
        assert client.head_object(Bucket=bucket, Key="whole")["ContentLength"] == 8
        assert [found["Key"] for found in client.list_objects_v2(Bucket=bucket)["Contents"]] == ["whole"]

        faults.share = faults.of_commits = 1.0
        with pytest.raises((BotoCoreError, ClientError)):
            client.put_object(Bucket=bucket, Key="broken", Body=b"1", IfNoneMatch="*")
        with pytest.raises((BotoCoreError, ClientError)):
            client.get_object(Bucket=bucket, Key="whole")["Body"].read()
        client.close()
    names = {found["Key"] for found in s3.client.list_objects_v2(Bucket=bucket)["Contents"]}
    assert ("broken" in names) == (fault in ("lost", "truncated")), "only a lost answer is one of work that was done"
