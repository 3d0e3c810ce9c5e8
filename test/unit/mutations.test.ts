import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { FAULT_NAMES } from '../chaos/faults.ts';
import { buildMutant, MUTATIONS, mutate } from '../chaos/mutations.ts';
import { CHECKOUT, elect, NODE } from '../helpers/elect.ts';
import { SuspendableClock } from '../helpers/faketime.ts';
import { describeWith } from '../helpers/needs.ts';
import { Redis } from '../helpers/redis.ts';
import { scratch } from '../helpers/scratch.ts';
import { stopServers } from '../helpers/servers.ts';

// `npm run chaos -- --mutate all` has to find each of them. Whether it could be tried at all is known sooner.
describe.each(MUTATIONS)('elect-run without $name', ({ patches, faults = [] }) => {
  test('the faults that show it are there', () => {
    expect(FAULT_NAMES).toEqual(expect.arrayContaining(faults));
  });

  test.each(patches)('can be made: the rule is in $file, once', (patch) => {
    const path = fileURLToPath(new URL(`../../${patch.file}`, import.meta.url));
    const text = readFileSync(path, 'utf8');
    expect(mutate(text, patch)).not.toBe(text);
  });
});

describeWith(['redis', 'faketime'], 'while nothing strikes', () => {
  let redis: Redis;
  beforeAll(async () => {
    redis = await Redis.start();
  });
  afterAll(stopServers);

  // One that ends its jobs for another cause would show nothing, however long it is attacked.
  test.each(MUTATIONS)('elect-run without $name does what it is there for', async (mutation) => {
    const clock = new SuspendableClock();
    onTestFinished(() => clock.remove());
    const program = [NODE, buildMutant(mutation, CHECKOUT, scratch())];
    const run = elect(['-b', redis.url, '-n', 'job', '--ttl', '3s', '--renew-every', '1s', '--', 'sleep', '1'], {
      program,
      env: clock.env,
    });
    expect((await run.ended).code).toBe(0);
  });
});
