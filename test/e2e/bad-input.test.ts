import { generateKeyPairSync } from 'node:crypto';
import { once as nextEvent } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { type Ended, elect, endAll } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { describeWith } from '../helpers/needs.ts';
import { Link } from '../helpers/proxy.ts';
import { Redis } from '../helpers/redis.ts';
import { scratch } from '../helpers/scratch.ts';
import { stopServers } from '../helpers/servers.ts';
import { ZooKeeper } from '../helpers/zookeeper.ts';

afterEach(endAll);
afterAll(stopServers);

const USAGE = 64;
const SECRET = 'hunter2';

/** Exactly one line, for people, on stderr; nothing on stdout; no stack, no secret. */
function expectOneLine({ stderr, stdout }: Ended, says: RegExp) {
  expect(stderr).toMatch(/^elect-run: [^\n]+\n$/);
  expect(stderr).toMatch(says);
  expect(stderr).not.toMatch(/\bat .*\.[jt]s:\d+|Error:|undefined|\[object|NaN/);
  expect(stderr).not.toContain(SECRET);
  expect(stdout).toHaveLength(0);
}

const run = (args: string[], env: NodeJS.ProcessEnv = {}) =>
  elect(args, { env: { ELECT_RUN_LOG_FORMAT: undefined, ...env }, prefix: ['timeout', '-s', 'KILL', '15'] }).ended;

interface Case {
  name: string;
  /** With -q what only the store can tell comes after no other message. */
  args: (dir: string) => string[];
  env?: NodeJS.ProcessEnv;
  says: RegExp;
  code?: number;
  command?: string[];
}

const file =
  (...flags: string[]) =>
  (dir: string) => ['-b', `file:${dir}/locks`, '-n', 'job', ...flags];

const CASES: Case[] = [
  { name: 'an unknown flag', args: file('--frobnicate'), says: /unknown option '--frobnicate'.*--help/ },
  { name: 'a flag that is nearly right', args: file('--no-wate'), says: /unknown option '--no-wate'.*--no-wait/ },
  { name: 'a flag without its value', args: file('--ttl'), command: [], says: /--ttl.*argument missing|no command/ },
  { name: 'no command', args: file(), command: [], says: /no command; write: elect-run \[options\] -- COMMAND/ },
  { name: 'no command after --', args: file('--'), command: [], says: /no command; write:/ },

  { name: 'a duration without a unit', args: file('--ttl', '15'), says: /--ttl "15" has no unit: did you mean 15s\?/ },
  { name: 'another one', args: file('--wait', '90'), says: /--wait "90" has no unit: did you mean 90s\?/ },
  { name: 'a negative duration', args: file('--ttl=-5s'), says: /--ttl "-5s" is not a duration \(500ms, 15s/ },
  { name: 'a word for a duration', args: file('--grace', 'long'), says: /--grace "long" is not a duration/ },
  { name: 'an unknown unit', args: file('--stop-timeout', '5y'), says: /--stop-timeout "5y" is not a duration/ },
  { name: 'a duration in two words', args: file('--ttl', '1h 30m'), says: /--ttl "1h 30m" is not a duration/ },
  { name: 'a ttl of zero', args: file('--ttl', '0s'), says: /--ttl "0s" .*15s/ },
  {
    name: 'a renewal that comes after the end',
    args: file('--ttl', '10s', '--renew-every', '10s'),
    says: /--ttl 10s, --renew-every 10s and --grace 2s do not fit.*lengthen --ttl, or shorten/,
  },
  {
    name: 'a grace as long as the ttl',
    args: file('--ttl', '10s', '--grace', '10s'),
    says: /--ttl 10s, --renew-every 3.3s and --grace 10s do not fit/,
  },
  { name: 'a ttl too short for anything', args: file('--ttl', '300ms'), says: /--ttl 300ms, .* do not fit/ },
  { name: 'renewals without a pause', args: file('--renew-every', '0'), says: /--renew-every 0ms .*do not fit/ },
  {
    name: 'an unknown profile',
    args: file('--profile', 'fast'),
    says: /--profile "fast" .*aggressive, balanced, conser/,
  },
  { name: 'an endless number', args: file('--ttl', `${'9'.repeat(400)}s`), says: /--ttl/ },

  { name: '--wait and --no-wait', args: file('--wait', '5s', '--no-wait'), says: /--wait and --no-wait exclude each/ },
  { name: 'them in the other order', args: file('--no-wait', '--wait=5s'), says: /--wait and --no-wait exclude each/ },
  { name: 'an unknown --on-lost', args: file('--on-lost', 'cry'), says: /--on-lost "cry" is not one of exit, rejoin/ },
  {
    name: 'an unknown log format',
    args: file('--log-format', 'xml'),
    says: /--log-format "xml" is not one of auto, pr/,
  },
  { name: 'an exit code above 255', args: file('--exit-code-lost', '256'), says: /--exit-code-lost "256".*0 to 255/ },
  {
    name: 'an exit code that is a word',
    args: file('--exit-code-standby', 'x'),
    says: /--exit-code-standby "x".*0 to/,
  },
  { name: 'a negative exit code', args: file('--exit-code-standby=-1'), says: /--exit-code-standby "-1".*0 to 255/ },
  {
    name: 'a loss that looks like a success',
    args: file('--exit-code-lost', '0'),
    says: /--exit-code-lost 0 would hide/,
  },

  { name: 'an --id with a newline', args: file('--id', 'a\nb'), says: /--id "a\?b" has a control character/ },
  { name: 'an --id with an escape', args: file('--id', '\u001b[2J'), says: /--id "\?\[2J" has a control character/ },
  { name: 'an empty --id', args: file('--id', ''), says: /--id is empty; leave it out/ },
  { name: 'an --id that is too long', args: file('--id', 'x'.repeat(129)), says: /--id is longer than 128 characters/ },
  ...['', 'x', '99999', '-1', '1.2.3.4', '::1:80', 'http://localhost:80', '9100\n', ':', 'a b:1'].map((address) => ({
    name: `--listen "${address}"`,
    args: file(`--listen=${address}`),
    says: /--listen "[^"]*" is not an address; write a port for this host only, as 9100, or as in 0\.0\.0\.0:9100/,
  })),
  { name: 'an empty name', args: file('--name', ''), says: /--name is empty/ },
  { name: 'a name with a newline', args: file('--name', 'a\nb'), says: /--name "a\?b" has a control character/ },
  { name: 'a name with a slash, for a file', args: file('--name', 'a/b'), says: /--name "a\/b".*cannot contain "\/"/ },
  {
    name: 'a name that is the folder above',
    args: file('--name', '..'),
    says: /--name "\.\." cannot be a file's name/,
  },
  { name: 'a name that is too long for a file', args: file('--name', 'x'.repeat(300)), says: /--name "x+…" is longer/ },
  { name: 'a wait for ever and a day', args: file('--wait', '99999999999d'), says: /--wait .*too long|longer than/ },
  {
    name: 'an interpreter without a name',
    args: (dir) => ['-b', `file:${dir}`],
    says: /-n, --name is needed: "sh" only/,
  },

  {
    name: 'an unknown backend',
    args: () => ['-b', 'mysql://db'],
    says: /--backend "mysql:\/\/db" is unknown; use file/,
  },
  { name: 'an empty backend', args: () => ['-b', ''], says: /--backend "" is unknown; use file/ },
  {
    name: 'an unknown backend with a password',
    args: () => ['-b', `mysql://root:${SECRET}@db`],
    says: /--backend "mysql:\/\/db" is unknown/,
  },
  {
    name: 'a mistyped scheme',
    args: () => ['-b', 'etcd:/h:1'],
    says: /--backend "etcd:\/h:1": write etcd or etcd:\/\//,
  },
  {
    name: 'a mistyped scheme with a password',
    args: () => ['-b', `etcd:/root:${SECRET}@h:1`],
    says: /--backend "etcd:/,
  },
  { name: 'a port that is none', args: () => ['-b', 'etcd://h:99999'], says: /"h:99999" is not host:port/ },
  { name: 'a host that is none', args: () => ['-b', 'etcd://a b:1'], says: /"a b:1" is not host:port/ },
  { name: 'an address that is none', args: () => ['-b', 'etcd://256.1.1.1'], says: /"256.1.1.1" is not host:port/ },
  {
    name: 'an IPv6 address that is none',
    args: () => ['-b', 'etcd://[::::]:1'],
    says: /"\[::::\]:1" is not host:port/,
  },
  {
    name: 'a bad host behind a password',
    args: () => ['-b', `etcd://root:${SECRET}@a b:1`],
    says: /"a b:1" is not host:port/,
  },
  {
    name: 'a password with a bare %',
    args: () => ['-b', `etcd://root:${SECRET}%@h:1`],
    says: /--backend .*%/,
  },
  {
    name: 'two Redis servers',
    args: () => ['-b', 'redis://a,b'],
    says: /takes one host; for several Sentinels write redis\+/,
  },
  {
    name: 'Sentinels without a master',
    args: () => ['-b', `redis+sentinel://u:${SECRET}@s1:1`],
    says: /--backend "redis\+sentinel:\/\/s1:1": write .*\/MASTER/,
  },
  { name: 'a database that is none', args: () => ['-b', 'redis://h/x'], says: /"x" is not the number of a database/ },
  {
    name: 'a REDIS_URL that is none',
    args: () => ['-b', 'redis'],
    env: { REDIS_URL: `http://u:${SECRET}@h` },
    says: /REDIS_URL "http:\/\/h": write redis/,
  },
  {
    name: 'replicas that are no number',
    args: () => ['-b', 'redis', '--redis-wait-replicas', 'all'],
    says: /--redis-wait-replicas "all" is not a number of replicas/,
  },
  {
    name: 'replicas of a store that has none',
    args: () => ['-b', 'etcd', '--redis-wait-replicas', '1'],
    says: /--redis-wait-replicas has no meaning for --backend etcd; did you mean --backend redis\?/,
  },
  {
    name: "a name that is another election's key",
    args: () => ['-b', 'redis', '-n', '{a}:token'],
    says: /--name "\{a\}:token" is a key that elect-run keeps/,
  },
  {
    name: 'a flavor that is none',
    args: () => ['-b', 'zookeeper', '--zk-flavor', 'curator'],
    says: /--zk-flavor "curator" is not one of curator-latch, curator-lock, kazoo/,
  },
  {
    name: 'a flavor of a store that has none',
    args: () => ['-b', 'etcd', '--zk-flavor', 'kazoo'],
    says: /--zk-flavor has no meaning for --backend etcd; did you mean --backend zookeeper\?/,
  },
  {
    name: 'a chroot with an empty part',
    args: () => ['-b', `zookeeper://u:${SECRET}@h/a//b`],
    says: /the chroot "\/a\/\/b" has an empty part/,
  },
  {
    name: 'a chroot with a part ".."',
    args: () => ['-b', 'zk://h/a/../b'],
    says: /the chroot "\/a\/\.\.\/b" has a part "\." or "\.\."/,
  },
  {
    name: 'a chroot with a control character',
    args: () => ['-b', 'zk://h/a\u001b'],
    says: /the chroot "\/a\?" has a character that no path may have/,
  },
  {
    name: 'a name with a character beyond 16 bits, which ZooKeeper refuses',
    args: () => ['-b', 'zk', '-n', 'job-\u{1f600}'],
    says: /--name "job-\u{1f600}" has a character that no path may have/u,
  },
  {
    name: "a name that is ZooKeeper's own",
    args: () => ['-b', 'zk', '-n', 'zookeeper/quota'],
    says: /--name "zookeeper\/quota" is ZooKeeper’s own/,
  },
  {
    name: 'a name that is no path',
    args: () => ['-b', 'zk', '-n', 'a//b'],
    says: /--name "a\/\/b" has an empty part/,
  },
  { name: 'a slash at the end of a name', args: () => ['-b', 'etcd', '-n', 'a/'], says: /--name "a\/" must not end/ },
  {
    name: 'an option of another backend',
    args: file('--user', 'me'),
    says: /--user has no meaning for --backend file/,
  },
  {
    name: 'a certificate for a file',
    args: file('--cacert', '/x'),
    says: /--cacert has no meaning for --backend file/,
  },
  { name: 'a file without a folder', args: () => ['-b', 'file:'], says: /--backend "file:": write file or file:DIR/ },
  { name: 'a folder without a colon', args: () => ['-b', 'file/tmp'], says: /--backend "file\/tmp": write file or/ },
  {
    name: 'a lock directory that is a file',
    args: (dir) => ['-b', `file:${dir}/plain`, '-n', 'job', '-q'],
    says: /--backend file: cannot write .*\/plain\/job\.lock: (EEXIST|ENOTDIR); name a directory/,
  },
  {
    name: 'a lock directory that cannot be made',
    args: () => ['-b', 'file:/proc/elect-run', '-n', 'job', '-q'],
    says: /--backend file: cannot write \/proc\/elect-run\/job\.lock: E\w+; name a directory/,
  },
  {
    name: 'a lock directory that cannot be written',
    args: () => ['-b', 'file:/sys/kernel', '-n', 'job', '-q'],
    says: /--backend file: cannot write \/sys\/kernel\/job\.lock: E\w+; name a directory/,
  },
  {
    name: 'a lock that is a directory',
    args: (dir) => ['-b', `file:${dir}/occupied`, '-n', 'job', '-q'],
    says: /--backend file: cannot write .*\/occupied\/job\.lock: EISDIR/,
  },
  {
    name: 'a token file of somebody else',
    args: (dir) => ['-b', `file:${dir}/foreign`, '-n', 'job', '-q'],
    says: /foreign\/job\.token.*does not begin with a number: "hello"/,
  },
  {
    name: 'a certificate that is not there',
    args: (dir) => ['-b', 'etcd', '--cacert', `${dir}/none.pem`],
    says: /--cacert .*none\.pem cannot be read: ENOENT/,
  },
  {
    name: 'a certificate that is none',
    args: (dir) => ['-b', 'etcd', '--cacert', `${dir}/plain`],
    says: /--cacert .*plain is not a PEM file/,
  },
  {
    name: 'a certificate that is broken',
    args: (dir) => ['-b', 'redis', '--cacert', `${dir}/broken.pem`],
    says: /--cacert .*broken\.pem cannot be used: /,
  },
  {
    name: 'a key in the place of the certificate',
    args: (dir) => ['-b', 'etcd', '--cert', `${dir}/own.key`, '--key', `${dir}/own.key`],
    says: /--cert .*own\.key cannot be used: no start line/,
  },
  {
    name: 'a certificate without its key',
    args: (dir) => ['-b', 'etcd', '--cert', `${dir}/plain`],
    says: /--cert and --key belong together/,
  },
  {
    name: 'a password file that is not there',
    args: (dir) => ['-b', 'etcd', '--user', 'me', '--password-file', `${dir}/none`],
    says: /--password-file .*none cannot be read: ENOENT/,
  },
  { name: 'a user without a password', args: () => ['-b', 'etcd', '--user', 'me'], says: /--user: no password; give/ },
  {
    name: 'a wrong value in a variable',
    args: file(),
    env: { ELECT_RUN_TTL: '15' },
    says: /--ttl "15" has no unit/,
  },
  {
    name: 'a command that does not exist',
    args: file(),
    command: ['no-such-x'],
    code: 127,
    says: /cannot run no-such-x/,
  },
];

test.each(CASES)(
  '$name is refused with one clear line',
  async ({ args, env, says, code, command = ['sh', '-c', 'exit 1'] }) => {
    const dir = scratch();
    writeFileSync(join(dir, 'plain'), '');
    writeFileSync(join(dir, 'broken.pem'), '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n');
    writeFileSync(
      join(dir, 'own.key'),
      generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }),
    );
    mkdirSync(join(dir, 'occupied/job.lock'), { recursive: true });
    mkdirSync(join(dir, 'foreign'));
    writeFileSync(join(dir, 'foreign/job.token'), 'hello');
    const ended = await run([...args(dir), ...(command.length > 0 ? ['--', ...command] : [])], env);
    expectOneLine(ended, says);
    expect(ended.code).toBe(code ?? USAGE);
  },
);

