"""A day's images every night, by Airflow 3: one logical date is one partition of the lake, `dt=`.

    airflow backfill create --dag-id masklake --from-date 2026-11-01 --to-date 2026-11-20 --max-active-runs 4

For the folder `dags/`. Days are disjoint inputs: their runs go on side by side, into one table. What a day holds already is left out.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, CronDataIntervalTimetable
from masklake_airflow import MasklakeOperator

DAY = "{{ ds }}"
ENTRYPOINT = (
    f"python -m masklake segment --config /etc/masklake/settings.yaml --input s3://lake/images/dt={DAY}/ --on-overlap wait --allow-empty"
)

with DAG(
    "masklake",
    description="Segment a day's images",
    schedule=CronDataIntervalTimetable("0 2 * * *", timezone="UTC"),  # a day from two to two; its run begins when it is over
    start_date=datetime(2026, 11, 1, tzinfo=UTC),
    catchup=False,  # the past is a backfill
    max_active_runs=4,  # of the GPUs that there are
    tags=["masklake"],
) as dag:
    MasklakeOperator(
        task_id="segment",
        entrypoint=ENTRYPOINT,
        partition="{{ ds_nodash }}",
        retries=2,
        retry_delay=timedelta(minutes=10),
    )
