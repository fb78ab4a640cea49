// ioredis and two libraries built on it: Bull (queues made of Lua scripts) and
// rate-limiter-flexible. BullMQ needs streams and is left out until the server has them.
import test from 'node:test';
import assert from 'node:assert/strict';
import Redis from 'ioredis';
import Bull from 'bull';
import { RateLimiterRedis } from 'rate-limiter-flexible';
import { serverPort, serverUrl, until, uniquePrefix } from './common.js';

async function withRedis(body, options = {}) {
  const client = new Redis(serverUrl, options);
  try {
    await body(client, uniquePrefix('io'));
  } finally {
    client.disconnect();
  }
}

test('ioredis: pipelines answer in order, errors in their places', () =>
  withRedis(async (client, prefix) => {
    const replies = await client
      .pipeline()
      .set(prefix, 'text')
      .incr(prefix)
      .getrange(prefix, 0, 1)
      .del(prefix)
      .exec();
    assert.deepEqual(replies[0], [null, 'OK']);
    assert.match(replies[1][0].message, /ERR value is not an integer or out of range/);
    assert.deepEqual(replies.slice(2), [[null, 'te'], [null, 1]]);
    const many = client.pipeline();
    for (let index = 0; index < 5000; index++) many.rpush(prefix, index);
    const lengths = (await many.exec()).map(([, length]) => length);
    assert.deepEqual(lengths, Array.from({ length: 5000 }, (_, index) => index + 1));
    assert.equal((await client.lrangeBuffer(prefix, 0, -1)).length, 5000);
    await client.unlink(prefix);
  }));

test('ioredis: transactions', () =>
  withRedis(async (client, prefix) => {
    assert.deepEqual(await client.multi().set(prefix, 1).incr(prefix).exec(), [
      [null, 'OK'],
      [null, 2],
    ]);
    await assert.rejects(client.multi().call('NOSUCH').set(prefix, 1).exec(), /EXECABORT/);
    await client.watch(prefix);
    const other = client.duplicate();
    await other.set(prefix, 'other');
    other.disconnect();
    assert.equal(await client.multi().set(prefix, 'mine').exec(), null);
    await client.del(prefix);
  }));

test('ioredis: automatic pipelining', () =>
  withRedis(
    async (client, prefix) => {
      const numbers = await Promise.all(Array.from({ length: 3000 }, () => client.incr(prefix)));
      assert.equal(numbers.at(-1), 3000);
      await client.del(prefix);
    },
    { enableAutoPipelining: true },
  ));

test('ioredis: commands made of scripts', () =>
  withRedis(async (client, prefix) => {
    client.defineCommand('swap', {
      numberOfKeys: 2,
      lua: `local a, b = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
            redis.call('MSET', KEYS[1], b, KEYS[2], a)
            return {a, b}`,
    });
    await client.mset(`${prefix}:a`, '1', `${prefix}:b`, '2');
    assert.deepEqual(await client.swap(`${prefix}:a`, `${prefix}:b`), ['1', '2']);
    await client.script('FLUSH');
    assert.deepEqual(await client.swap(`${prefix}:a`, `${prefix}:b`), ['2', '1']);
    assert.deepEqual(
      await client.pipeline().swap(`${prefix}:a`, `${prefix}:b`).get(`${prefix}:a`).exec(),
      [[null, ['1', '2']], [null, '2']],
    );
    await client.unlink(`${prefix}:a`, `${prefix}:b`);
  }));

test('ioredis: scan streams', () =>
  withRedis(async (client, prefix) => {
    const pipeline = client.pipeline();
    for (let index = 0; index < 3000; index++) pipeline.set(`${prefix}:${index}`, 'x');
    await pipeline.exec();
    const found = new Set();
    for await (const keys of client.scanStream({ match: `${prefix}:*`, count: 100 })) {
      for (const key of keys) found.add(key);
    }
    assert.equal(found.size, 3000);
    await client.unlink(...found);
  }));