describeWith(['etcd', 'etcdctl', 'openssl'], 'a store that refuses us', () => {
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start({ auth: true });
  });

  /** Without messages of the campaign: errors only. */
  const refused = (...args: string[]) => run(['-q', ...args, '--', 'true']);
  const passwordFile = (text: string) => {
    const path = join(scratch(), 'password');
    writeFileSync(path, text);
    return path;
  };

  test('a wrong password is refused at once: 77, and not shown', async () => {
    const ended = await refused('-b', etcd.url, '-n', 'jobs/x', '--user', `root:${SECRET}`);
    expectOneLine(ended, /etcd: wrong user or password \(--user, --password-file\)/);
    expect(ended.code).toBe(77);
  });

  test('a wrong password in the URL is, too', async () => {
    const ended = await refused('-b', `etcd://root:${SECRET}@${etcd.endpoints[0]}`, '-n', 'jobs/x');
    expectOneLine(ended, /etcd: wrong user or password/);
    expect(ended.code).toBe(77);
  });

  test('an unknown user is refused: 77', async () => {
    const ended = await refused('-b', etcd.url, '-n', '/jobs/x', '--user', 'nobody:x');
    expectOneLine(ended, /etcd: wrong user or password/);
    expect(ended.code).toBe(77);
  });

  test('no user where one is needed: 77, and the way out', async () => {
    const ended = await refused('-b', etcd.url, '-n', 'jobs/x');
    expectOneLine(ended, /authentication is on: give --user and --password-file/);
    expect(ended.code).toBe(77);
  });

  test('a missing right is named: 77, and nothing is left behind', async () => {
    const ended = await refused(
      '-b',
      etcd.url,
      '-n',
      'other/x',
      '--user',
      'app',
      '--password-file',
      passwordFile('apppw\n'),
    );
    expectOneLine(ended, /user app may not do this; grant the role readwrite on the prefix other\/x\//);
    expect(ended.code).toBe(77);
    expect(await etcd.etcdctl('lease', 'list')).toMatch(/found 0 leases/);
  });

  test('the right that is there is enough', async () => {
    const ended = await refused(
      '-b',
      etcd.url,
      '-n',
      '/jobs/x',
      '--user',
      'app',
      '--password-file',
      passwordFile('apppw\n'),
    );
    expect(ended).toMatchObject({ code: 0, stderr: '' });
  });
});

