// A cache with expiration: fill on a miss, refresh on a hit, change a value without touching
// the time it has left.
//
//   node cache.js
import { isMain, uniquePrefix, withClients } from './lib/connect.js';

/** Returns the cached value, or asks `load` and keeps its answer for `ttlMs`. */
export async function cached(client, key, ttlMs, load) {
  const hit = await client.get(key);
  if (hit !== null) return { value: JSON.parse(hit), hit: true };
  const value = await load();
  await client.set(key, JSON.stringify(value), { expiration: { type: 'PX', value: ttlMs } });
  return { value, hit: false };
}

/** Reads a session and gives it another `seconds` to live; null when it has ended. */
export async function touchSession(client, key, seconds) {
  const text = await client.getEx(key, { type: 'EX', value: seconds });
  return text === null ? null : JSON.parse(text);
}

/** Changes a value that is there, leaving its expiration as it is. False when it has gone. */
export async function replaceKeepingTtl(client, key, value) {
  const reply = await client.set(key, JSON.stringify(value), {
    expiration: 'KEEPTTL',
    condition: 'XX',
  });
  return reply === 'OK';
}

if (isMain(import.meta.url)) {
  const prefix = uniquePrefix('cache');
  await withClients(1, async (client) => {
    const load = async () => ({ name: 'Ada', plan: 'pro' });
    const first = await cached(client, `${prefix}:user`, 30_000, load);
    const second = await cached(client, `${prefix}:user`, 30_000, load);
    console.log(`first read: hit ${first.hit}; second read: hit ${second.hit}`);
    await replaceKeepingTtl(client, `${prefix}:user`, { name: 'Ada', plan: 'free' });
    console.log(`after a change ${await client.pTTL(`${prefix}:user`)} of 30000 ms are left`);
    await touchSession(client, `${prefix}:user`, 3600);
    console.log(`after a visit ${await client.ttl(`${prefix}:user`)} seconds are left`);
    await client.unlink(`${prefix}:user`);
  });
}
