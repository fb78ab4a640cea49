// What the client tests share: the server's address and names that no other run uses.
import { randomBytes } from 'node:crypto';

export const serverUrl = process.env.REDIS_URL ?? 'redis://127.0.0.1:6379';
export const serverPort = Number(new URL(serverUrl).port || 6379);

export function uniquePrefix(name) {
  return `e2e:${name}:${process.pid}:${randomBytes(4).toString('hex')}`;
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
