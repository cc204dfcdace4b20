"""A crawler that resumes where it was stopped, and a second program that reports what it finds, as it happens.

    python examples/crawler.py crawl.json            # stop it with Ctrl-C or kill -9, and start it again
    python examples/crawler.py crawl.json --watch    # in another terminal, before, during or after the crawl

It crawls a small site that it serves itself. The file has one key per page: ``null`` marks a page of the frontier, and
what was found on the page replaces it. A page and the links that it adds to the frontier are committed together, so
none is forgotten; at most the pages being fetched when the crawler is stopped are fetched again.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import urlopen

from persistent_context import PersistentContext, SyncPersistentContext

AT_ONCE = 4


def serve(pages: int, delay: float) -> str:
    """Serve a site from other threads, and return its address: each page takes a while, and links to three others."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(delay)
            number = int(self.path.removeprefix("/"))
            links = "".join(f'<a href="/{(3 * number + step) % pages}">…</a>' for step in (1, 2, 3))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"<title>Page {number}</title>{links}".encode())

        def log_message(self, *_: object) -> None:
            sys.stdout.write(f"GET {self.path}\n")  # print() would interleave the output of several threads

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def fetch(url: str) -> dict[str, Any]:
    """Return the title and the links of a page. Blocks."""
    with urlopen(url) as response:
        text = response.read().decode()
    (title,) = re.findall("<title>(.*?)</title>", text)
    return {"title": title, "links": re.findall('href="(.*?)"', text)}


async def visit(store: PersistentContext, site: str, page: str) -> None:
    """Fetch a page of the frontier; record it, and the pages that it links to."""
    found = await asyncio.to_thread(fetch, site + page)
    async with store.transaction() as tx:
        tx[page] = found
        for link in found["links"]:
            tx.setdefault(link, None)


async def crawl(path: str, site: str) -> None:
    """Visit the pages of the frontier until none is left."""
    store = await PersistentContext.create(path)
    await store.add("/0", None)
    while frontier := [page for page, found in store.items() if found is None]:
        async with asyncio.TaskGroup() as group:
            for page in frontier[:AT_ONCE]:
                group.create_task(visit(store, site, page))


def watch(path: str) -> None:
    """Report pages until the frontier is empty, starting with those in the file, as this context has loaded nothing."""
    pages: dict[str, Any] = {}
    with SyncPersistentContext(path).watch() as watching:
        for changes in watching:
            pages |= {page: change.new for page, change in changes.items()}
            waiting = sum(found is None for found in pages.values())
            for page in changes:
                if pages[page]:
                    print(f"{page}: {pages[page]['title']}; {waiting} to go", flush=True)
            if not waiting:
                break


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Crawl a small site, resuming where it was stopped.")
    parser.add_argument("state", help="the JSON file")
    parser.add_argument("--watch", action="store_true", help="report what a crawler finds")
    parser.add_argument("--pages", type=int, default=100)
    parser.add_argument("--delay", type=float, default=0.1, help="how long a page takes, in seconds")
    arguments = parser.parse_args()
    try:
        if arguments.watch:
            watch(arguments.state)
        else:
            asyncio.run(crawl(arguments.state, serve(arguments.pages, arguments.delay)))
    except KeyboardInterrupt:
        sys.exit("stopped; start it again to go on")
