import test from 'node:test';
import assert from 'node:assert/strict';
import { countView, views } from '../counters.js';
import { between, pageAbove, standing, submit, top } from '../leaderboard.js';
import { listen } from '../pubsub.js';
import { transfer } from '../transactions.js';
import { until, uniquePrefix, withClients } from '../lib/connect.js';

test('counters: no increment is lost', async () => {
  await withClients(8, async (...clients) => {
    const prefix = uniquePrefix('views');
    const answers = await Promise.all(
      Array.from({ length: 4000 }, (_, index) =>
        countView(clients[index % 8], prefix, index % 4 ? '/docs' : '/', 0.25),
      ),
    );
    assert.deepEqual(await views(clients[0], prefix), {
      total: 4000,
      pages: { '/': 1000, '/docs': 3000 },
    });
    assert.equal(await clients[0].get(`${prefix}:seconds`), '1000');
    // A MULTI is one step: the numbers it saw belong together, and no two saw the same.
    assert.ok(answers.every((answer) => answer.seconds === answer.total * 0.25));
    assert.equal(new Set(answers.map((answer) => answer.total)).size, 4000);
    await clients[0].unlink([`${prefix}:total`, `${prefix}:pages`, `${prefix}:seconds`]);
  });
});

test('leaderboard: agrees with a sorted array', async () => {
  await withClients(1, async (client) => {
    const key = uniquePrefix('board');
    const best = new Map();
    const submissions = [];
    for (let turn = 0; turn < 3000; turn++) {
      const player = `p${String((turn * 7) % 500).padStart(3, '0')}`;
      const score = ((turn * 7919) % 1009) / 4;
      best.set(player, Math.max(best.get(player) ?? -Infinity, score));
      submissions.push(submit(client, key, player, score));
    }
    await Promise.all(submissions);
    const ascending = [...best]
      .map(([value, score]) => ({ value, score }))
      .sort((a, b) => a.score - b.score || (a.value < b.value ? -1 : 1));
    const descending = ascending.toReversed();
    const names = (entries) => entries.map((entry) => entry.value);

    assert.deepEqual(await top(client, key, 10), descending.slice(0, 10));
    assert.deepEqual(
      await between(client, key, 100, 200),
      names(ascending.filter(({ score }) => score >= 100 && score <= 200)),
    );
    const above = names(descending.filter(({ score }) => score > 150));
    assert.deepEqual(await pageAbove(client, key, 150, 20, 15), above.slice(20, 35));
    for (const rank of [1, 2, 250, 500]) {
      const { value, score } = descending[rank - 1];
      assert.deepEqual(await standing(client, key, value), { rank, score });
    }
    assert.equal(await standing(client, key, 'nobody'), null);
    await client.unlink(key);
  });
});

test('pub/sub: in order, on channels and patterns, and only there', async () => {
  await withClients(4, async (publisher, exact, wide, elsewhere) => {
    const prefix = uniquePrefix('news');
    const onChannel = await listen(exact, { channel: `${prefix}:a` });
    const onPattern = await listen(wide, { pattern: `${prefix}:*` });
    const other = await listen(elsewhere, { channel: `${prefix}:b` });
    const receivers = [];
    for (let number = 0; number < 1000; number++) {
      receivers.push(publisher.publish(`${prefix}:a`, String(number)));
    }
    assert.ok((await Promise.all(receivers)).every((count) => count === 2));
    assert.equal(await publisher.publish(`${prefix}:b`, 'end'), 2);
    await until(() => onPattern.length === 1001 && other.length === 1, 'all messages');
    await until(() => onChannel.length === 1000, 'all messages of the channel');
    const numbers = Array.from({ length: 1000 }, (_, index) => String(index));
    assert.deepEqual(onChannel.map(({ message }) => message), numbers);
    assert.deepEqual(onPattern.map(({ message }) => message), [...numbers, 'end']);
    assert.deepEqual(other, [{ message: 'end', from: `${prefix}:b` }]);
    await exact.unsubscribe(`${prefix}:a`);
    assert.equal(await publisher.publish(`${prefix}:a`, 'late'), 1);
  });
});

test('WATCH: no transfer works on an old balance', async () => {
  await withClients(8, async (...clients) => {
    const prefix = uniquePrefix('bank');
    const accounts = ['a', 'b', 'c'].map((name) => `${prefix}:${name}`);
    await clients[0].mSet(accounts.flatMap((account) => [account, '50']));
    await Promise.all(
      clients.map(async (client, number) => {
        for (let turn = 0; turn < 60; turn++) {
          const [from, to] = [accounts[(number + turn) % 3], accounts[(number * 2 + turn + 1) % 3]];
          if (from !== to) await transfer(client, from, to, 20);
          // The sum holds at every moment, seen from one reply.
          const sum = (await client.mGet(accounts)).reduce((total, one) => total + Number(one), 0);
          assert.equal(sum, 150);
        }
      }),
    );
    const balances = (await clients[0].mGet(accounts)).map(Number);
    assert.ok(balances.every((balance) => balance >= 0), `${balances}`);
    assert.equal(await transfer(clients[0], accounts[0], accounts[1], 151), false);
    assert.deepEqual((await clients[0].mGet(accounts)).map(Number), balances);
    await clients[0].unlink(accounts);
  });
});