test('ioredis: a key prefix reaches the keys of every command', () =>
  withRedis(
    async (client, prefix) => {
      await client.mset(prefix, '1', `${prefix}:2`, '2');
      await client.eval("return redis.call('SET', KEYS[1], ARGV[1])", 1, `${prefix}:3`, '3');
      const plain = client.duplicate({ keyPrefix: '' });
      const keys = [prefix, `${prefix}:2`, `${prefix}:3`].map((key) => `pre:${key}`);
      assert.deepEqual(await plain.mget(keys), ['1', '2', '3']);
      await plain.unlink(keys);
      plain.disconnect();
    },
    { keyPrefix: 'pre:' },
  ));

test('ioredis: blocking, subscribing and monitoring', () =>
  withRedis(async (client, prefix) => {
    const blocked = client.duplicate();
    const popped = blocked.blpop(prefix, 5);
    await client.rpush(prefix, 'x');
    assert.deepEqual(await popped, [prefix, 'x']);
    const messages = [];
    blocked.on('message', (channel, message) => messages.push([channel, message]));
    blocked.on('pmessageBuffer', (_, channel, message) => messages.push([String(channel), String(message)]));
    assert.equal(await blocked.subscribe(`${prefix}:a`, `${prefix}:b`), 2);
    assert.equal(await blocked.psubscribe(`${prefix}:*`), 3);
    assert.equal(await client.publish(`${prefix}:b`, 'hello'), 2);
    await until(() => messages.length === 2, 'both messages');
    assert.deepEqual(messages, [[`${prefix}:b`, 'hello'], [`${prefix}:b`, 'hello']]);
    blocked.disconnect();

    const source = client.duplicate();
    const monitor = await source.monitor();
    const seen = [];
    monitor.on('monitor', (_, args) => seen.push(args));
    await client.set(prefix, 'a "quoted" value');
    await until(() => seen.some((args) => args[1] === prefix), 'the monitored command');
    assert.deepEqual(seen.find((args) => args[1] === prefix), ['set', prefix, 'a "quoted" value']);
    monitor.disconnect();
    source.disconnect();
    await client.del(prefix);
  }));

test('rate-limiter-flexible: exactly the points are given out', () =>
  withRedis(async (client, prefix) => {
    const limiter = new RateLimiterRedis({ storeClient: client, keyPrefix: prefix, points: 40, duration: 60 });
    const answers = await Promise.allSettled(Array.from({ length: 200 }, () => limiter.consume('192.0.2.1')));
    assert.equal(answers.filter(({ status }) => status === 'fulfilled').length, 40);
    for (const { status, reason } of answers) {
      if (status === 'rejected') assert.equal(reason.remainingPoints, 0);
    }
    await limiter.delete('192.0.2.1');
  }));

test('Bull: every job is done once, delayed and retried ones too', async () => {
  const queue = new Bull(uniquePrefix('bull').replaceAll(':', '-'), {
    redis: { host: '127.0.0.1', port: serverPort },
    settings: { guardInterval: 200 },
  });
  const total = 300;
  const done = new Map();
  const tries = new Map();
  try {
    await queue.isReady();
    queue.process(8, async (job) => {
      const attempt = (tries.get(job.data.id) ?? 0) + 1;
      tries.set(job.data.id, attempt);
      if (job.data.fails >= attempt) throw new Error('once more');
      return job.data.id * 2;
    });
    queue.on('completed', (job, result) => done.set(job.data.id, result));
    await queue.addBulk(
      Array.from({ length: total }, (_, id) => ({
        data: { id, fails: id % 10 === 0 ? 1 : 0 },
        opts: { attempts: 2, delay: id % 7 === 0 ? 50 : 0, priority: id % 5 === 0 ? 3 : undefined },
      })),
    );
    await until(() => done.size === total, 'all jobs', 60_000);
    for (let id = 0; id < total; id++) {
      assert.equal(done.get(id), id * 2);
      assert.equal(tries.get(id), id % 10 === 0 ? 2 : 1);
    }
    const counts = await queue.getJobCounts();
    assert.equal(counts.completed, total);
    assert.equal(counts.waiting + counts.active + counts.delayed + counts.failed, 0);
    await queue.pause();
    await queue.add({ id: -1 });
    assert.equal((await queue.getJobCounts()).paused, 1);
    await queue.obliterate({ force: true });
  } finally {
    await queue.close();
  }
});
