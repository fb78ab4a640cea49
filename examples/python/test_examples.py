"""Every example as a test, against the server that REDIS_URL names."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

import cache
import counters
import leaderboard
import producer_consumer
import pubsub
import queue_worker
import rate_limiter
import scan
import transactions
from common import connect, in_threads, unique_prefix, until

DEMOS = [
    module.__name__
    for module in (
        cache,
        counters,
        leaderboard,
        producer_consumer,
        pubsub,
        queue_worker,
        rate_limiter,
        scan,
        transactions,
    )
]


@pytest.fixture
def client():
    with connect() as one:
        yield one


def order(identity, **more):
    return {"id": identity, "customer": "Grace", "amount": 12.5, **more}


@pytest.mark.parametrize("name", DEMOS)
def test_demo_runs(name):
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, f"{name}.py"], cwd=here, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


# Producers and consumers.


def test_an_element_appended_is_the_element_taken(client):
    key = unique_prefix("orders")
    orders = [
        order(1, tags=["ä", '"quoted"', "a\\b", "\u0001", "日本"]),
        order(2**46, amount=0.1),
    ]
    assert json.loads(producer_consumer.produce(client, key, orders[:1])) == orders[:1]
    assert json.loads(producer_consumer.produce(client, key, orders[1:])) == orders
    assert producer_consumer.consume(client, key) == orders
    assert producer_consumer.consume(client, key) == []
    assert client.exists(key) == 0


@pytest.mark.parametrize(
    "bad", [[], {}, [order(-1)], [order(1.5)], [order(True)], [order(1, amount="5")], [None]]
)
def test_bad_input_never_reaches_the_server(client, bad):
    key = unique_prefix("orders")
    with pytest.raises(ValueError):
        producer_consumer.produce(client, key, bad)
    assert client.exists(key) == 0


def test_a_value_that_is_not_json_fails_the_script_and_stays(client):
    key = unique_prefix("orders")
    client.set(key, "not json")
    with pytest.raises(redis.ResponseError, match="Expected value but found invalid token"):
        producer_consumer.produce(client, key, [order(1)])
    assert client.get(key) == "not json"
    client.unlink(key)


@pytest.mark.parametrize(
    "shape",
    [
        dict(total=200_000, producers=8, consumers=4, queues=8, batch=50),
        dict(total=10_000, producers=12, consumers=6, queues=1, batch=5),
    ],
    ids=["many keys", "one key"],
)
def test_every_element_is_consumed_once(shape):
    seen = producer_consumer.run(**shape)
    assert len(seen) == shape["total"]
    assert set(seen) == {1}


# Rate limiters.

LIMITERS = [rate_limiter.fixed_window, rate_limiter.sliding_window]


@pytest.mark.parametrize("limiter", LIMITERS)
def test_exactly_the_limit_passes(client, limiter):
    prefix = unique_prefix("limit")
    addresses = ["192.0.2.1", "192.0.2.2", "2001:db8::7"]

    def ask(one, number):
        return [
            (addresses[turn % 3], limiter(one, prefix, addresses[turn % 3], 137, 60))
            for turn in range(300)
        ]

    answers = [answer for part in in_threads(8, ask) for answer in part]
    for ip in addresses:
        left = sorted(answer.remaining for of, answer in answers if of == ip and answer.allowed)
        assert left == list(range(137))
    for kind in ("fixed", "sliding"):
        client.unlink(*(f"{prefix}:{kind}:{ip}" for ip in addresses))


@pytest.mark.parametrize("limiter", LIMITERS)
def test_requests_pass_again_after_the_window(client, limiter):
    prefix = unique_prefix("limit")
    start = time.monotonic()
    allowed = [limiter(client, prefix, "192.0.2.1", 3, 1).allowed for _ in range(4)]
    assert allowed == [True, True, True, False]
    until(lambda: limiter(client, prefix, "192.0.2.1", 3, 1).allowed, "a request passes again")
    # The server's clock counts whole milliseconds, ours does not.
    assert time.monotonic() - start >= 0.990
    client.unlink(f"{prefix}:fixed:192.0.2.1", f"{prefix}:sliding:192.0.2.1")


# Cache.


def test_a_miss_loads_and_a_hit_does_not(client):
    key = unique_prefix("cache")
    loads = []

    def load():
        loads.append(1)
        return {"loads": len(loads)}

    assert cache.cached(client, key, 60_000, load) == ({"loads": 1}, False)
    assert cache.cached(client, key, 60_000, load) == ({"loads": 1}, True)
    client.unlink(key)


def test_times_to_live(client):
    key = unique_prefix("cache")
    client.set(key, "1", ex=100)
    assert cache.replace_keeping_ttl(client, key, 2)
    assert client.get(key) == "2"
    assert 98 < client.ttl(key) <= 100
    client.set(key, "3")
    assert client.ttl(key) == -1
    client.set(key, "4", px=50_000)
    assert 48_000 < client.pttl(key) <= 50_000
    assert cache.touch_session(client, key, 1000) == 4
    assert 998 < client.ttl(key) <= 1000
    at = int(time.time()) + 500
    client.set(key, "5", exat=at)
    assert client.expiretime(key) == at
    assert client.getex(key, persist=True) == "5"
    assert client.ttl(key) == -1
    client.unlink(key)
    assert client.ttl(key) == -2
    assert not cache.replace_keeping_ttl(client, key, 6)
    assert cache.touch_session(client, key, 10) is None


def test_a_key_is_gone_when_its_time_is_over(client):
    key = unique_prefix("cache")
    start = time.monotonic()
    client.set(key, "1", px=80)
    until(lambda: client.get(key) is None, "the key expires")
    assert time.monotonic() - start >= 0.078


def test_keys_that_nobody_reads_expire_too(client):
    prefix = unique_prefix("cache")
    before = client.info("stats")["expired_keys"]
    pipeline = client.pipeline(transaction=False)
    for index in range(2000):
        pipeline.set(f"{prefix}:{index}", "x", px=50)
    pipeline.execute()
    until(lambda: client.info("stats")["expired_keys"] >= before + 2000, "active expiry", 30)


# Counters, leaderboard, pub/sub, transactions.


def test_no_increment_is_lost(client):
    prefix = unique_prefix("views")

    def work(one, _):
        return [
            counters.count_view(one, prefix, "/docs" if turn % 4 else "/", 0.25)
            for turn in range(500)
        ]

    answers = [answer for part in in_threads(8, work) for answer in part]
    assert counters.views(client, prefix) == (4000, {"/": 1000, "/docs": 3000})
    # A MULTI is one step: the numbers it saw belong together, and no two saw the same.
    assert all(seconds == total * 0.25 for total, _, seconds in answers)
    assert len({total for total, _, _ in answers}) == 4000
    counters.clean_up(client, prefix)


def test_leaderboard_agrees_with_a_sorted_list(client):
    key = unique_prefix("board")
    best = {}
    for turn in range(3000):
        player, score = f"p{turn * 7 % 500:03}", turn * 7919 % 1009 / 4
        best[player] = max(best.get(player, score), score)
        leaderboard.submit(client, key, player, score)
    ascending = sorted(best.items(), key=lambda entry: (entry[1], entry[0]))
    descending = ascending[::-1]
    assert leaderboard.top(client, key, 10) == descending[:10]
    assert leaderboard.between(client, key, 100, 200) == [
        player for player, score in ascending if 100 <= score <= 200
    ]
    above = [player for player, score in descending if score > 150]
    assert leaderboard.page_above(client, key, 150, 20, 15) == above[20:35]
    for rank in (1, 2, 250, 500):
        player, score = descending[rank - 1]
        assert leaderboard.standing(client, key, player) == (rank, score)
    assert leaderboard.standing(client, key, "nobody") is None
    client.unlink(key)


def test_messages_arrive_in_order_where_subscribed(client):
    prefix = unique_prefix("news")
    with connect() as one, connect() as two, connect() as three:
        exact = pubsub.Listener(one, channel=f"{prefix}:a")
        wide = pubsub.Listener(two, pattern=f"{prefix}:*")
        other = pubsub.Listener(three, channel=f"{prefix}:b")
        assert all(client.publish(f"{prefix}:a", number) == 2 for number in range(1000))
        assert client.publish(f"{prefix}:b", "end") == 2
        until(lambda: exact.poll(1000) and wide.poll(1001) and other.poll(1), "all messages")
        expected = [(f"{prefix}:a", str(number)) for number in range(1000)]
        assert exact.received == expected
        assert wide.received == [*expected, (f"{prefix}:b", "end")]
        assert other.received == [(f"{prefix}:b", "end")]
        for listener in (exact, wide, other):
            listener.close()


def test_no_transfer_works_on_an_old_balance(client):
    prefix = unique_prefix("bank")
    accounts = [f"{prefix}:{name}" for name in "abc"]
    client.mset(dict.fromkeys(accounts, 50))

    def work(one, number):
        for turn in range(40):
            source, target = accounts[(number + turn) % 3], accounts[(number * 2 + turn + 1) % 3]
            if source != target:
                transactions.transfer(one, source, target, 20)
            # The sum holds at every moment, seen from one reply.
            assert sum(map(int, one.mget(accounts))) == 150

    in_threads(8, work)
    balances = list(map(int, client.mget(accounts)))
    assert min(balances) >= 0
    assert not transactions.transfer(client, accounts[0], accounts[1], 151)
    assert list(map(int, client.mget(accounts))) == balances
    client.unlink(*accounts)


# SCAN.


def test_scan_finds_every_key_that_stays(client):
    total = int(os.environ.get("SCAN_KEYS", 1_000_000))
    prefix = unique_prefix("scan")
    scan.load(client, prefix, total)
    result = scan.scan_while_changing(client, prefix, total, total // 5)
    assert result.found == total
    assert result.strangers == []
    assert result.changes > 0
    scan.clean_up(client, prefix)
    assert not any(client.scan_iter(match=f"{prefix}:*", count=10_000))


# Queue.


@pytest.mark.parametrize("one_by_one", [True, False], ids=["single pushes", "one push"])
@pytest.mark.parametrize("command", ["BRPOP", "BLMOVE"])
def test_who_waits_longest_is_served_first(client, command, one_by_one):
    queue = unique_prefix("jobs")

    def pop(worker):
        if command == "BRPOP":
            return queue_worker.take(worker, queue, 30)
        job, receipt = queue_worker.take_safely(worker, queue, f"{queue}:hand", 30)
        queue_worker.done(worker, f"{queue}:hand", receipt)
        return job

    workers = [connect() for _ in range(12)]
    jobs = [{"id": number} for number in range(len(workers))]
    with ThreadPoolExecutor(max_workers=len(workers)) as pool:
        waiting = queue_worker.wait_in_order(client, pool, workers, pop)
        for part in [[job] for job in jobs] if one_by_one else [jobs]:
            queue_worker.enqueue(client, queue, part)
        assert [one.result() for one in waiting] == jobs
    assert client.exists(queue, f"{queue}:hand") == 0
    for worker in workers:
        worker.close()


def test_many_producers_and_blocked_workers_take_every_job_once(client):
    queue = unique_prefix("jobs")
    each, producers, workers = 2500, 3, 6

    def produce(one, number):
        for first in range(number * each, (number + 1) * each, 5):
            queue_worker.enqueue(one, queue, [{"id": first + more} for more in range(5)])

    def consume(one, number):
        taken = []
        while True:
            if number % 2:
                job = queue_worker.take(one, queue, 30)
            else:
                job, _ = queue_worker.take_safely(one, queue, f"{queue}:hand", 30)
            if "stop" in job:
                return taken
            taken.append(job["id"])

    with ThreadPoolExecutor(max_workers=1) as pool:
        consuming = pool.submit(in_threads, workers, consume)
        in_threads(producers, produce)
        queue_worker.enqueue(client, queue, [{"stop": True}] * workers)
        taken = [job for part in consuming.result() for job in part]
    assert sorted(taken) == list(range(each * producers))
    client.unlink(f"{queue}:hand")


def test_a_job_in_the_hand_of_a_dead_worker_goes_back_to_the_front(client):
    queue = unique_prefix("jobs")
    queue_worker.enqueue(client, queue, [{"id": number} for number in range(3)])
    with connect() as worker:
        job, _ = queue_worker.take_safely(worker, queue, f"{queue}:hand", 1)
        assert job == {"id": 0}
    assert queue_worker.recover(client, queue, f"{queue}:hand") == 1
    assert [queue_worker.take(client, queue, 1)["id"] for _ in range(3)] == [0, 1, 2]


def test_a_wait_for_nothing_ends_at_its_timeout(client):
    queue = unique_prefix("jobs")
    start = time.monotonic()
    assert queue_worker.take(client, queue, 0.2) is None
    assert queue_worker.take_safely(client, queue, f"{queue}:hand", 0.1) is None
    assert time.monotonic() - start >= 0.290