describeWith(['etcd', 'etcdctl', 'openssl'], 'a store with certificates', () => {
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start({ tls: true });
  });

  const once = (...flags: string[]) =>
    run(['-q', '-b', etcd.url, '-n', 'jobs/x', '--wait', '10s', ...flags, '--', 'true']);

  test('with the right ones it works', async () => {
    const { ca, client } = etcd.certificates!;
    expect(await once('--cacert', ca, '--cert', client.cert, '--key', client.key)).toMatchObject({
      code: 0,
      stderr: '',
    });
  });

  test('a certificate of an authority that we do not know: 77', async () => {
    const { client } = etcd.certificates!;
    const ended = await once('--cert', client.cert, '--key', client.key);
    expectOneLine(ended, /TLS with .* failed: .*certificate.*\(--cacert, --cert, --key\)/i);
    expect(ended.code).toBe(77);
  });

  test('no certificate where one is needed: 77', async () => {
    const ended = await once('--cacert', etcd.certificates!.ca);
    expectOneLine(ended, /TLS with .* failed: .*certificate.*\(--cacert, --cert, --key\)/i);
    expect(ended.code).toBe(77);
  });

  test('no certificate where one is needed, of which a distant server tells late: 77', async () => {
    const link = await Link.start(etcd.endpoints[0]!, 100);
    onTestFinished(() => link.stop());
    const ended = await once('--cacert', etcd.certificates!.ca, '-b', `etcds://${link.endpoint}`);
    expectOneLine(ended, /TLS with .* failed: .*certificate.*\(--cacert, --cert, --key\)/i);
    expect(ended.code).toBe(77);
  });
});

