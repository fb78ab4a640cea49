"""redis-py over TLS, with certificates on both sides."""

import socket
import subprocess
from pathlib import Path

import pytest
import redis

from conftest import SERVER_URL, until


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """Has the server listen for TLS; answers the port and where the certificates are."""
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run([Path(__file__).parent.parent / "certificates", directory], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with redis.Redis.from_url(SERVER_URL) as admin:
        admin.config_set("tls-cert-file", str(directory / "server.crt"), *pairs(directory, port))
        yield port, directory
        admin.config_set("tls-port", 0)


def pairs(directory, port):
    return [
        "tls-key-file", str(directory / "server.key"),
        "tls-ca-cert-file", str(directory / "ca.crt"),
        "tls-port", port,
    ]


def connect(secured, protocol=3, **options):
    port, directory = secured
    identity = {
        "ssl_certfile": str(directory / "client.crt"),
        "ssl_keyfile": str(directory / "client.key"),
    }
    return redis.Redis(
        host="localhost",
        port=port,
        ssl=True,
        ssl_ca_certs=str(directory / "ca.crt"),
        protocol=protocol,
        decode_responses=True,
        **(identity | options),
    )


@pytest.mark.parametrize("protocol", [2, 3])
def test_commands_and_pipelines(secured, protocol, prefix):
    with connect(secured, protocol) as client:
        assert client.set(prefix, "value") is True
        pipeline = client.pipeline(transaction=False)
        for number in range(1000):
            pipeline.append(prefix, number % 10)
        replies = pipeline.execute()
        assert replies == list(range(6, 1006))
        big = "x" * 10_000_000
        client.set(prefix, big)
        assert client.get(prefix) == big
        assert client.eval("return redis.call('STRLEN', KEYS[1])", 1, prefix) == len(big)
        assert client.delete(prefix) == 1


def test_messages(secured, prefix):
    with connect(secured) as client, client.pubsub() as listener:
        listener.subscribe(prefix)
        assert until(lambda: listener.get_message(timeout=1), "the subscription")["data"] == 1
        client.publish(prefix, "news")
        assert until(lambda: listener.get_message(timeout=1), "the message")["data"] == "news"


def test_who_shows_no_certificate_is_refused(secured):
    with connect(secured, ssl_certfile=None, ssl_keyfile=None) as client:
        with pytest.raises(redis.exceptions.ConnectionError):
            client.ping()
    with connect(secured) as client:
        assert client.ping()
