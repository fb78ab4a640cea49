import test from 'node:test';
import assert from 'node:assert/strict';
import { Order, consume, produce, run } from '../producer-consumer.js';
import { uniquePrefix, withClients } from '../lib/connect.js';

const order = (id, more = {}) => ({ id, customer: 'Grace', amount: 12.5, ...more });

test('an element appended is the element taken', async () => {
  await withClients(2, async (producer, consumer) => {
    const key = uniquePrefix('orders');
    const orders = [
      order(1, { tags: ['ä', '"quoted"', 'a\\b', '\u0001', '日本'] }),
      order(2 ** 46, { amount: 0.1 }),
    ];
    assert.deepEqual(JSON.parse(await produce(producer, key, orders.slice(0, 1))), orders.slice(0, 1));
    assert.deepEqual(JSON.parse(await produce(producer, key, orders.slice(1))), orders);
    assert.deepEqual(await consume(consumer, key), orders);
    assert.deepEqual(await consume(consumer, key), []);
    assert.equal(await consumer.exists(key), 0);
  });
});

test('input that does not fit the schema never reaches the server', async () => {
  await withClients(1, async (client) => {
    const key = uniquePrefix('orders');
    for (const bad of [[], {}, [order(-1)], [order(1.5)], [{ ...order(1), amount: '5' }], [null]]) {
      await assert.rejects(produce(client, key, bad), { name: 'ZodError' });
    }
    assert.equal(await client.exists(key), 0);
    assert.ok(Order.safeParse(order(1)).success);
  });
});

test('a value that is not JSON fails the script and stays as it was', async () => {
  await withClients(1, async (client) => {
    const key = uniquePrefix('orders');
    await client.set(key, 'not json');
    await assert.rejects(produce(client, key, [order(1)]), /Expected value but found invalid token/);
    assert.equal(await client.get(key), 'not json');
    await client.del(key);
  });
});

for (const shape of [
  { total: 200_000, producers: 16, consumers: 8, queues: 8, batch: 25 },
  { total: 20_000, producers: 24, consumers: 12, queues: 1, batch: 5 },
]) {
  test(`every one of ${shape.total} elements on ${shape.queues} keys is consumed once`, async () => {
    const { seen } = await run(shape);
    assert.equal(seen.length, shape.total);
    assert.equal(seen.findIndex((times) => times !== 1), -1);
  });
}
