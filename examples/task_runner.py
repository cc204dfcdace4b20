"""A parallel task runner that goes on where it was stopped, even by ``kill -9``.

Start it, stop it as you like, start it again; or start it in several terminals at once, and they share the work:

    python examples/task_runner.py state.json

It counts the primes below many limits in a pool of processes. The state is one JSON file with one key a job: absent,
then ``{"runner": …}`` (claimed), then ``{"runner": …, "result": …}`` (done). Each job's result is recorded exactly
once, in the atomic step that makes it done; a job runs again only if its runner died or gave up before that step.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import signal
import sys
import threading
import uuid
from concurrent.futures import ProcessPoolExecutor
from math import isqrt
from pathlib import Path

from persistent_context import MISSING, PersistentContext


def count_primes(limit: int, log: str) -> int:
    """Do a job, in a process of the pool; a line of the log tells that it ran."""
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{limit}\n")
    return sum(all(number % divisor for divisor in range(2, isqrt(number) + 1)) for number in range(2, limit))


def end_with_the_runner() -> None:
    """Prepare a process of the pool: one whose runner was killed would wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the runner
    runner = multiprocessing.parent_process()
    assert runner is not None, "called in a process of the pool"

    def end() -> None:
        runner.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def lease(path: str, runner: str) -> PersistentContext:
    """Return the context whose lock a runner holds for as long as it lives; the kernel releases it when it dies."""
    return PersistentContext(f"{path}.{runner}")


def remove_lease(path: str, runner: str) -> None:
    """Remove the lock file of a runner that is no more; no other has its name."""
    Path(f"{path}.{runner}.lock").unlink(missing_ok=True)


async def claim(store: PersistentContext, path: str, job: str, me: str) -> bool:
    """Take a job that nobody has, or whose runner is dead."""
    held = store.get(job, MISSING)
    if held is not MISSING:
        if "result" in held or held["runner"] == me or await lease(path, held["runner"]).lock_holder():
            return False
        remove_lease(path, held["runner"])
    return await store.compare_and_set(job, held, {"runner": me})  # False: another runner was faster


async def work(store: PersistentContext, path: str, jobs: dict[str, int], me: str, pool: ProcessPoolExecutor) -> None:
    """Do one job after the other, until all are done by whomever."""
    loop = asyncio.get_running_loop()
    while not all("result" in store.get(job, ()) for job in jobs):
        for job, limit in jobs.items():
            if await claim(store, path, job, me):
                result = await loop.run_in_executor(pool, count_primes, limit, f"{path}.log")
                await store.compare_and_set(job, {"runner": me}, {"runner": me, "result": result})
                show(store, jobs)
        await asyncio.sleep(0.2)  # others do what is left; look again whether they live
        await store.load()


def show(store: PersistentContext, jobs: dict[str, int]) -> None:
    """Draw the progress bar."""
    done = sum("result" in store.get(job, ()) for job in jobs)
    print(f"\r[{'#' * (50 * done // len(jobs)):50}] {done}/{len(jobs)}", end="", flush=True)


async def main(path: str, count: int, processes: int) -> None:
    """Do all jobs that are not done."""
    jobs = {f"primes below {limit}": limit for limit in range(1000, 1000 * count + 1, 1000)}
    store = await PersistentContext.create(path)
    me = uuid.uuid4().hex
    async with lease(path, me).transaction():
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), end_with_the_runner) as pool:
            async with asyncio.TaskGroup() as group:
                for _ in range(processes):
                    group.create_task(work(store, path, jobs, me, pool))
    remove_lease(path, me)
    show(store, jobs)
    print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Count primes in parallel, and go on where it was stopped.")
    parser.add_argument("state", type=os.path.realpath, help="the JSON file")
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    try:
        asyncio.run(main(arguments.state, arguments.jobs, arguments.processes))
    except KeyboardInterrupt:
        sys.exit("\nstopped; start it again to go on")