describe('a store that cannot be reached', () => {
  const once = (url: string) => run(['-q', '-b', url, '-n', 'jobs/x', '--no-wait', '--', 'true']);

  test.each([
    ['nobody listens', 'etcd://127.0.0.1:1', /etcd at 127.0.0.1:1: connection refused$/m],
    ['the name is unknown', 'etcd://no-such-host.invalid', /etcd at no-such-host.invalid:2379: no such host$/m],
    ['nobody listens', 'zookeeper://127.0.0.1:1', /zookeeper at 127.0.0.1:1: connection refused$/m],
    ['the name is unknown', 'zk://no-such-host.invalid', /zookeeper at no-such-host.invalid:2181: no such host$/m],
  ])('--no-wait gives 69 when %s: %s', async (_name, url, says) => {
    const ended = await once(url);
    expectOneLine(ended, says);
    expect(ended.stderr).toContain('could not be reached in time');
    expect(ended.code).toBe(69);
  });

  test('--no-wait gives 69 within seconds when nobody answers', async () => {
    const silent = createServer(() => {}).listen(0, '127.0.0.1');
    onTestFinished(() => void silent.close());
    await nextEvent(silent, 'listening');
    const startedAt = performance.now();
    const ended = await once(`etcd://127.0.0.1:${(silent.address() as AddressInfo).port}`);
    expectOneLine(ended, /could not be reached in time/);
    expect(ended.code).toBe(69);
    expect(performance.now() - startedAt).toBeLessThan(8000);
  });

  test.each(['etcd', 'zookeeper'])('the password in its URL is not shown: %s', async (scheme) => {
    const ended = await run([
      '-v',
      '-b',
      `${scheme}://root:${SECRET}@127.0.0.1:1`,
      '-n',
      'jobs/x',
      '--no-wait',
      '--',
      'true',
    ]);
    expect(ended.code).toBe(69);
    expect(ended.stderr + ended.stdout).not.toContain(SECRET);
  });
});

