import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createSecureServer } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { beforeAll, expect, onTestFinished, test } from 'vitest';
import { Refused } from '../../src/backend.ts';
import { EtcdMembers } from '../../src/backends/etcd/members.ts';
import { RANGE } from '../../src/backends/etcd/methods.ts';
import { within } from '../../src/clock.ts';
import { makeCertificates } from '../helpers/certificates.ts';
import { Etcd } from '../helpers/etcd.ts';
import { newFolder } from '../helpers/folders.ts';
import { describeWith } from '../helpers/needs.ts';
import { Oracle } from '../helpers/oracle.ts';
import { freePort } from '../helpers/procs.ts';
import { Link } from '../helpers/proxy.ts';
import { leaveNothingBehind, newElection, ROOMY, runsUntouched, standInLine } from './candidates.ts';

describeWith(
  ['etcd', 'etcdctl', 'openssl', 'flock'],
  'an etcd of which a member has a certificate that is not to be trusted',
  () => {
    leaveNothingBehind();
    let etcd: Etcd;
    let foreign: { cert: string; key: string };
    beforeAll(async () => {
      etcd = await Etcd.start({ tls: true });
      foreign = (await makeCertificates(newFolder('foreign'), '127.0.0.1')).server;
    });

    async function untrusted(port = 0): Promise<string> {
      const server = createSecureServer({ cert: readFileSync(foreign.cert), key: readFileSync(foreign.key) });
      server.listen(port, '127.0.0.1');
      onTestFinished(() => void server.close());
      await once(server, 'listening');
      return `127.0.0.1:${(server.address() as AddressInfo).port}`;
    }

    const entryAt = (oracle: Oracle, endpoints: string[]) => ({
      backend: `etcds://${endpoints.join(',')}`,
      name: newElection(),
      job: oracle.job(),
      flags: ROOMY,
      env: etcd.clientEnv,
    });

    test('the others elect, whichever is asked first', async () => {
      const oracle = new Oracle();
      const entry = entryAt(oracle, [await untrusted(), ...etcd.endpoints]);
      const [leader] = await standInLine(oracle, entry, entry);
      await runsUntouched(leader!, oracle);
    });

    test('the child runs on when the member that elect-run talks to becomes that one, and the line stands', async () => {
      const oracle = new Oracle();
      const link = await Link.start(etcd.endpoints[0]!);
      const entry = entryAt(oracle, [link.endpoint, ...etcd.endpoints]);
      const [leader, next] = await standInLine(oracle, entry, entry);
      const [, port] = link.endpoint.split(':');
      await link.stop();
      await untrusted(Number(port));
      await runsUntouched(leader!, oracle);
      leader!.kill('SIGTERM');
      await next!.event('started');
      await oracle.started(2);
      oracle.verify(2);
    });

    /** Why none of these members answers. */
    async function problemOf(...endpoints: string[]): Promise<Error> {
      const tls = { ca: readFileSync(etcd.certificates!.ca, 'utf8') };
      const members = new EtcdMembers({ kind: 'etcd', endpoints, tls, auth: undefined }, 2000, 'none');
      onTestFinished(() => members.close());
      return members.ask(RANGE, { key: Buffer.from('a') }, within(5000)).then(
        () => Promise.reject(new Error('it was answered')),
        (error) => error,
      );
    }

    test('only where all of them are like that are we refused: of one that is away nobody knows', async () => {
      const [one, other, away] = [await untrusted(), await untrusted(), `127.0.0.1:${await freePort()}`];
      expect(await problemOf(one, other)).toBeInstanceOf(Refused);
      for (const endpoints of [
        [one, away],
        [away, one],
      ]) {
        const problem = await problemOf(...endpoints);
        expect(problem, endpoints.join()).not.toBeInstanceOf(Refused);
        expect(problem.message).toMatch(`etcd at ${away}: connection refused`);
        expect(problem.message).toMatch(`TLS with ${one} failed`);
      }
    });
  },
);
