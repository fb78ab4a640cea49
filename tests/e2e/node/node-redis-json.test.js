// JSON documents through node-redis, the current and the previous major version, in RESP2 and RESP3.
import test from 'node:test';
import assert from 'node:assert/strict';
import * as redis5 from 'redis';
import * as redis6 from 'redis-6';
import { serverUrl, uniquePrefix } from './common.js';

const variants = [];
for (const [name, library] of [['node-redis 5', redis5], ['node-redis 6', redis6]]) {
  for (const RESP of [2, 3]) variants.push({ name: `${name}, RESP${RESP}`, library, RESP });
}

for (const { name, library, RESP } of variants) {
  test(`${name}: documents`, async (context) => {
    const client = library.createClient({ url: serverUrl, RESP });
    client.on('error', () => {});
    await client.connect();
    try {
      const known = await client.sendCommand(['COMMAND', 'INFO', 'JSON.SET']);
      if (!known[0]) return context.skip('the server has no documents');
      const key = `${uniquePrefix('json')}:{k}`;
      const document = { name: 'Ann', tags: ['a', 'b'], age: 30, address: { city: 'X', zip: null }, ok: true };
      assert.equal(await client.json.set(key, '$', document), 'OK');
      assert.equal(await client.json.set(key, '$', {}, { condition: 'NX' }), null);
      assert.deepEqual(await client.json.get(key), document);
      assert.deepEqual(await client.json.get(key, { path: '$.address.city' }), ['X']);
      assert.deepEqual(await client.json.get(key, { path: ['$.age', '$.ok'] }), { '$.age': [30], '$.ok': [true] });
      assert.deepEqual(await client.json.arrAppend(key, '$.tags', 'c', { d: 1 }), [4]);
      assert.deepEqual(await client.json.arrInsert(key, '$.tags', 0, 'first'), [5]);
      assert.deepEqual(await client.json.arrIndex(key, '$.tags', 'c'), [3]);
      assert.deepEqual(await client.json.arrLen(key, { path: '$.tags' }), [5]);
      assert.deepEqual(await client.json.arrPop(key, { path: '$.tags' }), [{ d: 1 }]);
      assert.deepEqual(await client.json.arrTrim(key, '$.tags', 1, 2), [2]);
      assert.deepEqual(await client.json.get(key, { path: '$.tags' }), [['a', 'b']]);
      assert.deepEqual(await client.json.numIncrBy(key, '$.age', 1.5), [31.5]);
      assert.deepEqual(await client.json.numMultBy(key, '$.age', 2), [63]);
      assert.deepEqual(await client.json.strAppend(key, 'a', { path: '$.name' }), [4]);
      assert.deepEqual(await client.json.strLen(key, { path: '$.name' }), [4]);
      assert.deepEqual(await client.json.toggle(key, '$.ok'), [0]);
      assert.equal(await client.json.merge(key, '$', { address: { zip: 7, city: null } }), 'OK');
      assert.deepEqual(await client.json.get(key, { path: '$.address' }), [{ zip: 7 }]);
      assert.deepEqual(await client.json.objKeys(key, { path: '$.address' }), [['zip']]);
      assert.deepEqual(await client.json.objLen(key, { path: '$' }), [5]);
      assert.deepEqual([await client.json.type(key, { path: '$.age' })].flat(2), ['number']);
      const other = `${key}:2`;
      assert.equal(await client.json.mSet([{ key: other, path: '$', value: { age: 1 } }, { key, path: '$.age', value: 2 }]), 'OK');
      assert.deepEqual(await client.json.mGet([key, other, `${key}:3`], '$.age'), [[2], [1], null]);
      assert.equal(await client.json.clear(key, { path: '$.tags' }), 1);
      assert.equal(await client.json.del(key, { path: '$.tags' }), 1);
      assert.equal(await client.json.forget(other), 1);
      await assert.rejects(client.json.set(other, '$.x', 1), /new objects must be created at the root/);
      const merged = await client.eval(
        "redis.call('JSON.MERGE', KEYS[1], '$', ARGV[1]); return redis.call('JSON.GET', KEYS[1])",
        { keys: [key], arguments: ['{"name":null,"address":null,"age":3}'] },
      );
      assert.deepEqual(JSON.parse(merged), { age: 3, ok: false });
      assert.equal(await client.type(key), 'ReJSON-RL');
      await client.del(key);
    } finally {
      client.destroy();
    }
  });
}