describe('a server that speaks no TLS, or nothing else', () => {
  /** Ends each connection at its first bytes. */
  const server = async (end: (socket: Socket) => void): Promise<string> => {
    const listener = createServer((socket) => {
      socket.on('error', () => {}).once('data', () => end(socket));
    }).listen(0, '127.0.0.1');
    onTestFinished(() => void listener.close());
    await nextEvent(listener, 'listening');
    return `127.0.0.1:${(listener.address() as AddressInfo).port}`;
  };
  const ENDS: [string, (socket: Socket) => void][] = [
    ['closes', (socket) => socket.end()],
    ['resets', (socket) => socket.resetAndDestroy()],
  ];
  const lead = (backend: string, env: NodeJS.ProcessEnv = {}) =>
    run(['-q', '-b', backend, '-n', 'x', '--no-wait', '--', 'true'], env);
  const kubeconfig = (endpoint: string): string => {
    const path = join(scratch(), 'kubeconfig');
    const cluster = { server: `https://${endpoint}`, 'insecure-skip-tls-verify': true };
    const contexts = [{ name: 'test', context: { cluster: 'test', user: 'test' } }];
    const users = [{ name: 'test', user: { token: 'test' } }];
    const clusters = [{ name: 'test', cluster }];
    writeFileSync(path, JSON.stringify({ kind: 'Config', 'current-context': 'test', clusters, contexts, users }));
    return path;
  };

  const TO_PLAIN: [string, (endpoint: string) => Promise<Ended>][] = [
    ['etcd', (endpoint) => lead(`etcds://${endpoint}`)],
    ['redis', (endpoint) => lead(`rediss://${endpoint}`)],
    ['kubernetes', (endpoint) => lead('kubernetes', { KUBECONFIG: kubeconfig(endpoint) })],
  ];
  test.each(TO_PLAIN.flatMap(([store, ask]) => ENDS.map(([name, end]) => [store, name, ask, end] as const)))(
    '%s: %s when TLS is begun, and is asked after it: 69',
    async (store, _, ask, end) => {
      const ended = await ask(await server(end));
      const tells = store === 'redis' ? 'connection reset' : 'the connection ended before TLS was agreed on';
      expectOneLine(
        ended,
        new RegExp(`could not be reached.*${store} at .*: ${tells}; does it speak TLS at all\\?$`, 'm'),
      );
      expect(ended.code).toBe(69);
    },
  );

  test.each(ENDS)('doctor, of a Kubernetes: %s when TLS is begun, and is asked after it', async (_, end) => {
    const KUBECONFIG = kubeconfig(await server(end));
    const { stdout } = await run(['doctor', '-b', 'kubernetes', '-n', 'x'], { KUBECONFIG });
    for (const check of ['problem +connect', 'warning +server'])
      expect(String(stdout)).toMatch(new RegExp(`^${check} .*: the connection ended before TLS was agreed on;`, 'm'));
  });

  /** RFC 8446, 6: fatal, protocol_version. */
  const alert = Buffer.from([0x15, 3, 3, 0, 2, 2, 70]);
  const ALL_ENDS = [...ENDS, ['sends an alert', (socket: Socket) => socket.end(alert)] as const];
  test.each(['redis', 'etcd'].flatMap((store) => ALL_ENDS.map(([name, end]) => [store, name, end] as const)))(
    '%s without TLS: %s, and is asked whether it speaks TLS only: 69',
    async (store, _, end) => {
      const ended = await lead(`${store}://${await server(end)}`);
      const tells = `${store} at [^;]*[^.;]; does it speak TLS only \\(${store}s://\\)\\?$`;
      expectOneLine(ended, new RegExp(`could not be reached.*${tells}`, 'm'));
      expect(ended.code).toBe(69);
    },
  );
});

