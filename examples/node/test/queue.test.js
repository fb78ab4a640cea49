import test from 'node:test';
import assert from 'node:assert/strict';
import { done, enqueue, recover, take, takeSafely, untilBlocked } from '../queue.js';
import { uniquePrefix, withClients } from '../lib/connect.js';

const jobs = (from, to) => Array.from({ length: to - from }, (_, index) => ({ id: from + index }));

for (const [name, pop] of [
  ['BRPOP', (client, queue) => take(client, queue, 30)],
  [
    'BLMOVE',
    async (client, queue) => {
      const taken = await takeSafely(client, queue, `${queue}:hand`, 30);
      await done(client, `${queue}:hand`, taken.receipt);
      return taken.job;
    },
  ],
]) {
  for (const oneByOne of [true, false]) {
    test(`${name}: who waits longest is served first (${oneByOne ? 'single' : 'one'} push)`, async () => {
      await withClients(13, async (producer, ...workers) => {
        const queue = uniquePrefix('jobs');
        const waiting = [];
        for (const worker of workers) {
          const id = await worker.clientId();
          waiting.push(pop(worker, queue));
          await untilBlocked(producer, id);
        }
        const work = jobs(0, workers.length);
        if (oneByOne) for (const job of work) await enqueue(producer, queue, [job]);
        else await enqueue(producer, queue, work);
        assert.deepEqual(await Promise.all(waiting), work);
        assert.equal(await producer.exists([queue, `${queue}:hand`]), 0);
      });
    });
  }
}

test('many producers and blocked workers: every job is taken once', async () => {
  await withClients(12, async (...clients) => {
    const queue = uniquePrefix('jobs');
    const producers = clients.slice(0, 4);
    const workers = clients.slice(4);
    const each = 2500;
    const taken = [];
    const working = workers.map(async (worker, number) => {
      for (;;) {
        const job =
          number % 2
            ? await take(worker, queue, 30)
            : (await takeSafely(worker, queue, `${queue}:hand`, 30)).job;
        if (job.stop) return;
        taken.push(job.id);
      }
    });
    await Promise.all(
      producers.map(async (producer, number) => {
        for (let first = 0; first < each; first += 5) {
          await enqueue(producer, queue, jobs(number * each + first, number * each + first + 5));
        }
      }),
    );
    await enqueue(producers[0], queue, workers.map(() => ({ stop: true })));
    await Promise.all(working);
    assert.deepEqual(
      taken.sort((a, b) => a - b),
      Array.from({ length: each * producers.length }, (_, index) => index),
    );
    await producers[0].unlink(`${queue}:hand`);
  });
});

test('a job in the hand of a dead worker goes back to the front', async () => {
  await withClients(2, async (producer, worker) => {
    const queue = uniquePrefix('jobs');
    await enqueue(producer, queue, jobs(0, 3));
    const taken = await takeSafely(worker, queue, `${queue}:hand`, 1);
    assert.deepEqual(taken.job, { id: 0 });
    worker.destroy();
    assert.equal(await recover(producer, queue, `${queue}:hand`), 1);
    assert.deepEqual(
      [await take(producer, queue, 1), await take(producer, queue, 1), await take(producer, queue, 1)],
      jobs(0, 3),
    );
  });
});

test('a wait for nothing ends at its timeout', async () => {
  await withClients(1, async (client) => {
    const queue = uniquePrefix('jobs');
    const start = performance.now();
    assert.equal(await take(client, queue, 0.2), null);
    assert.equal(await takeSafely(client, queue, `${queue}:hand`, 0.1), null);
    assert.ok(performance.now() - start >= 290);
  });
});
