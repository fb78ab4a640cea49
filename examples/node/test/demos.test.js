import test from 'node:test';
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { promisify } from 'node:util';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('..', import.meta.url));

for (const demo of readdirSync(here).filter((name) => name.endsWith('.js'))) {
  test(`${demo} runs to its end and says something`, async () => {
    const run = promisify(execFile)(process.execPath, [demo], { cwd: here, timeout: 120_000 });
    const { stdout, stderr } = await run;
    assert.notEqual(stdout, '');
    assert.equal(stderr, '');
  });
}
