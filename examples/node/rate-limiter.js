// Two rate limiters by IP address, both a single script, so that the check and the count
// cannot be torn apart by another caller.
//
//   node rate-limiter.js
import { randomUUID } from 'node:crypto';
import { isMain, script, uniquePrefix, withClients } from './lib/connect.js';

const fixedWindowScript = script('fixed-window');
const slidingWindowScript = script('sliding-window');

/** At most `limit` requests per window; the first request opens the window. */
export async function fixedWindow(client, prefix, ip, { limit, windowSeconds }) {
  const [allowed, remaining, resetMs] = await client.eval(fixedWindowScript, {
    keys: [`${prefix}:fixed:${ip}`],
    arguments: [String(limit), String(windowSeconds)],
  });
  return { allowed: allowed === 1, remaining, resetMs };
}

/** At most `limit` requests in any span of `windowMs`, wherever it begins. */
export async function slidingWindow(client, prefix, ip, { limit, windowMs }) {
  const [allowed, remaining] = await client.eval(slidingWindowScript, {
    keys: [`${prefix}:sliding:${ip}`],
    arguments: [String(limit), String(windowMs), randomUUID()],
  });
  return { allowed: allowed === 1, remaining };
}

if (isMain(import.meta.url)) {
  const prefix = uniquePrefix('limit');
  await withClients(4, async (...clients) => {
    for (const [name, ask] of [
      ['fixed', (client) => fixedWindow(client, prefix, '192.0.2.7', { limit: 10, windowSeconds: 60 })],
      ['sliding', (client) => slidingWindow(client, prefix, '192.0.2.7', { limit: 10, windowMs: 60_000 })],
    ]) {
      const answers = await Promise.all(
        Array.from({ length: 100 }, (_, index) => ask(clients[index % clients.length])),
      );
      const allowed = answers.filter((answer) => answer.allowed).length;
      console.log(`${name} window: ${allowed} of 100 requests allowed, the limit is 10`);
    }
    await clients[0].unlink([`${prefix}:fixed:192.0.2.7`, `${prefix}:sliding:192.0.2.7`]);
  });
}
