"""A leaderboard in a sorted set: the best, one player's rank, everyone within a score range.

    python leaderboard.py
"""

from common import connect, unique_prefix


def submit(client, key: str, player: str, score: float) -> None:
    """Keeps a player's best score only."""
    client.zadd(key, {player: score}, gt=True)


def top(client, key: str, count: int):
    """The `count` best as (player, score), best first."""
    return [tuple(entry) for entry in client.zrange(key, 0, count - 1, desc=True, withscores=True)]


def standing(client, key: str, player: str):
    """Rank from 1 and score of a player, or None."""
    rank, score = (
        client.pipeline(transaction=True).zrevrank(key, player).zscore(key, player).execute()
    )
    return None if rank is None else (rank + 1, score)


def between(client, key: str, low: float, high: float):
    """Players with `low` <= score <= `high`, lowest first."""
    return client.zrangebyscore(key, low, high)


def page_above(client, key: str, above: float, offset: int, count: int):
    """One page of the players scoring more than `above`, best first."""
    return client.zrange(
        key, "+inf", f"({above}", byscore=True, desc=True, offset=offset, num=count
    )


if __name__ == "__main__":
    key = unique_prefix("board")
    with connect() as client:
        for player in range(100):
            submit(client, key, f"player-{player}", player * 7919 % 1000)
        print("top three:", top(client, key, 3))
        print("player-42:", standing(client, key, "player-42"))
        print("500 to 540:", between(client, key, 500, 540))
        print("second page above 900:", page_above(client, key, 900, 4, 4))
        client.unlink(key)
