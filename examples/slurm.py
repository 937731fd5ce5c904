"""A study on a Slurm cluster whose nodes share a directory: an array of jobs, and then the page.

    pip install submitit
    python examples/slurm.py study.toml --out /shared/study --jobs 16 --partition cpu --hours 4

Each job takes cells that nobody has taken yet until none is left or its time is nearly up. A job
that is killed costs the cells' work since their last checkpoint; submit again to go on. `--cluster
local` tries it on this machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import submitit

GRACE = 5  # minutes before the end of a job in which it saves and leaves


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a directory that all nodes see")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--hours", type=float, default=4.0, help="that a job may take")
    parser.add_argument("--partition", help="of Slurm")
    parser.add_argument("--cluster", help="slurm or local; by default slurm where there is one")
    parser.add_argument("--data-dir", type=Path, help="where data sets lie, on all nodes")
    asked = parser.parse_args()
    minutes = max(round(60 * asked.hours), GRACE + 1)
    command = [sys.executable, "-m", "regrow", "compare", str(asked.study.resolve())]
    command += ["--out", str(asked.out.resolve()), "--minutes", str(minutes - GRACE)]
    command += ["--device", "cpu"]
    if asked.data_dir is not None:
        command += ["--data-dir", str(asked.data_dir.resolve())]
    # What cannot run is told here, before it waits in a queue.
    subprocess.run([*command, "--dry-run"], check=True, stdout=subprocess.DEVNULL)

    executor = submitit.AutoExecutor(asked.out / "jobs", cluster=asked.cluster)
    executor.update_parameters(name="regrow", timeout_min=minutes, cpus_per_task=1)
    if asked.partition:
        executor.update_parameters(slurm_partition=asked.partition)
    work = submitit.helpers.CommandFunction(command, verbose=False)
    with executor.batch():  # one array of jobs
        jobs = [executor.submit(work) for _ in range(asked.jobs)]
    print("submitted:", ", ".join(job.job_id for job in jobs), flush=True)
    lost = [job for job in jobs if job.exception() is not None]
    for job in lost:
        print(f"job {job.job_id} failed; its output is {job.paths.stderr}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "regrow", "report", str(asked.out)], check=True)
    sys.exit(len(lost) > 0)


if __name__ == "__main__":
    main()
