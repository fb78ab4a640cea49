// Moving money between two accounts with WATCH: read, decide, write, and begin again when
// someone else changed an account in between.
//
//   node transactions.js
import { WatchError } from 'redis';
import { isMain, uniquePrefix, withClients } from './lib/connect.js';

/** Moves `amount`; false when the account does not hold enough. Needs a client of its own. */
export async function transfer(client, from, to, amount) {
  for (;;) {
    await client.watch([from, to]);
    const balance = Number((await client.get(from)) ?? 0);
    if (balance < amount) {
      await client.unwatch();
      return false;
    }
    try {
      await client.multi().decrBy(from, amount).incrBy(to, amount).exec();
      return true;
    } catch (error) {
      if (!(error instanceof WatchError)) throw error;
    }
  }
}

if (isMain(import.meta.url)) {
  const prefix = uniquePrefix('bank');
  const accounts = ['a', 'b', 'c'].map((name) => `${prefix}:${name}`);
  await withClients(6, async (...clients) => {
    await clients[0].mSet(accounts.flatMap((account) => [account, '1000']));
    await Promise.all(
      clients.map(async (client, number) => {
        for (let turn = 0; turn < 50; turn++) {
          await transfer(client, accounts[(number + turn) % 3], accounts[(number + turn + 1) % 3], 10);
        }
      }),
    );
    const balances = (await clients[0].mGet(accounts)).map(Number);
    console.log('balances:', balances, 'sum:', balances.reduce((sum, one) => sum + one));
    await clients[0].unlink(accounts);
  });
}
