import test from 'node:test';
import assert from 'node:assert/strict';
import { cleanUp, load, scanWhileChanging } from '../scan.js';
import { uniquePrefix, withClients } from '../lib/connect.js';

const total = Number(process.env.SCAN_KEYS ?? 1_000_000);

test(`SCAN finds all ${total} keys that stay, and no strangers, while others come and go`, async () => {
  await withClients(2, async (client, changer) => {
    const prefix = uniquePrefix('scan');
    await load(client, prefix, total);
    const result = await scanWhileChanging(client, changer, prefix, total, Math.ceil(total / 5));
    assert.equal(result.found, total);
    assert.deepEqual(result.strangers, []);
    assert.ok(result.changes > 0);
    await cleanUp(client, prefix);
    for await (const keys of client.scanIterator({ MATCH: `${prefix}:*`, COUNT: 10_000 })) {
      assert.deepEqual(keys, []);
    }
  });
});

test('HSCAN, SSCAN and ZSCAN return every member that stays', async () => {
  await withClients(2, async (client, changer) => {
    const prefix = uniquePrefix('scan');
    const members = Array.from({ length: 20_000 }, (_, index) => `member-${index}`);
    await client.hSet(`${prefix}:h`, Object.fromEntries(members.map((one) => [one, one])));
    await client.sAdd(`${prefix}:s`, members);
    await client.zAdd(`${prefix}:z`, members.map((value, score) => ({ value, score })));
    const scans = {
      h: async (cursor) => {
        const reply = await client.hScan(`${prefix}:h`, cursor, { COUNT: 200 });
        return [reply.cursor, reply.entries.map(({ field }) => field)];
      },
      s: async (cursor) => {
        const reply = await client.sScan(`${prefix}:s`, cursor, { COUNT: 200 });
        return [reply.cursor, reply.members];
      },
      z: async (cursor) => {
        const reply = await client.zScan(`${prefix}:z`, cursor, { COUNT: 200 });
        return [reply.cursor, reply.members.map(({ value }) => value)];
      },
    };
    for (const [kind, scan] of Object.entries(scans)) {
      const key = `${prefix}:${kind}`;
      const passing = Array.from({ length: 500 }, (_, index) => `passing-${index}`);
      const seen = new Set();
      let cursor = '0';
      let turn = 0;
      do {
        const [next, found] = await scan(cursor);
        cursor = next;
        for (const member of found) seen.add(member);
        const grow = turn++ % 2 === 0;
        if (kind === 'h') {
          await (grow
            ? changer.hSet(key, Object.fromEntries(passing.map((one) => [one, '1'])))
            : changer.hDel(key, passing));
        } else if (kind === 's') {
          await (grow ? changer.sAdd(key, passing) : changer.sRem(key, passing));
        } else {
          await (grow
            ? changer.zAdd(key, passing.map((value) => ({ value, score: -1 })))
            : changer.zRem(key, passing));
        }
      } while (cursor !== '0');
      for (const member of members) assert.ok(seen.has(member), `${kind}SCAN missed ${member}`);
      for (const member of seen) assert.match(member, /^(member|passing)-\d+$/);
    }
    await client.unlink(['h', 's', 'z'].map((kind) => `${prefix}:${kind}`));
  });
});
