import test from 'node:test';
import assert from 'node:assert/strict';
import { fixedWindow, slidingWindow } from '../rate-limiter.js';
import { until, uniquePrefix, withClients } from '../lib/connect.js';

const addresses = ['192.0.2.1', '192.0.2.2', '2001:db8::7'];

const limiters = {
  fixed: (client, prefix, ip, limit, windowSeconds) =>
    fixedWindow(client, prefix, ip, { limit, windowSeconds }),
  sliding: (client, prefix, ip, limit, windowSeconds) =>
    slidingWindow(client, prefix, ip, { limit, windowMs: windowSeconds * 1000 }),
};

for (const [name, ask] of Object.entries(limiters)) {
  test(`${name} window: exactly the limit passes, however many ask at once`, async () => {
    await withClients(8, async (...clients) => {
      const prefix = uniquePrefix('limit');
      const answers = await Promise.all(
        Array.from({ length: 3000 }, async (_, index) => {
          const ip = addresses[index % addresses.length];
          const answer = await ask(clients[index % clients.length], prefix, ip, 137, 60);
          return { ip, ...answer };
        }),
      );
      for (const ip of addresses) {
        const passed = answers.filter((answer) => answer.ip === ip && answer.allowed);
        assert.equal(passed.length, 137);
        const left = passed.map((answer) => answer.remaining).sort((a, b) => a - b);
        assert.deepEqual(left, Array.from({ length: 137 }, (_, index) => index));
      }
      await clients[0].unlink(addresses.map((ip) => `${prefix}:${name}:${ip}`));
    });
  });

  test(`${name} window: requests pass again when the window is over`, async () => {
    await withClients(1, async (client) => {
      const prefix = uniquePrefix('limit');
      const once = async () => (await ask(client, prefix, addresses[0], 3, 1)).allowed;
      const start = performance.now();
      assert.deepEqual([await once(), await once(), await once(), await once()], [true, true, true, false]);
      await until(once, 'a request passes again', 10_000);
      // The server's clock counts whole milliseconds, ours does not.
      assert.ok(performance.now() - start >= 990);
      await client.unlink(`${prefix}:${name}:${addresses[0]}`);
    });
  });
}

test('fixed window: the window begins with the first request and is not extended', async () => {
  await withClients(1, async (client) => {
    const prefix = uniquePrefix('limit');
    const first = await fixedWindow(client, prefix, addresses[0], { limit: 5, windowSeconds: 100 });
    assert.ok(first.resetMs > 99_000 && first.resetMs <= 100_000);
    await client.pExpire(`${prefix}:fixed:${addresses[0]}`, 5_000);
    const second = await fixedWindow(client, prefix, addresses[0], { limit: 5, windowSeconds: 100 });
    assert.ok(second.resetMs > 0 && second.resetMs <= 5_000);
    await client.unlink(`${prefix}:fixed:${addresses[0]}`);
  });
});
