import test from 'node:test';
import assert from 'node:assert/strict';
import { cached, replaceKeepingTtl, touchSession } from '../cache.js';
import { until, uniquePrefix, withClients } from '../lib/connect.js';

test('a miss loads, a hit does not', async () => {
  await withClients(1, async (client) => {
    const key = uniquePrefix('cache');
    let loads = 0;
    const load = async () => ({ loads: ++loads });
    assert.deepEqual(await cached(client, key, 60_000, load), { value: { loads: 1 }, hit: false });
    assert.deepEqual(await cached(client, key, 60_000, load), { value: { loads: 1 }, hit: true });
    assert.equal(loads, 1);
    await client.unlink(key);
  });
});

test('times to live: EX, PX, EXAT, KEEPTTL, GETEX, PERSIST', async () => {
  await withClients(1, async (client) => {
    const key = uniquePrefix('cache');
    await client.set(key, '1', { expiration: { type: 'EX', value: 100 } });
    assert.ok((await client.ttl(key)) > 98);
    await replaceKeepingTtl(client, key, 2);
    assert.equal(await client.get(key), '2');
    assert.ok((await client.ttl(key)) > 98);
    await client.set(key, '3');
    assert.equal(await client.ttl(key), -1);
    await client.set(key, '4', { expiration: { type: 'PX', value: 50_000 } });
    const left = await client.pTTL(key);
    assert.ok(left > 48_000 && left <= 50_000);
    assert.equal(await touchSession(client, key, 1000), 4);
    assert.ok((await client.ttl(key)) > 998);
    const at = Math.floor(Date.now() / 1000) + 500;
    await client.set(key, '5', { expiration: { type: 'EXAT', value: at } });
    assert.equal(await client.expireTime(key), at);
    assert.equal(await client.getEx(key, { type: 'PERSIST' }), '5');
    assert.equal(await client.ttl(key), -1);
    await client.unlink(key);
    assert.equal(await client.ttl(key), -2);
    assert.equal(await replaceKeepingTtl(client, key, 6), false);
    assert.equal(await touchSession(client, key, 10), null);
  });
});

test('a key is gone when its time is over', async () => {
  await withClients(1, async (client) => {
    const key = uniquePrefix('cache');
    const start = performance.now();
    await client.set(key, '1', { expiration: { type: 'PX', value: 80 } });
    await until(async () => (await client.get(key)) === null, 'the key expires');
    const elapsedMs = performance.now() - start;
    assert.ok(elapsedMs >= 78, `gone after ${elapsedMs} ms`);
  });
});

test('keys that nobody reads expire too', async () => {
  await withClients(1, async (client) => {
    const prefix = uniquePrefix('cache');
    const expired = async () => Number(/expired_keys:(\d+)/.exec(await client.info('stats'))[1]);
    const before = await expired();
    await Promise.all(
      Array.from({ length: 2000 }, (_, index) =>
        client.set(`${prefix}:${index}`, 'x', { expiration: { type: 'PX', value: 50 } }),
      ),
    );
    await until(async () => (await expired()) >= before + 2000, 'active expiry', 30_000);
  });
});
