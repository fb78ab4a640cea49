// Publish and subscribe: exact channels and patterns.
//
//   node pubsub.js
import { isMain, until, uniquePrefix, withClients } from './lib/connect.js';

/** Collects what arrives on `channel` and on the channels that match `pattern`. */
export async function listen(subscriber, { channel, pattern }) {
  const received = [];
  const note = (message, from) => received.push({ message, from });
  if (channel) await subscriber.subscribe(channel, note);
  if (pattern) await subscriber.pSubscribe(pattern, note);
  return received;
}

if (isMain(import.meta.url)) {
  const prefix = uniquePrefix('news');
  await withClients(3, async (publisher, exact, wide) => {
    const sport = await listen(exact, { channel: `${prefix}:sport` });
    const all = await listen(wide, { pattern: `${prefix}:*` });
    await publisher.publish(`${prefix}:sport`, 'two to one');
    await publisher.publish(`${prefix}:weather`, 'rain');
    await until(() => sport.length === 1 && all.length === 2, 'the messages arrive');
    console.log('on the channel:', sport.map(({ message }) => message));
    console.log('on the pattern:', all.map(({ message }) => message));
  });
}
