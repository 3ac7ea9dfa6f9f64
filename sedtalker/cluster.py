"""Work on a cluster through submitit: shares of a task as jobs, and waiting for their results."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sedtalker.errors import SEDTalkerError, reason_of, require

CLUSTER_POLL = 2.0  # s between two looks at a cluster job
ABSENT_POLLS = 3  # of a job that is not in the queue before it counts as ended

Share = TypeVar("Share")


def map_on_cluster(
    function: Callable[[Share], Any], shares: Sequence[Share], folder: Path, cluster: str | None = None
) -> Iterator[Any]:
    """Result of each share in order, or the exception with which its job ended.

    Args:
        function: picklable; it runs on a node of the cluster.
        folder: for the files of the jobs; all nodes must be able to write it.
        cluster: type of cluster, as submitit names it; None: detect it.

    Raises:
        SEDTalkerError: the jobs cannot be submitted.
    """
    submitit = require("submitit", "cluster")
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    executor.update_parameters(name="sedtalker", timeout_min=24 * 60, cpus_per_task=max(1, (os.cpu_count() or 1) // 2))
    try:
        with executor.batch():
            submitted = [executor.submit(function, share) for share in shares]
    except (RuntimeError, OSError) as error:  # sbatch is missing or refuses the jobs
        reason = reason_of(error)
        raise SEDTalkerError(
            f"the jobs cannot be submitted: {reason}. Check Slurm with sinfo, or run without --executor"
        ) from error
    for job in submitted:
        try:
            if isinstance(job, submitit.SlurmJob):
                _wait_for(job)
            yield job.result()
        except Exception as error:  # the job was cancelled, or its node died
            yield error


def _wait_for(job: Any) -> None:
    """Wait until a job of Slurm has ended; without Slurm's accounting, submitit never sees a cancelled job end."""
    absent = 0
    while not job.done():
        time.sleep(CLUSTER_POLL)
        absent = 0 if _may_be_queued(job.job_id) else absent + 1
        if absent > ABSENT_POLLS and not job.paths.result_pickle.exists():
            raise RuntimeError(f"job {job.job_id} left the queue without a result")


def _may_be_queued(job_id: str) -> bool:
    """False if the queue of Slurm does not contain the job."""
    try:
        listing = subprocess.run(["squeue", "--noheader", "--jobs", job_id], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return True
    answered = listing.returncode == 0 or "Invalid job id" in listing.stderr
    return bool(listing.stdout.strip()) or not answered
