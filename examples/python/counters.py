"""Counters: plain ones, a hash of them, and one that counts in fractions.

    python counters.py
"""

from common import connect, in_threads, unique_prefix


def count_view(client, prefix: str, page: str, seconds: float):
    """Counts one page view; returns the total, the page's own count and the seconds spent."""
    pipeline = client.pipeline(transaction=True)
    pipeline.incr(f"{prefix}:total")
    pipeline.hincrby(f"{prefix}:pages", page, 1)
    pipeline.incrbyfloat(f"{prefix}:seconds", seconds)
    total, of_page, spent = pipeline.execute()
    return total, of_page, float(spent)


def views(client, prefix: str):
    """The total and the counts by page."""
    total = int(client.get(f"{prefix}:total") or 0)
    pages = client.hgetall(f"{prefix}:pages")
    return total, {page: int(count) for page, count in pages.items()}


def clean_up(client, prefix: str) -> None:
    client.unlink(f"{prefix}:total", f"{prefix}:pages", f"{prefix}:seconds")


if __name__ == "__main__":
    prefix = unique_prefix("views")
    in_threads(
        4,
        lambda client, _: [
            count_view(client, prefix, "/docs" if turn % 3 else "/", 0.5) for turn in range(250)
        ],
    )
    with connect() as client:
        print(views(client, prefix))
        clean_up(client, prefix)
