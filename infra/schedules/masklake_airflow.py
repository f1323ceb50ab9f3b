"""An operator and its trigger for Airflow 3: one run of masklake on Kubernetes, deferred while it goes on.

For the folder `plugins/`, where the triggerer finds it, with `masklake_rayjob.py` beside it. What it needs is Airflow's provider
`apache-airflow-providers-cncf-kubernetes`, and a connection whose account may do what `rbac.yaml` lists.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook, KubernetesHook
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from airflow.triggers.base import BaseTrigger, TriggerEvent
from kubernetes.client.exceptions import ApiException
from kubernetes_asyncio.client import CustomObjectsApi
from kubernetes_asyncio.client.exceptions import ApiException as AsyncApiException
from masklake_rayjob import DESCRIPTIONS, GROUP, JOBS, VERSION, ending, is_finished, name_of, ray_job, submitters

_ALREADY_EXISTS, _NOT_FOUND = 409, 404


class RayJobTrigger(BaseTrigger):
    """Waits until KubeRay is done with a RayJob; where somebody ends the task meanwhile, deletes it."""

    def __init__(self, name: str, namespace: str, conn_id: str, poll_seconds: float) -> None:
        super().__init__()
        self.name, self.namespace, self.conn_id, self.poll_seconds = name, namespace, conn_id, poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        told = {"name": self.name, "namespace": self.namespace, "conn_id": self.conn_id, "poll_seconds": self.poll_seconds}
        return f"{type(self).__module__}.{type(self).__qualname__}", told

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event: the RayJob's name, and its status, or None where it is gone."""
        hook = AsyncKubernetesHook(conn_id=self.conn_id)
        while True:
            try:
                async with hook.get_conn() as client:
                    job = await CustomObjectsApi(client).get_namespaced_custom_object(GROUP, VERSION, self.namespace, JOBS, self.name)
            except AsyncApiException as error:
                if error.status == _NOT_FOUND:
                    yield TriggerEvent({"name": self.name, "job": None})
                    return
                self.log.warning("the Kubernetes API answers %s: asked again", error.status)
            else:
                if is_finished(job):
                    yield TriggerEvent({"name": self.name, "job": {"status": job["status"]}})
                    return
            await asyncio.sleep(self.poll_seconds)

    async def on_kill(self) -> None:
        """Somebody cleared or failed the task: its GPUs are not kept. What is committed stays."""
        async with AsyncKubernetesHook(conn_id=self.conn_id).get_conn() as client:
            try:
                await CustomObjectsApi(client).delete_namespaced_custom_object(GROUP, VERSION, self.namespace, JOBS, self.name)
            except AsyncApiException as error:
                if error.status != _NOT_FOUND:
                    raise


class MasklakeOperator(BaseOperator):
    """Creates a RayJob of the RayCronJob `description` with a command of its own, waits for it, and ends as the run's last line says.

    `entrypoint` is the command; `partition` becomes part of the RayJob's name. Both are templated. The result (XCom) is the run's summary.
    """

    template_fields: Sequence[str] = ("entrypoint", "partition")

    def __init__(
        self,
        *,
        entrypoint: str,
        partition: str,
        description: str = "masklake-nightly",
        namespace: str = "masklake",
        conn_id: str = "kubernetes_default",
        **task: Any,
    ) -> None:
        super().__init__(**task)
        self.entrypoint, self.partition, self.description, self.namespace, self.conn_id = (
            entrypoint,
            partition,
            description,
            namespace,
            conn_id,
        )

    def execute(self, context: Any) -> None:
        """Create the RayJob, unless this attempt has already, and give the worker's slot back."""
        ti = context["ti"]
        name = name_of(self.description, self.partition, f"{ti.dag_id}/{ti.task_id}/{ti.run_id}/{ti.map_index}", ti.try_number)
        described = self._hook.get_custom_object(GROUP, VERSION, DESCRIPTIONS, self.description, self.namespace)
        try:
            self._hook.create_custom_object(GROUP, VERSION, JOBS, ray_job(described, name, self.entrypoint), self.namespace)
        except ApiException as error:
            if error.status != _ALREADY_EXISTS:
                raise
        self.log.info("RayJob %s: %s", name, self.entrypoint)
        self.defer(
            trigger=RayJobTrigger(name, self.namespace, self.conn_id, poll_seconds=15),
            method_name="resumed",
            timeout=timedelta(hours=25),  # KubeRay ends it after activeDeadlineSeconds
        )

    def resumed(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """End as the run did: done, skipped, failed for good, or failed and tried again (`retries`)."""
        name = event["name"]
        if event["job"] is None:
            raise AirflowException(f"RayJob {name} was deleted before it was over")
        log = self._log_of(name)
        self.log.info("%s", log)
        end = ending(event["job"], log)
        if end.verdict == "skipped":
            raise AirflowSkipException(end.sentence)
        if end.verdict == "hopeless":
            raise AirflowFailException(end.sentence)
        if end.verdict == "again":
            raise AirflowException(end.sentence)
        self.log.info("%s", end.sentence)
        summary: dict[str, Any] = end.summary
        return summary

    @property
    def _hook(self) -> Any:
        return KubernetesHook(conn_id=self.conn_id)

    def _log_of(self, name: str) -> str:
        core = self._hook.core_v1_client
        pods = core.list_namespaced_pod(self.namespace, label_selector=submitters(name)).items
        newest = sorted(pods, key=lambda pod: pod.metadata.creation_timestamp)[-1:]
        # As bytes: the client makes of text what Python writes for bytes (b'...').
        answers = [
            core.read_namespaced_pod_log(pod.metadata.name, self.namespace, tail_lines=1000, _preload_content=False) for pod in newest
        ]
        return "".join(answer.data.decode(errors="replace") for answer in answers)
