"""Publish and subscribe: exact channels and patterns.

    python pubsub.py
"""

from common import connect, unique_prefix, until


class Listener:
    """Collects what arrives on a channel or on the channels that match a pattern."""

    def __init__(self, client, channel=None, pattern=None):
        self._pubsub = client.pubsub(ignore_subscribe_messages=False)
        self.received = []
        if channel:
            self._pubsub.subscribe(channel)
        if pattern:
            self._pubsub.psubscribe(pattern)
        until(self._confirmed, "the subscription is confirmed")

    def _confirmed(self) -> bool:
        message = self._pubsub.get_message(timeout=0.1)
        return message is not None and message["type"] in ("subscribe", "psubscribe")

    def poll(self, count: int) -> bool:
        """Reads what is there; true once `count` messages have arrived."""
        while (message := self._pubsub.get_message(timeout=0.01)) is not None:
            if message["type"] in ("message", "pmessage"):
                self.received.append((message["channel"], message["data"]))
        return len(self.received) >= count

    def close(self) -> None:
        self._pubsub.close()


if __name__ == "__main__":
    prefix = unique_prefix("news")
    with connect() as publisher, connect() as one, connect() as two:
        sport = Listener(one, channel=f"{prefix}:sport")
        everything = Listener(two, pattern=f"{prefix}:*")
        publisher.publish(f"{prefix}:sport", "two to one")
        publisher.publish(f"{prefix}:weather", "rain")
        until(lambda: sport.poll(1) and everything.poll(2), "the messages arrive")
        print("on the channel:", [data for _, data in sport.received])
        print("on the pattern:", [data for _, data in everything.received])
        sport.close()
        everything.close()
