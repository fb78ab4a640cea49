"""Two rate limiters by IP address, both a single script, so that the check and the count cannot
be torn apart by another caller.

    python rate_limiter.py
"""

import uuid
from typing import NamedTuple

from common import connect, in_threads, script, unique_prefix

FIXED_WINDOW_SCRIPT = script("fixed-window")
SLIDING_WINDOW_SCRIPT = script("sliding-window")


class Answer(NamedTuple):
    allowed: bool
    remaining: int


def fixed_window(client, prefix: str, ip: str, limit: int, window_s: int) -> Answer:
    """At most `limit` requests per window; the first request opens the window."""
    key = f"{prefix}:fixed:{ip}"
    allowed, remaining, _ = client.eval(FIXED_WINDOW_SCRIPT, 1, key, limit, window_s)
    return Answer(allowed == 1, remaining)


def sliding_window(client, prefix: str, ip: str, limit: int, window_s: int) -> Answer:
    """At most `limit` requests in any span of `window_s` seconds, wherever it begins."""
    key = f"{prefix}:sliding:{ip}"
    request = str(uuid.uuid4())
    allowed, remaining = client.eval(
        SLIDING_WINDOW_SCRIPT, 1, key, limit, window_s * 1000, request
    )
    return Answer(allowed == 1, remaining)


if __name__ == "__main__":
    prefix = unique_prefix("limit")
    for limiter in (fixed_window, sliding_window):
        answers = in_threads(
            4,
            lambda client, _: [limiter(client, prefix, "192.0.2.7", 10, 60) for _ in range(25)],
        )
        allowed = sum(answer.allowed for part in answers for answer in part)
        print(f"{limiter.__name__}: {allowed} of 100 requests allowed, the limit is 10")
    with connect() as client:
        client.unlink(f"{prefix}:fixed:192.0.2.7", f"{prefix}:sliding:192.0.2.7")
