"""The job that this process belongs to."""

import os
import typing as tp


def current_job(logs: str) -> tuple[dict[str, tp.Any], int]:
    """Which job this process belongs to, from the environment.

    Parameters
    ----------
    logs: str
        folder of the logs, with ``%j`` for the id

    Returns
    -------
    dict
        ``cluster``, ``job_id``, ``logs`` for records
    int
        rank of this process in the job
    """
    env = os.environ
    if env.get("SUBMITIT_EXECUTOR") == "local" and "SUBMITIT_LOCAL_JOB_ID" in env:
        rank = int(env.get("SUBMITIT_LOCAL_GLOBALID", "0"))
        where = {"cluster": "local", "job_id": env["SUBMITIT_LOCAL_JOB_ID"], "logs": logs}
        return {**where, "processes": int(env.get("SUBMITIT_LOCAL_NTASKS", "1"))}, rank
    if "SLURM_JOB_ID" in env and env.get("SUBMITIT_EXECUTOR") == "slurm":
        job_id = env["SLURM_JOB_ID"]
        if "SLURM_ARRAY_JOB_ID" in env:
            job_id = f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
        where = {"cluster": "slurm", "job_id": job_id, "logs": logs}
        return {**where, "processes": int(env.get("SLURM_NTASKS", "1"))}, int(env.get("SLURM_PROCID", "0"))
    return {"cluster": "debug", "job_id": env.get("SUBMITIT_DEBUG_JOB_ID", ""), "logs": logs}, 0
