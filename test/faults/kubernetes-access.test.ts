import { once } from 'node:events';
import { chmodSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { beforeAll, expect, onTestFinished, test } from 'vitest';
import { type Ended, elect } from '../helpers/elect.ts';
import { type Identity, Kubernetes, type User } from '../helpers/kubernetes.ts';
import { describeWith } from '../helpers/needs.ts';
import { Oracle } from '../helpers/oracle.ts';
import { alive, identify, until } from '../helpers/procs.ts';
import { LOST, leaveNothingBehind, newElection, renewals, SHORT, stand, standInLine } from './candidates.ts';

describeWith(
  ['kubeApiserver', 'etcd', 'etcdctl', 'openssl', 'flock', 'pidns'],
  'access to a Kubernetes API server',
  () => {
    leaveNothingBehind();
    let kubernetes: Kubernetes;
    beforeAll(async () => {
      kubernetes = await Kubernetes.start();
    });

    const run = (kubeconfig: string, flags: string[] = ['--no-wait']): Promise<Ended> => {
      const args = ['-b', 'kubernetes', '-n', newElection(), ...flags, '--', 'true'];
      return elect(args, { env: { KUBECONFIG: kubeconfig, ELECT_RUN_LOG_FORMAT: 'plain' } }).ended;
    };

    const REFUSED: [string, () => string, number, RegExp][] = [
      [
        'a wrong token',
        () => kubernetes.kubeconfig({ token: 'secret-but-wrong' }),
        77,
        /does not know us \(401\).*context test/,
      ],
      [
        'no right',
        () => kubernetes.kubeconfig('nobody'),
        77,
        /user nobody may not get leases in namespace default; grant: kubectl create role .*--verb=get,create,update,watch.*--user=nobody/,
      ],
      [
        'another server name',
        () => kubernetes.kubeconfig('app', { cluster: { 'tls-server-name': 'other.example' } }),
        77,
        /TLS with https:.*other\.example.*tls-server-name/,
      ],
      [
        'an unknown CA',
        () => kubernetes.kubeconfig('app', { cluster: { 'certificate-authority': undefined } }),
        77,
        /TLS with https:.*unable to verify/,
      ],
      [
        'a server that speaks no TLS',
        () => kubernetes.kubeconfig('app', { endpoint: kubernetes.etcd.endpoints[0]! }),
        69,
        /could not be reached.*ended before TLS was agreed on; does it speak TLS at all\?$/m,
      ],
      [
        'a host that refuses',
        () => kubernetes.kubeconfig('app', { endpoint: '127.0.0.1:9' }),
        69,
        /could not be reached.*ECONNREFUSED/,
      ],
      [
        'a missing CA file',
        () => kubernetes.kubeconfig('app', { cluster: { 'certificate-authority': '/nonexistent.pem' } }),
        64,
        /no credentials.*\/nonexistent\.pem/,
      ],
      [
        'a missing exec plugin',
        () =>
          kubernetes.kubeconfig({ exec: { apiVersion: 'client.authentication.k8s.io/v1', command: '/nonexistent' } }),
        64,
        /no credentials.*\/nonexistent/,
      ],
      ['a missing kubeconfig', () => '/nonexistent', 64, /KUBECONFIG=\/nonexistent does not exist/],
      [
        'a namespace that is none',
        () => kubernetes.kubeconfig('app', { namespace: 'No_Such' }),
        64,
        /"No_Such" is not a namespace/,
      ],
      [
        'a missing namespace',
        () => kubernetes.kubeconfig('admin', { namespace: 'nowhere' }),
        64,
        /there is no namespace nowhere/,
      ],
    ];

    test.each(REFUSED)('%s: one clear line, the right exit code, no secret', async (_, kubeconfig, code, message) => {
      const ended = await run(kubeconfig());
      expect(ended.stderr).toMatch(message);
      expect(ended.code).toBe(code);
      expect(ended.stderr).not.toMatch(/secret-but-wrong|\n\s+at /);
    });

    test.each([
      'null',
      '{}',
      '[]',
      '{"kind":"Lease","metadata":{"name":"x","resourceVersion":"1"},"spec":{"holderIdentity":5}}',
    ])('something on the way that answers %s: 69', async (body) => {
      const other = createServer((_, response) => response.end(body)).listen(0, '127.0.0.1');
      onTestFinished(() => void other.close());
      await once(other, 'listening');
      const server = `http://127.0.0.1:${(other.address() as AddressInfo).port}`;
      const ended = await run(kubernetes.kubeconfig('app', { cluster: { server, 'insecure-skip-tls-verify': true } }));
      expect(ended.stderr).toMatch(/could not be reached in time: kubernetes at http:.*: this is no Lease/);
      expect(ended.code).toBe(69);
    });

    test('a name that no Lease can have is refused, with one that would be right', async () => {
      const args = ['-b', 'kubernetes', '-n', 'Nightly_Job', '--', 'true'];
      const { code, stderr } = await elect(args, { env: { KUBECONFIG: kubernetes.kubeconfig('app') } }).ended;
      expect(code).toBe(64);
      expect(stderr).toContain('--name nightly-job');
    });

    const plugin = (script: string): Identity => {
      const command = join(kubernetes.folder, `plugin-${newElection()}.sh`);
      writeFileSync(
        command,
        `#!/bin/sh\nn=$(cat "$0.runs" 2>/dev/null || echo 0); n=$((n+1)); echo $n >"$0.runs"\n${script}\n`,
      );
      chmodSync(command, 0o755);
      return { exec: { apiVersion: 'client.authentication.k8s.io/v1', command, interactiveMode: 'Never' } };
    };
    const commandOf = (identity: Identity) => (identity as { exec: { command: string } }).exec.command;
    const runsOf = (identity: Identity) => Number(readFileSync(`${commandOf(identity)}.runs`, 'utf8'));
    const credential = (token: string, expires: string) =>
      `printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s","expirationTimestamp":"%s"}}' ${token} ${expires}`;

    const leads = async (kubeconfig: string) => {
      const oracle = new Oracle();
      const candidate = stand({
        backend: 'kubernetes',
        name: newElection(),
        job: oracle.job(),
        flags: SHORT,
        env: { KUBECONFIG: kubeconfig },
      });
      await oracle.started(1);
      await renewals(candidate, 2);
      candidate.kill('SIGTERM');
      await candidate.event('resigned');
      oracle.verify(1);
    };

    test.each(['app', 'unwatching'] satisfies User[])('a token: %s leads', (user) =>
      leads(kubernetes.kubeconfig(user)),
    );

    test('a client certificate leads', () => leads(kubernetes.kubeconfig({ certificate: true })));

    test('a file with a token leads', async () => {
      writeFileSync(join(kubernetes.folder, 'token'), 'app');
      await leads(kubernetes.kubeconfig({ tokenFile: 'token' }));
    });

    test('an exec plugin that prints something else than a credential: 69, and none of it is shown', async () => {
      const ended = await run(kubernetes.kubeconfig(plugin('echo secret-and-no-json')));
      expect(ended.stderr).toContain('no credentials: what the exec plugin printed is not JSON');
      expect(ended.stderr).not.toContain('secret');
      expect(ended.code).toBe(69);
    });

    test('an exec plugin that hangs is ended with elect-run', async () => {
      const hanging = plugin('echo $$ >"$0.pid"; exec sleep 300');
      const ended = await run(kubernetes.kubeconfig(hanging));
      expect(ended.code).toBe(69);
      const pid = Number(readFileSync(`${commandOf(hanging)}.pid`, 'utf8'));
      await until(() => !alive(pid), 'the end of the plugin');
    });

    test('an exec plugin under way when leadership is lost is not the job’s', async () => {
      const brief = credential('app', '$(date -u -d "+1 second" +%Y-%m-%dT%H:%M:%SZ)');
      const hanging = plugin(`[ $n -lt 3 ] || { echo $$ >"$0.pid"; exec sleep 300; }; ${brief}`);
      const env = { KUBECONFIG: kubernetes.kubeconfig(hanging) };
      const leader = stand({ backend: 'kubernetes', name: newElection(), job: ['sleep', '1000'], env });
      await leader.event('stepping-down');
      const under = identify(Number(readFileSync(`${commandOf(hanging)}.pid`, 'utf8')));
      await leader.event('deposed');
      expect(alive(under)).toBe(true);
      expect((await leader.ended).code).toBe(LOST);
      await until(() => !alive(under), 'the end of the plugin');
    });

    test('an exec plugin that is away for a moment, as in an upgrade, is waited for by whoever it has served', async () => {
      const oracle = new Oracle();
      const served = plugin(credential('app', '2000-01-01T00:00:00Z')); // asked for each request
      const { command } = (served as { exec: { command: string } }).exec;
      const entry = { backend: 'kubernetes', name: newElection(), job: oracle.job() };
      const [leader, standby] = await standInLine(
        oracle,
        { ...entry, env: { KUBECONFIG: kubernetes.kubeconfig('app') } },
        { ...entry, env: { KUBECONFIG: kubernetes.kubeconfig(served) } },
      );
      renameSync(command, `${command}.away`);
      leader!.kill('SIGTERM');
      expect(await standby!.event('unreachable')).toMatchObject({ reason: expect.stringMatching(/ENOENT/) });
      renameSync(`${command}.away`, command);
      await oracle.started(2);
      oracle.verify(2);
    });

    test('an exec plugin is asked again when its token runs out, and not before', async () => {
      const lasting = plugin(credential('app', '2099-01-01T00:00:00Z'));
      await leads(kubernetes.kubeconfig(lasting));
      expect(runsOf(lasting)).toBe(1);
      const brief = plugin(credential('app', '$(date -u -d "+1 second" +%Y-%m-%dT%H:%M:%SZ)'));
      await leads(kubernetes.kubeconfig(brief));
      expect(runsOf(brief)).toBeGreaterThan(1);
    });

    test('a token that the API server does not know any more is replaced by asking the exec plugin again', async () => {
      const changing = plugin(credential('$([ $n = 1 ] && echo stale || echo app)', '2099-01-01T00:00:00Z'));
      await leads(kubernetes.kubeconfig(changing));
      expect(runsOf(changing)).toBe(2);
    });

    test('several files in KUBECONFIG are one; of two entries with the same name the first counts', async () => {
      await leads(`${kubernetes.kubeconfig('app')}:/nonexistent:${kubernetes.kubeconfig('nobody')}`);
    });

    test('in a pod: service account, CA and namespace that are mounted', async () => {
      const folder = '/run/secrets/kubernetes.io/serviceaccount';
      const script = `mount -t tmpfs none /run && mkdir -p ${folder} && cd ${folder} && cp "$1" ca.crt &&
      printf %s "$2" >token && printf default >namespace && cd / && shift 2 && exec "$@"`;
      const pod = ['unshare', '-m', 'sh', '-c', script, 'sh', kubernetes.certificates.ca];
      const [host, port] = kubernetes.endpoints[0].split(':');
      const env = {
        KUBECONFIG: '',
        HOME: '/nonexistent',
        KUBERNETES_SERVICE_HOST: host,
        KUBERNETES_SERVICE_PORT: port,
      };
      const name = newElection();
      const args = ['-v', '-b', 'kubernetes', '-n', name, ...SHORT, '--', 'sleep', '60'];
      const leader = elect(args, { env, prefix: [...pod, await kubernetes.serviceAccountToken()] });
      await leader.event('started');
      await renewals(leader, 2);
      leader.kill('SIGKILL');
      // Also the guard's clean-up finds the service account.
      await kubernetes.heldBy(name, '');
    });
  },
);
