"""JSON documents through redis-py in RESP2 and RESP3."""

import pytest
import redis
from redis.commands.json.path import Path
from redis.exceptions import ResponseError

from conftest import SERVER_URL


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def client(request):
    with redis.Redis.from_url(SERVER_URL, decode_responses=True, protocol=request.param) as one:
        if not one.execute_command("COMMAND LIST", "FILTERBY", "PATTERN", "json.set"):
            pytest.skip("the server has no documents")
        yield one


def test_documents(client, prefix):
    json = client.json()
    key = f"{prefix}:{{k}}"
    document = {"name": "Ann", "tags": ["a", "b"], "age": 30, "address": {"city": "X", "zip": None}, "ok": True}
    assert json.set(key, Path.root_path(), document) is True
    assert json.set(key, "$", {}, nx=True) is None
    assert json.get(key) == document
    assert json.get(key, "$.address.city") == ["X"]
    assert json.get(key, "$.age", "$.ok") == {"$.age": [30], "$.ok": [True]}
    assert json.arrappend(key, "$.tags", "c", {"d": 1}) == [4]
    assert json.arrinsert(key, "$.tags", 0, "first") == [5]
    assert json.arrindex(key, "$.tags", "c") == [3]
    assert json.arrlen(key, "$.tags") == [5]
    assert json.arrpop(key, "$.tags") in (['{"d":1}'], [{"d": 1}])
    assert json.arrtrim(key, "$.tags", 1, 2) == [2]
    assert json.get(key, "$.tags") == [["a", "b"]]
    assert json.numincrby(key, "$.age", 1.5) == [31.5]
    assert json.nummultby(key, "$.age", 2) == [63]
    assert json.strappend(key, "a", "$.name") == [4]
    assert json.strlen(key, "$.name") == [4]
    assert json.toggle(key, "$.ok") == [0]
    assert json.merge(key, "$", {"address": {"zip": 7, "city": None}}) is True
    assert json.get(key, "$.address") == [{"zip": 7}]
    assert json.objkeys(key, "$.address") == [["zip"]]
    assert json.objlen(key, "$") == [5]
    assert json.type(key, "$.age") in (["number"], [["number"]])
    other = f"{key}:2"
    assert json.mset([(other, "$", {"age": 1}), (key, "$.age", 2)]) is True
    assert json.mget([key, other, f"{key}:3"], "$.age") == [[2], [1], None]
    assert json.clear(key, "$.tags") == 1
    assert json.delete(key, "$.tags") == 1
    assert json.forget(other) == 1
    with pytest.raises(ResponseError, match="new objects must be created at the root"):
        json.set(other, "$.x", 1)
    script = "redis.call('JSON.ARRAPPEND', KEYS[1], '$.list', ARGV[1]) return redis.call('JSON.GET', KEYS[1], '$.list')"
    json.set(key, "$.list", [])
    assert client.eval(script, 1, key, '{"x":1}') == '[[{"x":1}]]'
    assert client.type(key) == "ReJSON-RL"
    client.delete(key)
