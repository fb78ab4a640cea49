// A work queue: LPUSH on one end, BRPOP on the other; or BLMOVE, which keeps a job on a list of
// jobs in hand until the worker says it is done. Whoever has waited longest is served first.
//
//   node queue.js
import { isMain, until, uniquePrefix, withClients } from './lib/connect.js';

export async function enqueue(client, queue, jobs) {
  return client.lPush(queue, jobs.map((job) => JSON.stringify(job)));
}

/** The oldest job, waiting up to `seconds` for one; null when none came. */
export async function take(client, queue, seconds) {
  const reply = await client.brPop(queue, seconds);
  return reply === null ? null : JSON.parse(reply.element);
}

/** Like `take`, but the job moves to `inHand`, where it survives a worker that dies. */
export async function takeSafely(client, queue, inHand, seconds) {
  const text = await client.blMove(queue, inHand, 'RIGHT', 'LEFT', seconds);
  return text === null ? null : { job: JSON.parse(text), receipt: text };
}

/** Ends a job taken with `takeSafely`. */
export async function done(client, inHand, receipt) {
  return client.lRem(inHand, 1, receipt);
}

/** Puts what a dead worker had in hand back to the end where the next job is taken. */
export async function recover(client, queue, inHand) {
  let moved = 0;
  while ((await client.lMove(inHand, queue, 'LEFT', 'RIGHT')) !== null) moved++;
  return moved;
}

/** Resolves when the connection with this id sits in a blocking command. */
export async function untilBlocked(observer, id) {
  await until(
    async () => (await observer.clientList()).some((one) => one.id === id && one.flags.includes('b')),
    `client ${id} blocks`,
  );
}

if (isMain(import.meta.url)) {
  const queue = uniquePrefix('jobs');
  await withClients(4, async (producer, ...workers) => {
    const waiting = [];
    for (const [number, worker] of workers.entries()) {
      const id = await worker.clientId();
      waiting.push(take(worker, queue, 10).then((job) => ({ worker: number, job })));
      await untilBlocked(producer, id);
    }
    await enqueue(producer, queue, [{ id: 1 }, { id: 2 }, { id: 3 }]);
    for (const { worker, job } of await Promise.all(waiting)) {
      console.log(`worker ${worker} waited as number ${worker + 1} and got job ${job.id}`);
    }
  });
}
