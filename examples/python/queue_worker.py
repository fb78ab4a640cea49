"""A work queue: LPUSH on one end, BRPOP on the other; or BLMOVE, which keeps a job on a list of
jobs in hand until the worker says it is done. Whoever has waited longest is served first.

    python queue_worker.py
"""

import json
from concurrent.futures import ThreadPoolExecutor

from common import connect, unique_prefix, until


def enqueue(client, queue: str, jobs) -> int:
    return client.lpush(queue, *(json.dumps(job) for job in jobs))


def take(client, queue: str, timeout_s: float):
    """The oldest job, waiting up to `timeout_s` for one; None when none came."""
    reply = client.brpop(queue, timeout=timeout_s)
    return None if reply is None else json.loads(reply[1])


def take_safely(client, queue: str, in_hand: str, timeout_s: float):
    """Like `take`, but the job moves to `in_hand`, where it survives a worker that dies. Returns
    the job and its receipt."""
    text = client.blmove(queue, in_hand, timeout_s, src="RIGHT", dest="LEFT")
    return None if text is None else (json.loads(text), text)


def done(client, in_hand: str, receipt: str) -> int:
    """Ends a job taken with `take_safely`."""
    return client.lrem(in_hand, 1, receipt)


def recover(client, queue: str, in_hand: str) -> int:
    """Puts what a dead worker had in hand back to the end where the next job is taken."""
    moved = 0
    while client.lmove(in_hand, queue, src="LEFT", dest="RIGHT") is not None:
        moved += 1
    return moved


def until_blocked(observer, client_id: int) -> None:
    """Returns when the connection with this id sits in a blocking command."""
    until(
        lambda: any("b" in one["flags"] for one in observer.client_list(client_id=[client_id])),
        f"client {client_id} blocks",
    )


def wait_in_order(observer, pool: ThreadPoolExecutor, workers, pop):
    """Starts `pop(worker)` for one worker after the other, each once the one before is waiting."""
    waiting = []
    for worker in workers:
        client_id = worker.client_id()
        waiting.append(pool.submit(pop, worker))
        until_blocked(observer, client_id)
    return waiting


if __name__ == "__main__":
    queue = unique_prefix("jobs")
    producer = connect()
    workers = [connect() for _ in range(3)]
    with ThreadPoolExecutor(max_workers=3) as pool:
        waiting = wait_in_order(producer, pool, workers, lambda worker: take(worker, queue, 10))
        enqueue(producer, queue, [{"id": number} for number in (1, 2, 3)])
        for number, job in enumerate(waiting, start=1):
            print(f"the worker that waited as number {number} got job {job.result()['id']}")
    for client in (producer, *workers):
        client.close()
