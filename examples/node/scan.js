// SCAN over a keyspace that others keep changing. What it promises: a key that is there from
// the first call to the last is returned, and a key that never was there is not.
//
//   node scan.js [number of keys, 50000 if not given]
import { isMain, uniquePrefix, withClients } from './lib/connect.js';

const inFlight = 10_000;

async function inBatches(total, command) {
  for (let first = 0; first < total; first += inFlight) {
    const end = Math.min(first + inFlight, total);
    await Promise.all(Array.from({ length: end - first }, (_, index) => command(first + index)));
  }
}

/** Sets `total` keys that stay while the scan runs. */
export async function load(client, prefix, total) {
  await inBatches(total, (index) => client.set(`${prefix}:stable:${index}`, 'x'));
}

/** Removes what an example left. */
export async function cleanUp(client, prefix) {
  for await (const keys of client.scanIterator({ MATCH: `${prefix}:*`, COUNT: 5000 })) {
    if (keys.length > 0) await client.unlink(keys);
  }
}

/**
 * Scans while a second client first adds `churn` keys, then removes them, over and over, so that
 * the tables behind the keys grow and shrink under the cursor.
 */
export async function scanWhileChanging(client, changer, prefix, total, churn, count = 1000) {
  let scanning = true;
  let changes = 0;
  const changing = (async () => {
    while (scanning) {
      for (const command of [
        (index) => changer.set(`${prefix}:passing:${index}`, 'x'),
        (index) => changer.unlink(`${prefix}:passing:${index}`),
      ]) {
        for (let first = 0; first < churn && scanning; first += 1000) {
          const end = Math.min(first + 1000, churn);
          await Promise.all(
            Array.from({ length: end - first }, (_, index) => command(first + index)),
          );
          changes += end - first;
        }
      }
    }
  })();

  const seen = new Uint8Array(total);
  const strangers = [];
  let calls = 0;
  try {
    let cursor = '0';
    do {
      const reply = await client.scan(cursor, { MATCH: `${prefix}:*`, COUNT: count });
      cursor = reply.cursor;
      calls++;
      for (const key of reply.keys) {
        const [kind, number] = key.slice(prefix.length + 1).split(':');
        const index = Number(number);
        if (kind === 'stable' && index < total) seen[index] = 1;
        else if (kind !== 'passing' || !(index < churn)) strangers.push(key);
      }
    } while (cursor !== '0');
  } finally {
    scanning = false;
    await changing;
  }
  const found = seen.reduce((sum, flag) => sum + flag, 0);
  return { found, strangers, calls, changes };
}

if (isMain(import.meta.url)) {
  const total = Number(process.argv[2] ?? 50_000);
  const prefix = uniquePrefix('scan');
  await withClients(2, async (client, changer) => {
    await load(client, prefix, total);
    const { found, calls, changes } = await scanWhileChanging(
      client,
      changer,
      prefix,
      total,
      Math.ceil(total / 3),
    );
    console.log(`${found} of ${total} keys found in ${calls} calls during ${changes} changes`);
    await cleanUp(client, prefix);
  });
}
