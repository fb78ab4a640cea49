"""Moving money between two accounts with WATCH: read, decide, write, and begin again when someone
else changed an account in between.

    python transactions.py
"""

from redis import WatchError

from common import connect, in_threads, unique_prefix


def transfer(client, source: str, target: str, amount: int) -> bool:
    """Moves `amount`; False when the account does not hold enough."""
    while True:
        with client.pipeline(transaction=True) as pipeline:
            pipeline.watch(source, target)
            if int(pipeline.get(source) or 0) < amount:
                return False
            pipeline.multi()
            pipeline.decrby(source, amount)
            pipeline.incrby(target, amount)
            try:
                pipeline.execute()
                return True
            except WatchError:
                continue


if __name__ == "__main__":
    prefix = unique_prefix("bank")
    accounts = [f"{prefix}:{name}" for name in "abc"]
    with connect() as client:
        client.mset(dict.fromkeys(accounts, 1000))

        def work(worker, number):
            for turn in range(50):
                transfer(worker, accounts[(number + turn) % 3], accounts[(number + turn + 1) % 3], 10)

        in_threads(6, work)
        balances = [int(balance) for balance in client.mget(accounts)]
        print("balances:", balances, "sum:", sum(balances))
        client.unlink(*accounts)
