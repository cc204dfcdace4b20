"""Processes of ``multiprocessing`` that count the words of many text files into one JSON file.

    python examples/multiprocessing_counters.py words.json README.md docs/*.md --method spawn

Each process opens the file itself and uses the blocking class: ``transaction()`` for changes that belong together,
``mutate()`` for a value that depends on the previous one, ``incr()`` for a counter. A file is counted once, no matter
how often and in how many programs at once this runs: the fact that it was counted is recorded in the same transaction.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
from collections import Counter
from pathlib import Path

from persistent_context import SyncPersistentContext


def count(store: SyncPersistentContext, text_file: Path) -> None:
    """Count the words of a text file."""
    words = Counter(re.findall(r"\w+", text_file.read_text(encoding="utf-8").lower()))
    store.incr("readings")
    store.mutate("longest", lambda longest: max(longest, *words, key=len), default="")
    with store.transaction() as tx:  # all or nothing, also if this process is killed
        files = tx.setdefault("files", {})
        if str(text_file) not in files:
            files[str(text_file)] = words.total()
            tx["words"] = Counter(tx.get("words", {})) + words


def count_all(path: str, text_files: list[Path]) -> None:
    """Count, in a separate process, which gets the path rather than a context, and opens the file itself."""
    store = SyncPersistentContext.create(path)
    for text_file in text_files:
        count(store, text_file)


def main(path: str, text_files: list[Path], processes: int) -> None:
    """Divide the files among processes, check the sum, and show the counts."""
    shares = [text_files[n::processes] for n in range(processes)]
    workers = [multiprocessing.Process(target=count_all, args=(path, share)) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        sys.exit("a process failed; start it again to go on")
    result = SyncPersistentContext.create(path)
    assert sum(result["words"].values()) == sum(result["files"].values())
    print(f"{sum(result['words'].values())} words in {len(result['files'])} files, read {result['readings']} times;")
    print("most often:", *(f"{word} ({number})" for word, number in Counter(result["words"]).most_common(5)))
    print(f"the longest: {result['longest']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Count the words of text files in several processes.")
    parser.add_argument("state", help="the JSON file")
    parser.add_argument("text_files", nargs="+", type=Path)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--method", choices=multiprocessing.get_all_start_methods(), default="spawn")
    arguments = parser.parse_args()
    multiprocessing.set_start_method(arguments.method)
    main(arguments.state, arguments.text_files, arguments.processes)
