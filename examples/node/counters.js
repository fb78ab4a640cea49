// Counters: plain ones, a hash of them, and one that counts in fractions.
//
//   node counters.js
import { isMain, uniquePrefix, withClients } from './lib/connect.js';

/** Counts one page view: the total, the page's own count and the seconds spent reading. */
export async function countView(client, prefix, page, seconds) {
  const [total, ofPage, spent] = await client
    .multi()
    .incr(`${prefix}:total`)
    .hIncrBy(`${prefix}:pages`, page, 1)
    .incrByFloat(`${prefix}:seconds`, seconds)
    .exec();
  return { total, ofPage, seconds: Number(spent) };
}

export async function views(client, prefix) {
  const [total, pages] = await Promise.all([
    client.get(`${prefix}:total`),
    client.hGetAll(`${prefix}:pages`),
  ]);
  return {
    total: Number(total ?? 0),
    pages: Object.fromEntries(Object.entries(pages).map(([page, count]) => [page, Number(count)])),
  };
}

if (isMain(import.meta.url)) {
  const prefix = uniquePrefix('views');
  await withClients(4, async (...clients) => {
    await Promise.all(
      Array.from({ length: 1000 }, (_, index) =>
        countView(clients[index % 4], prefix, index % 3 ? '/docs' : '/', 0.5),
      ),
    );
    console.log(await views(clients[0], prefix));
    await clients[0].unlink([`${prefix}:total`, `${prefix}:pages`, `${prefix}:seconds`]);
  });
}
