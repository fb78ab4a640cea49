"""SCAN over a keyspace that others keep changing. What it promises: a key that is there from the
first call to the last is returned, and a key that never was there is not.

    python scan.py [number of keys, 50000 if not given]
"""

import sys
import threading
from typing import NamedTuple

from common import connect, unique_prefix

PIPELINE_COMMANDS = 10_000


class Scan(NamedTuple):
    found: int
    strangers: list
    calls: int
    changes: int


def load(client, prefix: str, total: int) -> None:
    """Sets `total` keys that stay while the scan runs."""
    for first in range(0, total, PIPELINE_COMMANDS):
        pipeline = client.pipeline(transaction=False)
        for index in range(first, min(first + PIPELINE_COMMANDS, total)):
            pipeline.set(f"{prefix}:stable:{index}", "x")
        pipeline.execute()


def clean_up(client, prefix: str) -> None:
    """Removes what an example left."""
    cursor = 0
    while True:
        cursor, keys = client.scan(cursor, match=f"{prefix}:*", count=5000)
        if keys:
            client.unlink(*keys)
        if cursor == 0:
            return


def scan_while_changing(client, prefix: str, total: int, churn: int, count: int = 1000) -> Scan:
    """Scans while a second connection adds and removes `churn` keys, over and over, so that the
    tables behind the keys grow and shrink under the cursor."""
    scanning = threading.Event()
    scanning.set()
    changes = 0

    def change() -> None:
        nonlocal changes
        with connect() as changer:
            while scanning.is_set():
                for add in (True, False):
                    for first in range(0, churn, 1000):
                        if not scanning.is_set():
                            return
                        end = min(first + 1000, churn)
                        keys = [f"{prefix}:passing:{index}" for index in range(first, end)]
                        if add:
                            changer.mset(dict.fromkeys(keys, "x"))
                        else:
                            changer.unlink(*keys)
                        changes += len(keys)

    thread = threading.Thread(target=change)
    thread.start()
    seen = bytearray(total)
    strangers = []
    calls = 0
    try:
        cursor = 0
        while True:
            cursor, keys = client.scan(cursor, match=f"{prefix}:*", count=count)
            calls += 1
            for key in keys:
                kind, number = key[len(prefix) + 1 :].split(":")
                if kind == "stable" and int(number) < total:
                    seen[int(number)] = 1
                elif kind != "passing" or int(number) >= churn:
                    strangers.append(key)
            if cursor == 0:
                break
    finally:
        scanning.clear()
        thread.join()
    return Scan(sum(seen), strangers, calls, changes)


if __name__ == "__main__":
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    prefix = unique_prefix("scan")
    with connect() as client:
        load(client, prefix, total)
        scan = scan_while_changing(client, prefix, total, total // 3)
        print(
            f"{scan.found} of {total} keys found in {scan.calls} calls "
            f"during {scan.changes} changes"
        )
        clean_up(client, prefix)
