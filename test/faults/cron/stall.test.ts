import { beforeAll, expect, test } from 'vitest';
import { describeWith } from '../../helpers/needs.ts';
import { Oracle } from '../../helpers/oracle.ts';
import { Redis } from '../../helpers/redis.ts';
import { scratch, script } from '../../helpers/scratch.ts';
import { leaveNothingBehind, newElection, SHORT, stand, TTL_MS, typesOf } from '../candidates.ts';

/** The whole process stands still for longer than the lease, just before it sees the answer to the request that records a start. No timer comes first. */
const STALL = `
import { Socket } from 'node:net';
const { write, emit } = Socket.prototype;
let isAsked = false;
Socket.prototype.write = function (chunk, ...rest) {
  isAsked ||= String(chunk).includes('"holder"');
  return write.call(this, chunk, ...rest);
};
Socket.prototype.emit = function (name, ...rest) {
  if (isAsked && name === 'data') {
    isAsked = false;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ${TTL_MS + 1500});
  }
  return emit.call(this, name, ...rest);
};`;

describeWith(['redis', 'flock'], 'elect-run stands still while the start of its run is recorded', () => {
  leaveNothingBehind();
  let redis: Redis;
  beforeAll(async () => {
    redis = await Redis.start();
  });

  test('another leads by then: its own child does not start', async () => {
    const oracle = new Oracle();
    const preload = script(scratch(), 'stall.mjs', STALL);
    const entry = {
      backend: redis.url,
      name: newElection(),
      job: oracle.job('works', 5),
      flags: [...SHORT, '--once-per', 'day'],
    };
    const first = stand({ ...entry, env: { NODE_OPTIONS: `--import=${preload}` } });
    await first.event('elected');
    const second = stand(entry);
    await oracle.started(1);
    await first.event('standby');
    expect(typesOf(first)).not.toContain('started');
    expect((await second.ended).code).toBe(0);
    expect((await first.ended).code).toBe(0);
    oracle.verify(1);
  });
});
