"""Connections and small helpers that every example shares."""

import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import redis

SERVER_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")


def connect(**options) -> redis.Redis:
    """One client with a connection of its own; `options` are redis-py's, protocol=3 for example."""
    return redis.Redis.from_url(
        SERVER_URL, decode_responses=True, single_connection_client=True, **options
    )


def unique_prefix(name: str) -> str:
    """A prefix that no other run uses, so examples can share a server with real data."""
    return f"example:{name}:{os.getpid()}:{secrets.token_hex(4)}"


def script(name: str) -> str:
    """The text of a script in examples/scripts."""
    path = Path(__file__).parent.parent / "scripts" / f"{name}.lua"
    return path.read_text(encoding="utf-8")


def until(condition, what: str, deadline_s: float = 10.0):
    """Asks `condition` again and again until it holds; fails after `deadline_s`."""
    end = time.monotonic() + deadline_s
    while not (answer := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline_s} s: {what}")
        time.sleep(0.005)
    return answer


def in_threads(count: int, work):
    """Runs `work(client, number)` in `count` threads, each with a client, and returns the results."""

    def one(number: int):
        with connect() as client:
            return work(client, number)

    with ThreadPoolExecutor(max_workers=count) as pool:
        return list(pool.map(one, range(count)))
