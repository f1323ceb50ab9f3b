"""A day's masks as an asset of Dagster: one partition is one day of the lake, `dt=`.

    pip install dagster kubernetes
    dagster asset materialize -f infra/schedules/masklake_dagster.py --select masks --partition 2026-11-22

The account is a pod's own, or that of KUBECONFIG; it may do what `rbac.yaml` lists. `masklake_rayjob.py` is beside this file.
"""

import shlex
import time
from typing import Any

from dagster import AssetExecutionContext, DailyPartitionsDefinition, Definitions, Failure, MaterializeResult, asset, define_asset_job
from dagster import build_schedule_from_partitioned_job as nightly
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from masklake_rayjob import DESCRIPTIONS, GROUP, JOBS, VERSION, Ending, ending, is_finished, name_of, ray_job, submitters

DESCRIPTION, NAMESPACE = "masklake-nightly", "masklake"
COMMAND = "python -m masklake segment --config /etc/masklake/settings.yaml --on-overlap wait --allow-empty"
POLL_SECONDS = 15.0
_ALREADY_EXISTS = 409


def run(day: str, run_id: str, attempt: int) -> Ending:
    """One day's RayJob, from its creation to its end. The same attempt twice is one RayJob."""
    try:
        config.load_incluster_config()
    except config.ConfigException:
        config.load_kube_config()
    objects, core = client.CustomObjectsApi(), client.CoreV1Api()
    name = name_of(DESCRIPTION, day.replace("-", ""), run_id, attempt)
    described = objects.get_namespaced_custom_object(GROUP, VERSION, NAMESPACE, DESCRIPTIONS, DESCRIPTION)
    entrypoint = f"{COMMAND} --input {shlex.quote(f's3://lake/images/dt={day}/')}"
    try:
        objects.create_namespaced_custom_object(GROUP, VERSION, NAMESPACE, JOBS, ray_job(described, name, entrypoint))
    except ApiException as error:
        if error.status != _ALREADY_EXISTS:
            raise
    while not is_finished(job := objects.get_namespaced_custom_object(GROUP, VERSION, NAMESPACE, JOBS, name)):
        time.sleep(POLL_SECONDS)
    return ending(job, _log_of(core, name))


def _log_of(core: Any, name: str) -> str:
    pods = core.list_namespaced_pod(NAMESPACE, label_selector=submitters(name)).items
    newest = sorted(pods, key=lambda pod: pod.metadata.creation_timestamp)[-1:]
    # As bytes: the client makes of text what Python writes for bytes (b'...').
    answers = [core.read_namespaced_pod_log(pod.metadata.name, NAMESPACE, tail_lines=1000, _preload_content=False) for pod in newest]
    return "".join(answer.data.decode(errors="replace") for answer in answers)


@asset(partitions_def=DailyPartitionsDefinition(start_date="2026-11-01"), description="A day's rows of the table of masks")
def masks(context: AssetExecutionContext) -> MaterializeResult:
    """Materialised where the run is done, or another one is at it; what is refused is not tried again."""
    end = run(context.partition_key, context.run.run_id, context.retry_number)
    if end.verdict in ("hopeless", "again"):
        raise Failure(end.sentence, allow_retries=end.verdict == "again")
    numbers = {name: value for name, value in end.summary.items() if isinstance(value, int | float | str)}
    return MaterializeResult(metadata={"ending": end.sentence, **numbers})


every_night = define_asset_job("every_night", selection=[masks])
definitions = Definitions(assets=[masks], jobs=[every_night], schedules=[nightly(every_night, hour_of_day=2)])
