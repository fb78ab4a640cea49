// node-redis, the current and the previous major version, in RESP2 and RESP3: the same calls must
// give the same answers.
import test from 'node:test';
import assert from 'node:assert/strict';
import * as redis5 from 'redis';
import * as redis6 from 'redis-6';
import { serverUrl, until, uniquePrefix } from './common.js';

const variants = [];
for (const [name, library] of [['node-redis 5', redis5], ['node-redis 6', redis6]]) {
  for (const RESP of [2, 3]) variants.push({ name: `${name}, RESP${RESP}`, library, RESP });
}

for (const { name, library, RESP } of variants) {
  const { createClient, createClientPool, defineScript, RESP_TYPES, WatchError } = library;

  const withClients = async (count, body, options = {}) => {
    const clients = await Promise.all(
      Array.from({ length: count }, async () => {
        const client = createClient({ url: serverUrl, RESP, ...options });
        client.on('error', () => {});
        await client.connect();
        return client;
      }),
    );
    try {
      return await body(...clients);
    } finally {
      for (const client of clients) if (client.isOpen) client.destroy();
    }
  };
  const check = (title, count, body, options) =>
    test(`${name}: ${title}`, () => withClients(count, (...clients) => body(uniquePrefix('nr'), ...clients), options));

  check('strings', 1, async (prefix, client) => {
    const key = `${prefix}:s`;
    assert.equal(await client.set(key, 'value'), 'OK');
    assert.equal(await client.set(key, 'other', { condition: 'NX' }), null);
    assert.equal(await client.set(key, 'new', { GET: true }), 'value');
    assert.equal(await client.append(key, 'er'), 5);
    assert.equal(await client.getRange(key, 1, -2), 'ewe');
    assert.equal(await client.setRange(key, 6, '!'), 7);
    assert.equal(await client.get(key), 'newer\0!');
    assert.equal(await client.strLen(key), 7);
    assert.equal(await client.getSet(key, '10'), 'newer\0!');
    assert.equal(await client.incrBy(key, 5), 15);
    assert.equal(Number(await client.incrByFloat(key, 0.5)), 15.5);
    assert.equal(await client.getDel(key), '15.5');
    await client.mSet({ [`${key}1`]: '1', [`${key}2`]: '2' });
    assert.deepEqual(await client.mGet([`${key}1`, `${key}2`, `${key}3`]), ['1', '2', null]);
    assert.equal(await client.mSetNX([[`${key}1`, 'x'], [`${key}3`, 'x']]), 0);
    await client.mSet({ [`${key}1`]: 'ohmytext', [`${key}2`]: 'mynewtext' });
    assert.equal(await client.lcs(`${key}1`, `${key}2`), 'mytext');
    assert.equal(await client.lcsLen(`${key}1`, `${key}2`), 6);
    assert.equal(await client.unlink([`${key}1`, `${key}2`]), 2);
  });

  check('any bytes and ten million of them', 1, async (prefix, client) => {
    const buffers = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
    const key = Buffer.from(`${prefix}:\0\r\n\xff`, 'latin1');
    const value = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
    await client.set(key, value);
    assert.deepEqual(await buffers.get(key), value);
    const large = Buffer.alloc(10_000_000, 'abc\r\n$5\r\n');
    await client.set(key, large);
    assert.equal(Buffer.compare(await buffers.get(key), large), 0);
    assert.equal(await client.strLen(key), large.length);
    await client.del(key);
  });

  check('generic commands', 1, async (prefix, client) => {
    const [one, two] = [`${prefix}:1`, `${prefix}:2`];
    await client.set(one, 'x');
    assert.equal(await client.exists([one, one, two]), 2);
    assert.equal(await client.type(one), 'string');
    assert.equal(await client.type(two), 'none');
    assert.equal(await client.copy(one, two), 1);
    assert.equal(await client.copy(one, two), 0);
    assert.equal(await client.rename(one, two), 'OK');
    assert.equal(await client.renameNX(two, one), 1);
    assert.equal(await client.objectEncoding(one), 'embstr');
    assert.equal(await client.objectRefCount(one), 1);
    assert.equal(await client.expire(one, 100, 'NX'), 1);
    assert.equal(await client.expire(one, 200, 'NX'), 0);
    assert.equal(await client.persist(one), 1);
    assert.equal(await client.touch([one, two]), 1);
    assert.ok((await client.memoryUsage(one)) > 0);
    await assert.rejects(client.rename(two, one), /^(Simple|)Error: ERR no such key$/);
    assert.equal(await client.move(one, 9), 1);
    assert.equal(await client.exists(one), 0);
    await client.select(9);
    assert.equal(await client.getDel(one), 'x');
  });

  check('lists', 1, async (prefix, client) => {
    const key = `${prefix}:l`;
    assert.equal(await client.rPush(key, ['a', 'b', 'c', 'b']), 4);
    assert.equal(await client.lPush(key, 'z'), 5);
    assert.deepEqual(await client.lRange(key, 0, -1), ['z', 'a', 'b', 'c', 'b']);
    assert.equal(await client.lIndex(key, -2), 'c');
    assert.equal(await client.lInsert(key, 'BEFORE', 'c', 'n'), 6);
    assert.equal(await client.lPos(key, 'b', { RANK: -1 }), 5);
    assert.deepEqual(await client.lPosCount(key, 'b', 0), [2, 5]);
    assert.equal(await client.lRem(key, -1, 'b'), 1);
    assert.equal(await client.lSet(key, 0, 'y'), 'OK');
    assert.deepEqual(await client.lPopCount(key, 2), ['y', 'a']);
    assert.equal(await client.lMove(key, `${key}2`, 'RIGHT', 'LEFT'), 'c');
    assert.deepEqual(await client.lmPop([`${key}0`, key], 'LEFT', { COUNT: 5 }), [key, ['b', 'n']]);
    assert.equal(await client.lTrim(`${key}2`, 1, 0), 'OK');
    assert.equal(await client.exists([key, `${key}2`]), 0);
    assert.equal(await client.lPop(key), null);
    assert.deepEqual(await client.lRange(key, 0, -1), []);
    assert.equal(await client.blPop(key, 0.05), null);
    assert.equal(await client.blmPop(0.05, [key], 'LEFT'), null);
  });

  check('hashes', 1, async (prefix, client) => {
    const key = `${prefix}:h`;
    assert.equal(await client.hSet(key, { a: '1', b: '2', c: 'x' }), 3);
    assert.deepEqual({ ...(await client.hGetAll(key)) }, { a: '1', b: '2', c: 'x' });
    assert.deepEqual({ ...(await client.hGetAll(`${key}0`)) }, {});
    assert.deepEqual(await client.hmGet(key, ['a', 'q']), ['1', null]);
    assert.equal(await client.hIncrBy(key, 'a', 41), 42);
    assert.equal(Number(await client.hIncrByFloat(key, 'b', 0.25)), 2.25);
    assert.equal(await client.hSetNX(key, 'a', '0'), 0);
    assert.equal(await client.hStrLen(key, 'b'), 4);
    assert.deepEqual((await client.hKeys(key)).sort(), ['a', 'b', 'c']);
    assert.deepEqual((await client.hVals(key)).sort(), ['2.25', '42', 'x']);
    assert.equal((await client.hRandFieldCount(key, -10)).length, 10);
    const pairs = await client.hRandFieldCountWithValues(key, 3);
    assert.deepEqual(pairs.map(({ field }) => field).sort(), ['a', 'b', 'c']);
    assert.equal(await client.hDel(key, ['a', 'b', 'q']), 2);
    assert.equal(await client.hExists(key, 'c'), 1);
    assert.equal(await client.hLen(key), 1);
    await assert.rejects(client.hIncrBy(key, 'c', 1), /ERR hash value is not an integer/);
    await client.del(key);
  });

  check('sets', 1, async (prefix, client) => {
    const [a, b, c] = ['a', 'b', 'c'].map((one) => `${prefix}:${one}`);
    const sorted = async (reply) => [...(await reply)].sort();
    await client.sAdd(a, ['1', '2', '3', 'x']);
    await client.sAdd(b, ['2', '3', '4']);
    assert.deepEqual(await sorted(client.sMembers(a)), ['1', '2', '3', 'x']);
    assert.deepEqual(await sorted(client.sInter([a, b])), ['2', '3']);
    assert.deepEqual(await sorted(client.sDiff([a, b])), ['1', 'x']);
    assert.equal((await client.sUnion([a, b])).length, 5);
    assert.equal(await client.sInterCard([a, b], { LIMIT: 1 }), 1);
    assert.equal(await client.sUnionStore(c, [a, b]), 5);
    assert.deepEqual(await client.smIsMember(a, ['1', '9']), [1, 0]);
    assert.equal(await client.sMove(a, b, 'x'), 1);
    assert.equal((await client.sRandMemberCount(c, -20)).length, 20);
    assert.equal((await client.sPopCount(c, 3)).length, 3);
    assert.equal(await client.sCard(c), 2);
    assert.equal(await client.sRem(a, ['1', '2', '3']), 3);
    assert.match(await client.objectEncoding(b), /^(listpack|hashtable)$/);
    await client.unlink([a, b, c]);
  }, {});

  check('sorted sets', 1, async (prefix, client) => {
    const [key, other] = [`${prefix}:z`, `${prefix}:y`];
    assert.equal(
      await client.zAdd(key, [
        { value: 'a', score: 1 },
        { value: 'b', score: 2.5 },
        { value: 'c', score: Infinity },
        { value: 'd', score: -Infinity },
        { value: 'e', score: 1e21 },
      ]),
      5,
    );
    assert.deepEqual(await client.zRangeWithScores(key, 0, -1), [
      { value: 'd', score: -Infinity },
      { value: 'a', score: 1 },
      { value: 'b', score: 2.5 },
      { value: 'e', score: 1e21 },
      { value: 'c', score: Infinity },
    ]);
    assert.equal(await client.zScore(key, 'b'), 2.5);
    assert.equal(await client.zScore(key, 'q'), null);
    assert.deepEqual(await client.zmScore(key, ['a', 'q']), [1, null]);
    assert.equal(await client.zIncrBy(key, 0.25, 'a'), 1.25);
    assert.deepEqual(await client.zRangeByScore(key, '(1.25', '+inf', { LIMIT: { offset: 0, count: 2 } }), ['b', 'e']);
    assert.deepEqual(await client.zRangeByScoreWithScores(key, 1, 3), [
      { value: 'a', score: 1.25 },
      { value: 'b', score: 2.5 },
    ]);
    assert.equal(await client.zCount(key, '-inf', 3), 3);
    assert.equal(await client.zRank(key, 'b'), 2);
    assert.equal(await client.zRevRank(key, 'b'), 2);
    await client.zAdd(other, [{ value: 'a', score: 10 }, { value: 'z', score: 1 }]);
    assert.deepEqual(await client.zUnionWithScores([key, other], { AGGREGATE: 'MAX' }).then((all) => all.find(({ value }) => value === 'a')), { value: 'a', score: 10 });
    assert.deepEqual(await client.zInter([key, other]), ['a']);
    assert.equal(await client.zInterStore(`${key}2`, [{ key, weight: 2 }, { key: other, weight: 1 }]), 1);
    assert.equal(await client.zScore(`${key}2`, 'a'), 12.5);
    assert.deepEqual(await client.zDiff([key, other]), ['d', 'b', 'e', 'c']);
    assert.equal(await client.zRangeStore(`${key}3`, key, 0, 1), 2);
    assert.deepEqual(await client.zPopMin(key), { value: 'd', score: -Infinity });
    assert.deepEqual(await client.zPopMaxCount(key, 2), [
      { value: 'c', score: Infinity },
      { value: 'e', score: 1e21 },
    ]);
    assert.deepEqual(await client.bzPopMin(other, 1), { key: other, value: 'z', score: 1 });
    assert.equal(await client.bzPopMax(`${key}9`, 0.05), null);
    assert.deepEqual(await client.zmPop([`${key}9`, other], 'MAX'), {
      key: other,
      members: [{ value: 'a', score: 10 }],
    });
    assert.deepEqual(await client.zRandMemberCountWithScores(`${key}2`, -2), [
      { value: 'a', score: 12.5 },
      { value: 'a', score: 12.5 },
    ]);
    await client.zAdd(other, ['aa', 'ab', 'b'].map((value) => ({ value, score: 0 })));
    assert.deepEqual(await client.zRangeByLex(other, '[aa', '(b'), ['aa', 'ab']);
    assert.equal(await client.zLexCount(other, '-', '+'), 3);
    assert.equal(await client.zRemRangeByLex(other, '[aa', '(b'), 2);
    assert.equal(await client.zRemRangeByScore(key, 2, 3), 1);
    assert.equal(await client.zRemRangeByRank(key, 0, -1), 1);
    await client.unlink([other, `${key}2`, `${key}3`]);
  });

  check('errors keep their texts', 1, async (prefix, client) => {
    await client.lPush(prefix, 'x');
    await assert.rejects(client.incr(prefix), /WRONGTYPE Operation against a key holding the wrong kind of value/);
    await assert.rejects(client.sendCommand(['NOSUCH', 'a', 'b']), /ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b'/);
    await assert.rejects(client.sendCommand(['GET']), /ERR wrong number of arguments for 'get' command/);
    await assert.rejects(client.sendCommand(['SET', 'a', 'b', 'EX', '0']), /ERR invalid expire time in 'set' command/);
    await assert.rejects(client.sendCommand(['SELECT', '99999']), /ERR DB index is out of range/);
    await assert.rejects(client.evalSha('f'.repeat(40)), /NOSCRIPT No matching script. Please use EVAL./);
    await assert.rejects(client.eval('return redis.call("incr", KEYS[1])', { keys: [prefix] }), /WRONGTYPE/);
    await assert.rejects(client.eval('return {err="MY own error"}'), /MY own error/);
    await client.del(prefix);
  });

  check('transactions', 2, async (prefix, client, other) => {
    const replies = await client.multi().set(prefix, '1').incr(prefix).get(prefix).exec();
    assert.deepEqual(replies, ['OK', 2, '2']);
    await client.watch(prefix);
    await other.set(prefix, 'changed');
    await assert.rejects(client.multi().set(prefix, 'mine').exec(), WatchError);
    assert.equal(await client.get(prefix), 'changed');
    await client.watch(prefix);
    assert.deepEqual(await client.multi().get(prefix).exec(), ['changed']);
    // An error inside does not stop the rest.
    await assert.rejects(client.multi().incr(prefix).set(prefix, 'after').exec());
    assert.equal(await client.get(prefix), 'after');
    // A command that cannot be queued ends the whole transaction.
    await assert.rejects(client.multi().addCommand(['NOSUCH']).set(prefix, 'never').exec());
    assert.equal(await client.get(prefix), 'after');
    await client.del(prefix);
  });

  check('pipelines of 20,000', 1, async (prefix, client) => {
    const numbers = await Promise.all(Array.from({ length: 20_000 }, () => client.incr(prefix)));
    assert.deepEqual(numbers, Array.from({ length: 20_000 }, (_, index) => index + 1));
    const replies = await client
      .multi()
      .set(prefix, 'a')
      .get(prefix)
      .del(prefix)
      .execAsPipeline();
    assert.deepEqual(replies, ['OK', 'a', 1]);
  });

  check('scripts', 1, async (prefix, client) => {
    const body = 'return {KEYS[1], ARGV[1], 7, {1, "two"}, false, 3.9}';
    const reply = await client.eval(body, { keys: [prefix], arguments: ['arg'] });
    assert.deepEqual(reply, [prefix, 'arg', 7, [1, 'two'], null, 3]);
    const sha = await client.scriptLoad(body);
    assert.match(sha, /^[0-9a-f]{40}$/);
    assert.deepEqual(await client.scriptExists([sha, '0'.repeat(40)]), [1, 0]);
    assert.deepEqual(await client.evalSha(sha, { keys: [prefix], arguments: ['b'] }), [prefix, 'b', 7, [1, 'two'], null, 3]);
    assert.equal(await client.evalRo('return redis.call("exists", KEYS[1])', { keys: [prefix] }), 0);
    await assert.rejects(client.evalRo('return redis.call("set", KEYS[1], 1)', { keys: [prefix] }), /Write commands are not allowed from read-only scripts/);
    assert.equal(await client.eval('return redis.sha1hex("")'), 'da39a3ee5e6b4b0d3255bfef95601890afd80709');
    const large = 'x'.repeat(1_000_000);
    assert.equal(await client.eval('return ARGV[1]', { arguments: [large] }), large);
  });

  check('defined scripts', 1, async (prefix, client) => {
    assert.equal(await client.addTo(prefix, 5), 5);
    await client.scriptFlush();
    assert.equal(await client.addTo(prefix, 6), 11);
    assert.deepEqual(await client.multi().addTo(prefix, 1).get(prefix).exec(), [12, '12']);
    await client.del(prefix);
  }, {
    scripts: {
      addTo: defineScript({
        SCRIPT: 'return redis.call("INCRBY", KEYS[1], ARGV[1])',
        NUMBER_OF_KEYS: 1,
        parseCommand(parser, key, amount) {
          parser.pushKey(key);
          parser.push(String(amount));
        },
        transformReply: undefined,
      }),
    },
  });

  const sourceOf = (name) => `#!lua name=${name}
    redis.register_function('${name}_add', function(keys, args)
      return redis.call('INCRBY', keys[1], args[1])
    end)
    redis.register_function{
      function_name = '${name}_read', flags = {'no-writes'},
      callback = function(keys) return redis.call('GET', keys[1]) end,
    }`;

  check('functions', 1, async (prefix, client) => {
    const library = prefix.replaceAll(/[^a-z0-9]/g, '_');
    const [add, read] = [`${library}_add`, `${library}_read`];
    assert.equal(await client.functionLoad(sourceOf(library)), library);
    await assert.rejects(client.functionLoad(sourceOf(library)), /already exists/);
    assert.equal(await client.functionLoad(sourceOf(library), { REPLACE: true }), library);
    assert.equal(await client.fCall(add, { keys: [prefix], arguments: ['40'] }), 40);
    assert.equal(await client.fCall(add, { keys: [prefix], arguments: ['2'] }), 42);
    assert.equal(await client.fCallRo(read, { keys: [prefix], arguments: [] }), '42');
    await assert.rejects(client.fCallRo(add, { keys: [prefix], arguments: ['1'] }), /write flag/);
    await assert.rejects(client.fCall(add, { keys: [prefix], arguments: ['x'] }), /not an integer/);
    const [listed] = await client.functionList({ LIBRARYNAME: library });
    assert.equal(listed.library_name, library);
    assert.deepEqual(listed.functions.map((one) => one.name).sort(), [add, read]);
    const stats = await client.functionStats();
    assert.ok(stats.engines.LUA.libraries_count >= 1);
    const saved = await client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer }).functionDump();
    assert.equal(await client.functionDelete(library), 'OK');
    await assert.rejects(client.fCall(add, { keys: [prefix], arguments: ['1'] }), /Function not found/);
    assert.equal(await client.functionRestore(saved, { mode: 'REPLACE' }), 'OK');
    assert.equal(await client.fCall(add, { keys: [prefix], arguments: ['1'] }), 43);
    assert.equal(await client.functionDelete(library), 'OK');
  });

  check('RESP3 types from a script', 1, async (_, client) => {
    const ask = (body) => client.eval(`redis.setresp(3); ${body}`);
    if (RESP === 3) {
      assert.equal(await ask('return true'), true);
      assert.equal(await ask('return {double=2.5}'), 2.5);
      assert.deepEqual({ ...(await ask('return {map={a=1}}')) }, { a: 1 });
      assert.deepEqual([...(await ask('return {set={a=true}}'))], ['a']);
    } else {
      assert.equal(await ask('return true'), 1);
      assert.equal(await ask('return {double=2.5}'), '2.5');
      assert.deepEqual(await ask('return {map={a=1}}'), ['a', 1]);
      assert.deepEqual(await ask('return {set={a=true}}'), ['a']);
    }
  });

  check('pub/sub with shard channels', 2, async (prefix, publisher, subscriber) => {
    const received = [];
    const note = (message, channel) => received.push(`${channel.slice(prefix.length)}=${message}`);
    await subscriber.subscribe([`${prefix}:a`, `${prefix}:b`], note);
    await subscriber.pSubscribe(`${prefix}:[ab]`, note);
    await subscriber.sSubscribe(`${prefix}:s`, note);
    assert.equal(await publisher.publish(`${prefix}:a`, '1'), 2);
    assert.equal(await publisher.sPublish(`${prefix}:s`, '2'), 1);
    assert.equal(await publisher.publish(`${prefix}:s`, 'nobody'), 0);
    await until(() => received.length === 3, 'three messages');
    assert.deepEqual(received.toSorted(), [':a=1', ':a=1', ':s=2']);
    assert.deepEqual((await publisher.pubSubChannels(`${prefix}*`)).sort(), [`${prefix}:a`, `${prefix}:b`]);
    assert.deepEqual({ ...(await publisher.pubSubNumSub([`${prefix}:a`])) }, { [`${prefix}:a`]: 1 });
    assert.deepEqual(await publisher.pubSubShardChannels(`${prefix}*`), [`${prefix}:s`]);
    if (RESP === 3) assert.equal(await subscriber.exists(prefix), 0);
    // By name: node-redis 5 waits for ever when it unsubscribes from all of several in RESP2.
    await subscriber.unsubscribe([`${prefix}:a`, `${prefix}:b`]);
    await subscriber.pUnsubscribe(`${prefix}:[ab]`);
    await subscriber.sUnsubscribe(`${prefix}:s`);
    assert.equal(await publisher.publish(`${prefix}:a`, '3'), 0);
    assert.equal(await subscriber.exists(prefix), 0);
  });

  check('a killed connection comes back', 2, async (prefix, admin, client) => {
    await client.clientSetName(prefix.replaceAll(':', '-'));
    const id = await client.clientId();
    assert.equal(await admin.sendCommand(['CLIENT', 'KILL', 'ID', String(id)]), 1);
    await until(async () => client.isReady && (await client.clientId().catch(() => id)) !== id, 'a new connection');
    assert.equal(await client.ping(), 'PONG');
  });

  check('what a client may ask about the server', 1, async (prefix, client) => {
    const info = await client.info();
    for (const field of ['redis_version', 'uptime_in_seconds', 'connected_clients', 'used_memory', 'total_commands_processed', 'role', 'used_cpu_sys', 'loading']) {
      assert.match(info, new RegExp(`^${field}:\\S+\\r$`, 'm'), field);
    }
    assert.deepEqual({ ...(await client.configGet('maxmemory-pol*')) }, { 'maxmemory-policy': 'noeviction' });
    await client.configSet('slowlog-log-slower-than', '10000');
    assert.ok((await client.commandCount()) > 100);
    const [command] = await client.commandInfo(['get']);
    assert.deepEqual([command.name, command.arity, command.firstKeyIndex], ['get', 2, 1]);
    assert.deepEqual(await client.commandGetKeys(['MSET', 'a', '1', 'b', '2']), ['a', 'b']);
    const own = await client.clientInfo();
    assert.equal(own.id, await client.clientId());
    assert.equal(own.resp, RESP);
    // CLIENT SETINFO came with Redis 7.2.
    const version = /redis_version:(\d+)\.(\d+)/.exec(info).slice(1).map(Number);
    if (version[0] > 7 || version[1] >= 2) assert.match(own.libName, /node-redis/);
    assert.ok((await client.time()) !== undefined);
    assert.equal(await client.echo('here'), 'here');
    assert.ok((await client.dbSize()) >= 0);
    assert.ok(Array.isArray(await client.sendCommand(['SLOWLOG', 'GET'])));
  });

  if (RESP === 3) {
    test(`${name}: a cache on this side`, () =>
      withClients(1, async (writer) => {
        const cache = new library.BasicClientSideCache({ ttl: 0, maxEntries: 0, evictPolicy: 'LRU' });
        const key = uniquePrefix('cache');
        await writer.set(key, 'old');
        await withClients(
          1,
          async (reader) => {
            assert.equal(await reader.get(key), 'old');
            assert.equal(await reader.get(key), 'old');
            assert.equal(cache.stats().hitCount, 1);
            await writer.set(key, 'new');
            await until(async () => (await reader.get(key)) === 'new', 'the new value');
            await writer.eval("redis.call('DEL', KEYS[1])", { keys: [key] });
            await until(async () => (await reader.get(key)) === null, 'the key is gone');
          },
          { clientSideCache: cache },
        );
      }));
  }

  test(`${name}: a pool serves many at once`, async () => {
    const pool = await createClientPool({ url: serverUrl, RESP }, { minimum: 2, maximum: 10 }).connect();
    const key = uniquePrefix('pool');
    try {
      await Promise.all(Array.from({ length: 500 }, () => pool.execute((client) => client.incr(key))));
      assert.equal(await pool.get(key), '500');
      const popped = pool.blPop(`${key}:list`, 5);
      await pool.rPush(`${key}:list`, 'x');
      assert.equal((await popped).element, 'x');
      await pool.del(key);
    } finally {
      await pool.close();
    }
  });
}
