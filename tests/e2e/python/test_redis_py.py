"""redis-py in RESP2 and RESP3: the same calls must give the same answers."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
import redis.asyncio
from redis.exceptions import LockError

from conftest import SERVER_URL, until


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def protocol(request):
    return request.param


@pytest.fixture
def client(protocol):
    with redis.Redis.from_url(SERVER_URL, decode_responses=True, protocol=protocol) as one:
        yield one


def test_strings(client, prefix):
    assert client.set(prefix, "value", ex=100) is True
    assert client.set(prefix, "x", nx=True) is None
    assert client.set(prefix, "new", get=True) == "value"
    assert client.getrange(prefix, 0, 1) == "ne"
    assert client.incr(f"{prefix}:n", 5) == 5
    assert client.incrbyfloat(f"{prefix}:n", 0.5) == 5.5
    assert client.mget(prefix, f"{prefix}:none") == ["new", None]
    assert client.msetnx({prefix: 1, f"{prefix}:m": 2}) is False
    assert client.delete(prefix, f"{prefix}:n") == 2


def test_any_bytes(protocol, prefix):
    with redis.Redis.from_url(SERVER_URL, protocol=protocol) as client:
        key = prefix.encode() + b"\0\r\n\xff"
        value = bytes(range(256)) * 4000
        client.set(key, value)
        assert client.get(key) == value
        assert client.keys(prefix.encode() + b"*") == [key]
        assert client.delete(key) == 1


def test_collections(client, prefix):
    keys = [f"{prefix}:{kind}" for kind in "lhsz"]
    many, fields, members, scores = keys
    assert client.rpush(many, *range(1000)) == 1000
    assert client.lrange(many, 10, 12) == ["10", "11", "12"]
    assert client.lpos(many, 500) == 500
    assert client.lmpop(1, many, direction="RIGHT", count=2) == [many, ["999", "998"]]
    assert client.hset(fields, mapping={str(one): one for one in range(1000)}) == 1000
    assert client.hgetall(fields) == {str(one): str(one) for one in range(1000)}
    assert dict(client.hscan_iter(fields)) == client.hgetall(fields)
    assert client.sadd(members, *range(1000)) == 1000
    assert set(client.sscan_iter(members)) == client.smembers(members)
    assert client.zadd(scores, {f"m{one}": one / 4 for one in range(1000)}) == 1000
    found = client.zrangebyscore(scores, 10, "(11", withscores=True)
    assert [tuple(one) for one in found] == [("m40", 10), ("m41", 10.25), ("m42", 10.5), ("m43", 10.75)]
    assert client.zrange(scores, 999, 998) == []
    assert client.zrank(scores, "m500") == 500
    assert client.zmscore(scores, ["m4", "none"]) == [1.0, None]
    assert len(list(client.zscan_iter(scores))) == 1000
    assert [client.type(key) for key in keys] == ["list", "hash", "set", "zset"]
    assert client.unlink(*keys) == 4


def test_errors(client, prefix):
    client.rpush(prefix, "x")
    with pytest.raises(redis.ResponseError, match="^WRONGTYPE Operation against a key"):
        client.get(prefix)
    with pytest.raises(redis.ResponseError, match="^unknown command 'NOSUCH'"):
        client.execute_command("NOSUCH", "a")
    with pytest.raises(redis.exceptions.NoScriptError):
        client.evalsha("f" * 40, 0)
    client.delete(prefix)


def test_pipelines(client, prefix):
    pipeline = client.pipeline(transaction=False)
    for number in range(5000):
        pipeline.rpush(prefix, number)
    pipeline.incr(prefix)
    pipeline.llen(prefix)
    replies = pipeline.execute(raise_on_error=False)
    assert replies[:5000] == list(range(1, 5001))
    assert isinstance(replies[5000], redis.ResponseError)
    assert replies[5001] == 5000
    client.delete(prefix)


def test_transaction_helper(client, prefix):
    def add(pipeline):
        value = int(pipeline.get(prefix) or 0)
        pipeline.multi()
        pipeline.set(prefix, value + 1)

    with ThreadPoolExecutor(max_workers=6) as pool:
        list(pool.map(lambda _: [client.transaction(add, prefix) for _ in range(50)], range(6)))
    assert client.get(prefix) == "300"
    client.delete(prefix)


def test_registered_scripts(client, prefix):
    multiply = client.register_script(
        "local value = tonumber(redis.call('GET', KEYS[1]) or ARGV[1]) * ARGV[2] "
        "redis.call('SET', KEYS[1], value) return value"
    )
    assert multiply(keys=[prefix], args=[2, 5]) == 10
    client.script_flush()
    assert multiply(keys=[prefix], args=[2, 5]) == 50
    pipeline = client.pipeline()
    multiply(keys=[prefix], args=[2, 2], client=pipeline)
    assert pipeline.execute() == [100]
    client.delete(prefix)


def test_the_lock_of_redis_py_excludes(client, prefix):
    inside = []

    def work(_):
        for _ in range(10):
            with client.lock(prefix, timeout=20, blocking_timeout=20, sleep=0.001):
                inside.append(1)
                assert len(inside) == 1
                inside.pop()

    with ThreadPoolExecutor(max_workers=6) as pool:
        list(pool.map(work, range(6)))
    mine = client.lock(prefix, timeout=20)
    assert mine.acquire()
    assert mine.extend(30)
    assert mine.reacquire()
    client.delete(prefix)
    with pytest.raises(LockError):
        mine.release()


def test_pub_sub_in_a_thread(client, prefix):
    received = []
    with client.pubsub() as pubsub:
        pubsub.subscribe(**{f"{prefix}:a": lambda message: received.append(message["data"])})
        pubsub.psubscribe(**{f"{prefix}:*": lambda message: received.append(message["data"])})
        until(lambda: client.pubsub_numsub(f"{prefix}:a")[0][1] == 1, "the subscription")
        until(lambda: client.pubsub_numpat() >= 1, "the pattern")
        thread = pubsub.run_in_thread(sleep_time=0.01)
        assert client.publish(f"{prefix}:a", "hello") == 2
        until(lambda: received == ["hello", "hello"], "both messages")
        thread.stop()
        thread.join()


def test_blocking_from_another_thread(client, prefix):
    got = []
    thread = threading.Thread(target=lambda: got.append(client.blpop([f"{prefix}:0", prefix], 20)))
    thread.start()
    client.rpush(prefix, "x")
    thread.join(20)
    assert [list(one) for one in got] == [[prefix, "x"]]
    assert client.bzpopmin(prefix, 0.05) is None
    thread = threading.Thread(target=lambda: got.append(client.bzpopmax(prefix, 20)))
    thread.start()
    client.zadd(prefix, {"m": 1.5})
    thread.join(20)
    assert list(got[1]) == [prefix, "m", 1.5]


def test_server_questions(client, prefix):
    info = client.info()
    for field in ("redis_version", "used_memory", "connected_clients", "uptime_in_seconds", "role"):
        assert field in info
    assert client.config_get("maxmemory*")["maxmemory-policy"] == "noeviction"
    assert client.config_set("slowlog-max-len", 128)
    client.client_setname("here")
    assert client.client_getname() == "here"
    own = client.client_info()
    assert int(own["id"]) == client.client_id()
    assert any(one["name"] == "here" for one in client.client_list())
    assert client.command_getkeys("SET", "a", "b") == ["a"]
    commands = client.command()
    assert commands["get"]["arity"] == 2
    assert client.command_count() == len(commands)
    assert client.set(prefix, "x" * 1000)
    assert client.memory_usage(prefix) > 1000
    assert client.object("encoding", prefix) == "raw"
    assert isinstance(client.slowlog_get(5), list)
    assert client.time()[0] > 1_600_000_000
    assert client.lastsave() is not None
    client.delete(prefix)


def test_slow_scripts(client, prefix):
    source = "-- @name named\nreturn redis.call('SET', KEYS[1], ARGV[1])"
    assert client.config_set("slowlog-log-slower-than", 0)
    try:
        assert client.eval(source, 1, prefix, "value")
    finally:
        client.config_set("slowlog-log-slower-than", 10000)
    texts = []
    for entry in client.slowlog_get(100):
        command = entry["command"]
        text = command.decode() if isinstance(command, bytes) else command
        if text.startswith("EVAL ") and prefix in text:
            assert entry["duration"] >= 0 and entry["client_address"]
            texts.append(text)
    assert len(texts) == 1
    if "luar_version" in client.info():
        assert "... (script named: 1 command; slowest " in texts[0]
    client.delete(prefix)


def test_databases(protocol, prefix):
    with (
        redis.Redis.from_url(SERVER_URL, db=8, protocol=protocol) as eight,
        redis.Redis.from_url(SERVER_URL, db=9, protocol=protocol) as nine,
    ):
        eight.set(prefix, "8")
        assert nine.get(prefix) is None
        assert eight.copy(prefix, prefix, destination_db=9)
        assert nine.get(prefix) == b"8"
        eight.swapdb(8, 9)
        assert eight.delete(prefix) == nine.delete(prefix) == 1


def test_asyncio(protocol, prefix):
    async def work():
        client = redis.asyncio.Redis.from_url(
            SERVER_URL, decode_responses=True, protocol=protocol, max_connections=20
        )
        async with client:
            # In rounds, so that the pool never needs more connections than it may open.
            numbers = []
            for _ in range(50):
                numbers += await asyncio.gather(*(client.incr(prefix) for _ in range(20)))
            assert sorted(numbers) == list(range(1, 1001))
            async with client.pipeline(transaction=True) as pipeline:
                assert await pipeline.get(prefix).delete(prefix).execute() == ["1000", 1]
            popped = asyncio.create_task(client.blpop([prefix], timeout=20))
            await client.rpush(prefix, "x")
            assert list(await popped) == [prefix, "x"]

    asyncio.run(work())
