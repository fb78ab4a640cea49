// Producers append orders to a JSON array with a Lua script; consumers take the whole array
// and delete it in one MULTI. No order may be lost or seen twice.
//
//   node producer-consumer.js
import { z } from 'zod';
import { isMain, script, uniquePrefix, withClients } from './lib/connect.js';

const appendScript = script('append');

export const Order = z.object({
  id: z.number().int().nonnegative(),
  customer: z.string().min(1).max(64),
  amount: z.number().positive(),
  tags: z.array(z.string()).min(1).optional(),
});
// An empty array is refused: Lua cannot tell [] from {}, so cjson would store an object.
export const Orders = z.array(Order).min(1);

/** Checks the orders, appends them to the array at `key` and returns the merged JSON text. */
export async function produce(client, key, orders) {
  const json = JSON.stringify(Orders.parse(orders));
  return client.eval(appendScript, { keys: [key], arguments: [json] });
}

/** Takes everything queued at `key`, leaving nothing behind. */
export async function consume(client, key) {
  const [text] = await client.multi().get(key).del(key).exec();
  return text === null ? [] : Orders.parse(JSON.parse(text));
}

/**
 * Moves `total` orders through `queues` keys. Every producer and every consumer has a connection
 * of its own. Returns how often each order id arrived.
 */
export async function run({ total, producers, consumers, queues, batch }) {
  const prefix = uniquePrefix('orders');
  const keys = Array.from({ length: queues }, (_, index) => `${prefix}:${index}`);
  const seen = new Uint32Array(total);

  return withClients(producers + consumers, async (...clients) => {
    let next = 0;
    let producing = true;

    const producer = async (client, number) => {
      for (let turn = number; next < total; turn++) {
        const first = next;
        next = Math.min(next + batch, total);
        const orders = [];
        for (let id = first; id < next; id++) {
          orders.push({ id, customer: `customer-${id % 97}`, amount: (id % 500) + 0.25 });
        }
        await produce(client, keys[turn % queues], orders);
      }
    };

    const consumer = async (client, number) => {
      for (let turn = number; ; turn++) {
        // Read the flag before looking: a queue that is empty afterwards stays empty.
        const last = !producing;
        let found = 0;
        for (let step = 0; step < queues; step++) {
          const orders = await consume(client, keys[(turn + step) % queues]);
          for (const order of orders) seen[order.id]++;
          found += orders.length;
        }
        if (last && found === 0) return;
      }
    };

    const start = performance.now();
    const consuming = clients.slice(producers).map(consumer);
    const work = Promise.all(clients.slice(0, producers).map(producer)).finally(() => {
      producing = false;
    });
    await Promise.all([work, ...consuming]);
    return { seen, elapsedMs: performance.now() - start };
  });
}

if (isMain(import.meta.url)) {
  const total = 20_000;
  const { seen, elapsedMs } = await run({
    total,
    producers: 8,
    consumers: 4,
    queues: 4,
    batch: 20,
  });
  const once = seen.filter((times) => times === 1).length;
  console.log(`${once} of ${total} orders consumed exactly once in ${elapsedMs.toFixed(0)} ms`);
}
