import { afterEach, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../helpers/needs.ts';
import { Oracle } from '../helpers/oracle.ts';
import { ZooKeeper } from '../helpers/zookeeper.ts';
import { LOST, leaveNothingBehind, newElection, renewals, standInLine } from './candidates.ts';

/** Renewed so often that the client library's own pings, after a third of the session without a request, do not come in between. */
const FLAGS = ['--ttl', '6s', '--renew-every', '1800ms', '--grace', '500ms'];

describeWith(['zookeeper', 'flock'], 'zookeeper: a follower cut off together with elect-run', () => {
  leaveNothingBehind();
  let ensemble: ZooKeeper;
  beforeAll(async () => {
    ensemble = await ZooKeeper.start({ members: 3 });
  });
  afterEach(() => ensemble?.heal());

  let follows: number;
  /** One talks to a follower only, the other to the ensemble's leader. */
  async function entries(oracle: Oracle) {
    const leads = await ensemble.leader();
    follows = (leads + 1) % 3;
    const entry = { name: newElection(), job: oracle.job('ignores-term'), flags: FLAGS };
    const through = (member: number) => ({ ...entry, backend: `zookeeper://${ensemble.endpoints[member]}` });
    return { far: through(follows), near: through(leads) };
  }

  // The follower forwards a renewal at once, but that the session lives it tells with its next answer to a ping.
  test('child is gone before the session ends for the others, when that comes just after a renewal', async () => {
    const oracle = new Oracle();
    const { far, near } = await entries(oracle);
    const [cutOff, next] = await standInLine(oracle, far, near);
    await renewals(cutOff!, 2);
    await ensemble.members[follows]!.freeze();
    await next!.event('started');
    await oracle.started(2);
    expect((await cutOff!.ended).code).toBe(LOST);
    oracle.verify(2);
  });

  test('the same just after the election of one who stood by, and just after its renewal', async () => {
    const oracle = new Oracle();
    const { far, near } = await entries(oracle);
    const [first, cutOff, next] = await standInLine(oracle, near, far, near);
    await cutOff!.event('place-renewed', { after: await cutOff!.event('standby') });
    first!.kill('SIGKILL');
    await cutOff!.event('started');
    await ensemble.members[follows]!.freeze();
    await next!.event('started');
    await oracle.started(3);
    expect((await cutOff!.ended).code).toBe(LOST);
    oracle.verify(3);
  });
});
