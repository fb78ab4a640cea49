"""What the tests share: the server's address and names that no other run uses."""

import os
import secrets
import time
from urllib.parse import urlparse

import pytest

SERVER_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
SERVER_PORT = urlparse(SERVER_URL).port or 6379


def until(condition, what: str, deadline_s: float = 10.0):
    """Asks `condition` again and again until it holds; fails after `deadline_s`."""
    end = time.monotonic() + deadline_s
    while not (answer := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline_s} s: {what}")
        time.sleep(0.005)
    return answer


@pytest.fixture
def prefix():
    return f"e2e:py:{os.getpid()}:{secrets.token_hex(4)}"