describeWith(['redis', 'openssl'], 'a Redis that refuses us', () => {
  let guarded: Redis;
  let secure: Redis;
  let open: Redis;
  beforeAll(async () => {
    [guarded, secure, open] = await Promise.all([
      Redis.start({ auth: true }),
      Redis.start({ tls: true }),
      Redis.start(),
    ]);
  });
  afterAll(stopServers);
  const refused = (url: string, ...args: string[]) => run(['-q', '-b', url, '-n', 'x', ...args, '--', 'true']);

  test('no password, a wrong one, and a missing right that is named: 77', async () => {
    const [endpoint] = guarded.endpoints;
    expectOneLine(await refused(`redis://${endpoint}`), /authentication is on: give --user and --password-file/);
    expectOneLine(await refused(`redis://app:${SECRET}@${endpoint}`), /wrong user or password/);
    const missing = await refused(guarded.url);
    expectOneLine(
      missing,
      /user app may not do this .*; grant ~x ~\{x\}:token ~\{x\}:baton ~\{x\}:runs ~\{x\}:word \+eval/,
    );
    expect(missing.code).toBe(77);
    expect((await guarded.cli('keys', '*')).trim()).toBe('');
  });

  test('TLS: an unknown CA and a missing certificate are refused, 77; plain to TLS and TLS to plain are told, 69', async () => {
    const [endpoint] = secure.endpoints;
    const unknown = await refused(`rediss://${endpoint}`);
    expectOneLine(unknown, /TLS with .* failed: self-signed certificate.*--cacert/);
    expect(unknown.code).toBe(77);
    const nameless = await refused(`rediss://${endpoint}`, '--cacert', secure.certificates!.ca);
    expectOneLine(nameless, /TLS with .* failed: .*certificate required/);
    expect(nameless.code).toBe(77);
    const { ca, client, server } = secure.certificates!;
    const strange = await refused(`rediss://${endpoint}`, '--cacert', ca, '--cert', client.cert, '--key', server.key);
    expectOneLine(strange, /--key .*server\.key is not the key of --cert .*client\.pem/);
    expect(strange.code).toBe(64);
    const plain = await refused(`redis://${endpoint}`, '--no-wait');
    expectOneLine(plain, /; does it speak TLS only \(rediss:\/\/\)\?/);
    expect(plain.code).toBe(69);
    expect((await refused(`rediss://${open.endpoints[0]}`, '--no-wait')).code).toBe(69);
  });

  test('a password where there is none is refused, with no other word: 77', async () => {
    const ended = await refused(`redis://:${SECRET}@${open.endpoints[0]}`);
    expectOneLine(ended, /the server has no password for the default user, but one is given/);
    expect(ended.code).toBe(77);
  });

  test('a database that is not there, or not for this user, is not exchanged for another: 64, 77', async () => {
    const missing = await refused(`redis://${open.endpoints[0]}/99`);
    expectOneLine(missing, /--backend redis: the server has no database 99/);
    expect(missing.code).toBe(64);
    const forbidden = await run(['-q', '-b', `${guarded.url}/1`, '-n', '/jobs/x', '--', 'true']);
    expectOneLine(forbidden, /user app may not do this .*'select'.* \+select$/m);
    expect(forbidden.code).toBe(77);
  });

  test.each(['inf', 'nan', '1e300', '-5', '9007199254740991', '99999999999999999'])(
    'a last token after which none can be larger (%s): 64, and nobody leads',
    async (last) => {
      await open.cli('set', '{tokens}:token', last);
      const ended = await run(['-q', '-b', open.url, '-n', 'tokens', '--', 'true']);
      expectOneLine(ended, /redis: the key \{tokens\}:token is the last token, but not a number below 2\^53/);
      expect(ended.code).toBe(64);
      expect((await open.cli('exists', 'tokens')).trim()).toBe('0');
    },
  );

  test('a key that is no lock is not touched: 64', async () => {
    await open.cli('lpush', 'x', 'of somebody');
    const ended = await refused(open.url);
    expectOneLine(ended, /--name: this key is there already, and is not a lock/);
    expect(ended.code).toBe(64);
    expect((await open.cli('lrange', 'x', '0', '-1')).trim()).toBe('of somebody');
  });
});

