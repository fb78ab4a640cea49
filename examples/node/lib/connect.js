// Connections and small helpers that every example shares.
import { readFileSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { pathToFileURL } from 'node:url';
import { createClient } from 'redis';

export const serverUrl = process.env.REDIS_URL ?? 'redis://127.0.0.1:6379';

/** One connected client. `options` are node-redis options, RESP: 3 for example. */
export async function connect(options = {}) {
  const client = createClient({ url: serverUrl, ...options });
  client.on('error', (error) => console.error(`connection: ${error.message}`));
  await client.connect();
  return client;
}

/** Runs `body` with `count` clients and closes them whatever happens. */
export async function withClients(count, body, options) {
  const clients = await Promise.all(Array.from({ length: count }, () => connect(options)));
  try {
    return await body(...clients);
  } finally {
    // A client may still sit in a blocking command when `body` failed: destroy does not wait for it.
    for (const client of clients) if (client.isOpen) client.destroy();
  }
}

/** A prefix that no other run uses, so examples can share a server with real data. */
export function uniquePrefix(name) {
  return `example:${name}:${process.pid}:${randomBytes(4).toString('hex')}`;
}

/** The text of a script in examples/scripts. */
export function script(name) {
  return readFileSync(new URL(`../../scripts/${name}.lua`, import.meta.url), 'utf8');
}

/** Asks `condition` again and again until it holds; fails after `deadlineMs`. */
export async function until(condition, what, deadlineMs = 10_000) {
  const end = performance.now() + deadlineMs;
  for (;;) {
    const answer = await condition();
    if (answer) return answer;
    if (performance.now() > end) throw new Error(`not within ${deadlineMs} ms: ${what}`);
    await new Promise((resume) => setTimeout(resume, 5));
  }
}

/** True in the file that was started with `node`. */
export function isMain(url) {
  return url === pathToFileURL(process.argv[1] ?? '').href;
}
