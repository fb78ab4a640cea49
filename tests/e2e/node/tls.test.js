// node-redis and ioredis over TLS, with certificates on both sides.
import test, { before, after } from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { createClient } from 'redis';
import Redis from 'ioredis';
import { serverUrl, uniquePrefix } from './common.js';

const directory = mkdtempSync(join(tmpdir(), 'luar-tls-'));
const path = (name) => join(directory, name);
let port;
let identity;

const freePort = () =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port: free } = server.address();
      server.close(() => resolve(free));
    });
  });

const configure = async (settings) => {
  const admin = createClient({ url: serverUrl });
  await admin.connect();
  await admin.configSet(settings);
  admin.destroy();
};

before(async () => {
  execFileSync(new URL('../certificates', import.meta.url).pathname, [directory]);
  port = await freePort();
  await configure({
    'tls-cert-file': path('server.crt'),
    'tls-key-file': path('server.key'),
    'tls-ca-cert-file': path('ca.crt'),
    'tls-port': String(port),
  });
  identity = {
    ca: readFileSync(path('ca.crt')),
    cert: readFileSync(path('client.crt')),
    key: readFileSync(path('client.key')),
  };
});

after(async () => {
  await configure({ 'tls-port': '0' });
  rmSync(directory, { recursive: true });
});

for (const RESP of [2, 3]) {
  test(`node-redis, RESP${RESP}`, async () => {
    const socket = { host: 'localhost', port, tls: true, ...identity };
    const client = createClient({ RESP, socket });
    await client.connect();
    const key = uniquePrefix('tls');
    const sent = Array.from({ length: 1000 }, () => client.incr(key));
    assert.deepEqual(await Promise.all(sent), sent.map((_, at) => at + 1));
    const big = 'x'.repeat(10_000_000);
    await client.set(key, big);
    assert.equal(await client.get(key), big);
    const listener = client.duplicate();
    await listener.connect();
    const heard = new Promise((resolve) => listener.subscribe(key, resolve).then(() => client.publish(key, 'news')));
    assert.equal(await heard, 'news');
    await client.del(key);
    listener.destroy();
    client.destroy();
  });
}

test('ioredis', async () => {
  const client = new Redis({ host: 'localhost', port, tls: identity });
  const key = uniquePrefix('tls');
  const replies = await client.multi().set(key, 1).incr(key).del(key).exec();
  assert.deepEqual(replies.map(([, reply]) => reply), ['OK', 2, 1]);
  client.disconnect();
});

test('a client without a certificate is refused', async () => {
  const socket = connect({ host: 'localhost', port, ca: identity.ca }, () => socket.write('PING\r\n'));
  const end = new Promise((resolve) => {
    socket.on('data', (bytes) => resolve(`a reply: ${bytes}`));
    socket.on('error', (error) => resolve(error.code));
    socket.on('close', () => resolve('closed'));
  });
  assert.match(await end, /CERTIFICATE_REQUIRED|ECONNRESET|closed/);
  socket.destroy();
});