describeWith(['zookeeper'], 'a ZooKeeper that does not do what we ask', () => {
  let open: ZooKeeper;
  let guarded: ZooKeeper;
  beforeAll(async () => {
    [open, guarded] = await Promise.all([ZooKeeper.start(), ZooKeeper.start({ auth: true })]);
  });
  afterAll(stopServers);
  const refused = (url: string, ...args: string[]) => run(['-q', '-b', url, ...args, '--', 'true']);

  test('a session as long as --ttl that it does not grant: 64, and nothing is left behind', async () => {
    const ended = await refused(open.url, '-n', 'long', '--ttl', '10m');
    expectOneLine(
      ended,
      /--ttl 10m: this ZooKeeper grants sessions of 4m at most \(its maxSessionTimeout\); choose a --ttl of 3m44s or less/,
    );
    expect(ended.code).toBe(64);
    expect(await open.children('/long')).toEqual([]);
  });

  test.each([
    ['a wrong password', ['--user', `app:${SECRET}`], /user app \(or its password is wrong\) may not do this/],
    ['another user', ['--user', `nobody:${SECRET}`], /user nobody \(or its password is wrong\) may not do this/],
    ['no user', [], /nobody without --user may do this/],
  ])('%s where an ACL forbids it: 77, with the path and what is needed on it', async (_, user, says) => {
    for (const name of ['jobs', 'jobs/x']) {
      const ended = await refused(guarded.url, '-n', name, ...user);
      expectOneLine(ended, says);
      expectOneLine(ended, new RegExp(`needed are read, create and delete on /${name}$`, 'm'));
      expect(ended.code).toBe(77);
    }
    expect(await guarded.children('/jobs')).toEqual([]);
  });

  test('the election of a user is not open to others, who are refused: 77', async () => {
    const elected = await refused(guarded.url, '-n', 'jobs/own', '--user', 'app:apppw');
    expect(elected).toMatchObject({ code: 0, stderr: '' });
    const ended = await refused(guarded.url, '-n', 'jobs/own');
    expectOneLine(ended, /nobody without --user may do this; needed are .* on \/jobs\/own/);
    expect(ended.code).toBe(77);
  });

  test.each(['readme', '_c_1-lock-0000000001'])(
    'a znode of another kind below the election (%s): 64, and nothing is left behind',
    async (stranger) => {
      const name = `busy-${stranger}`;
      await open.create(`/${name}`);
      await open.create(`/${name}/${stranger}`);
      const ended = await refused(open.url, '-n', name);
      expectOneLine(ended, new RegExp(`/${name}/${stranger} lies below it and does not belong into the line of --zk-`));
      expect(ended.code).toBe(64);
      expect(await open.children(`/${name}`)).toEqual([stranger]);
    },
  );

  test('a name inside another election, whose line it would stand in: 64', async () => {
    await open.create('/outer');
    await open.create('/outer/_c_1-latch-0000000001');
    const ended = await refused(open.url, '-n', 'outer/inner');
    expectOneLine(ended, /--name outer\/inner lies inside the election \/outer/);
    expect(ended.code).toBe(64);
  });
});
