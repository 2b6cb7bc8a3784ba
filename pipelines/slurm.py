"""Segment an archive on a SLURM cluster, with dask-jobqueue (pip install dask-jobqueue).

    python pipelines/slurm.py 'archive/**/*.tif' --output out --jobs 20 --partition cpu --dry-run
    python pipelines/slurm.py 'archive/**/*.tif' --output out --jobs 8 --partition gpu --gpu

Each job is one worker: a process with some cores, and with --gpu a GPU that it owns. --dry-run
prints the job that would be submitted. The archive and the output folder have to be on a file
system that all nodes share, or scenes in object storage. The same command again does what is left.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dask_jobqueue import SLURMCluster
from distributed import Client

import geounet

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    with make_cluster(options) as cluster:
        if options.dry_run:
            print(cluster.job_script())
            return 0
        cluster.scale(jobs=options.jobs)
        with Client(cluster) as client:
            result = geounet.batch(
                options.scenes,
                output=options.output,
                scheduler=client,
                device="cuda" if options.gpu else "cpu",
                stac=True,
            )
    print(f"{result.done} of {result.total} scenes done, {result.failed} failed")
    return result.exit_code


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Segment an archive on a SLURM cluster.")
    parser.add_argument("scenes", nargs="+", help="as geounet batch takes them")
    parser.add_argument("--output", type=Path, default=Path("out"))
    parser.add_argument("--jobs", type=int, default=4, help="workers")
    parser.add_argument("--partition", help="SLURM's")
    parser.add_argument("--account", help="SLURM's")
    parser.add_argument("--cores", type=int, default=4, help="of a worker")
    parser.add_argument("--memory", default="8GiB", help="of a worker")
    parser.add_argument("--walltime", default="04:00:00")
    parser.add_argument("--gpu", action="store_true", help="a GPU for each worker")
    parser.add_argument("--dry-run", action="store_true", help="print the job and stop")
    return parser.parse_args(arguments)


def make_cluster(options: argparse.Namespace) -> SLURMCluster:
    """A scheduler here, and workers as jobs. A worker does one scene at a time (--nthreads 1)."""
    return SLURMCluster(
        queue=options.partition,
        account=options.account,
        cores=1,
        job_cpu=options.cores,
        processes=1,
        memory=options.memory,
        walltime=options.walltime,
        job_extra_directives=["--gres=gpu:1"] if options.gpu else [],
        worker_extra_args=["--resources", "GPU=1"] if options.gpu else [],
        job_script_prologue=[
            "export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK",
            # Dask's own, of 64 KiB, has the memory of each array found anew.
            "export MALLOC_TRIM_THRESHOLD_=268435456 MALLOC_MMAP_THRESHOLD_=33554432",
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
