"""A cache with expiration: fill on a miss, refresh on a hit, change a value without touching the
time it has left.

    python cache.py
"""

import json

from common import connect, unique_prefix


def cached(client, key: str, ttl_ms: int, load):
    """Returns (value, hit): the cached value, or what `load` answers, kept for `ttl_ms`."""
    text = client.get(key)
    if text is not None:
        return json.loads(text), True
    value = load()
    client.set(key, json.dumps(value), px=ttl_ms)
    return value, False


def touch_session(client, key: str, seconds: int):
    """Reads a session and gives it another `seconds` to live; None when it has ended."""
    text = client.getex(key, ex=seconds)
    return None if text is None else json.loads(text)


def replace_keeping_ttl(client, key: str, value) -> bool:
    """Changes a value that is there, leaving its expiration as it is. False when it has gone."""
    return bool(client.set(key, json.dumps(value), keepttl=True, xx=True))


if __name__ == "__main__":
    key = unique_prefix("cache")
    with connect() as client:
        for turn in ("first", "second"):
            _, hit = cached(client, key, 30_000, lambda: {"name": "Ada", "plan": "pro"})
            print(f"{turn} read: hit {hit}")
        replace_keeping_ttl(client, key, {"name": "Ada", "plan": "free"})
        print(f"after a change {client.pttl(key)} of 30000 ms are left")
        touch_session(client, key, 3600)
        print(f"after a visit {client.ttl(key)} seconds are left")
        client.unlink(key)
