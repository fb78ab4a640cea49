"""Producers append orders to a JSON array with a Lua script; consumers take the whole array and
delete it in one MULTI. No order may be lost or seen twice.

    python producer_consumer.py
"""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from common import connect, script, unique_prefix

APPEND_SCRIPT = script("append")


def checked(order) -> dict:
    """Returns the order, or raises ValueError with what is wrong."""
    if not isinstance(order, dict):
        raise ValueError("an order is an object")
    identity, customer, amount = (order.get(name) for name in ("id", "customer", "amount"))
    if type(identity) is not int or identity < 0:
        raise ValueError("id: a whole number from 0")
    if not isinstance(customer, str) or not 1 <= len(customer) <= 64:
        raise ValueError("customer: 1 to 64 characters")
    if type(amount) not in (int, float) or not amount > 0:
        raise ValueError("amount: a number above 0")
    return order


def produce(client, key: str, orders) -> str:
    """Checks the orders, appends them to the array at `key` and returns the merged JSON text."""
    # An empty list is refused: Lua cannot tell [] from {}, so cjson would store an object.
    if not isinstance(orders, list) or not orders:
        raise ValueError("orders: a list of at least one")
    text = json.dumps([checked(order) for order in orders])
    return client.eval(APPEND_SCRIPT, 1, key, text)


def consume(client, key: str) -> list:
    """Takes everything queued at `key`, leaving nothing behind."""
    text, _ = client.pipeline(transaction=True).get(key).delete(key).execute()
    return [] if text is None else [checked(order) for order in json.loads(text)]


def run(total: int, producers: int, consumers: int, queues: int, batch: int):
    """Moves `total` orders through `queues` keys; returns how often each id arrived."""
    prefix = unique_prefix("orders")
    keys = [f"{prefix}:{index}" for index in range(queues)]
    seen = [0] * total
    lock = threading.Lock()
    batches = iter(range(0, total, batch))
    producing = threading.Event()
    producing.set()

    def producer(number: int) -> None:
        with connect() as client:
            turn = number
            while True:
                with lock:
                    first = next(batches, None)
                if first is None:
                    return
                orders = [
                    {"id": one, "customer": f"customer-{one % 97}", "amount": one % 500 + 0.25}
                    for one in range(first, min(first + batch, total))
                ]
                produce(client, keys[turn % queues], orders)
                turn += 1

    def consumer(_: int) -> None:
        with connect() as client:
            while True:
                # Read the flag before looking: a queue that is empty afterwards stays empty.
                last = not producing.is_set()
                found = [order for key in keys for order in consume(client, key)]
                with lock:
                    for order in found:
                        seen[order["id"]] += 1
                if last and not found:
                    return

    with ThreadPoolExecutor(max_workers=producers + consumers) as pool:
        consuming = [pool.submit(consumer, number) for number in range(consumers)]
        work = [pool.submit(producer, number) for number in range(producers)]
        try:
            for one in work:
                one.result()
        finally:
            producing.clear()
        for one in consuming:
            one.result()
    return seen


if __name__ == "__main__":
    TOTAL = 20_000
    start = time.monotonic()
    arrivals = run(TOTAL, producers=6, consumers=3, queues=4, batch=20)
    elapsed_ms = (time.monotonic() - start) * 1000
    print(f"{arrivals.count(1)} of {TOTAL} orders consumed exactly once in {elapsed_ms:.0f} ms")
