"""A parallel task runner that resumes where it was stopped, even by ``kill -9``.

Start it, stop it in any way, start it again; or start it in several terminals at once to share the work:

    python examples/task_runner.py state.json

It counts the primes below many limits in a pool of processes. The state is one JSON file with one key per job, which is
absent until the job has a result. A runner holds a lease on each job that it is doing, so other runners do other jobs.
Each result is recorded exactly once; a job runs again only if its runner died or gave up before that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from math import isqrt

from persistent_context import LeaseHeldError, PersistentContext


def count_primes(limit: int, log: str) -> int:
    """Do a job, in a process of the pool, and record in the log that it ran."""
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{limit}\n")
    return sum(all(number % divisor for divisor in range(2, isqrt(number) + 1)) for number in range(2, limit))


def end_with_the_runner() -> None:
    """Prepare a process of the pool: make it exit with its runner, or it would wait for work forever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the runner
    runner = multiprocessing.parent_process()
    assert runner is not None, "called in a process of the pool"

    def end() -> None:
        runner.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


async def run(store: PersistentContext, job: str, limit: int, pool: ProcessPoolExecutor, log: str) -> None:
    """Do a job unless it is done; if another runner is doing it, wait, and take over if that runner dies."""

    async def count() -> int:
        return await asyncio.get_running_loop().run_in_executor(pool, count_primes, limit, log)

    await store.compute_once(job, count)


async def work(store: PersistentContext, path: str, jobs: dict[str, int], pool: ProcessPoolExecutor) -> None:
    """Do one job after another: first those that no runner is doing, then the remaining ones."""
    for job, limit in jobs.items():
        with contextlib.suppress(LeaseHeldError):
            async with store.lease(job, wait=False):
                await run(store, job, limit, pool, f"{path}.log")
                show(store, jobs)
    for job, limit in jobs.items():
        await run(store, job, limit, pool, f"{path}.log")
        show(store, jobs)


def show(store: PersistentContext, jobs: dict[str, int]) -> None:
    """Draw the progress bar."""
    done = sum(job in store for job in jobs)
    print(f"\r[{'#' * (50 * done // len(jobs)):50}] {done}/{len(jobs)}", end="", flush=True)


async def main(path: str, count: int, processes: int) -> None:
    """Do all unfinished jobs."""
    jobs = {f"primes below {limit}": limit for limit in range(1000, 1000 * count + 1, 1000)}
    store = await PersistentContext.create(path)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), end_with_the_runner) as pool:
        async with asyncio.TaskGroup() as group:
            for _ in range(processes):
                group.create_task(work(store, path, jobs, pool))
    print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Count primes in parallel, resuming where it was stopped.")
    parser.add_argument("state", type=os.path.realpath, help="the JSON file")
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    try:
        asyncio.run(main(arguments.state, arguments.jobs, arguments.processes))
    except KeyboardInterrupt:
        sys.exit("\nstopped; start it again to go on")
