import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { BIN, endAll, NODE } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { filesOf } from '../helpers/guide.ts';
import { describeWith } from '../helpers/needs.ts';
import { ObjectStore } from '../helpers/object-store.ts';
import { PostgreSql } from '../helpers/postgresql.ts';
import { freePort, until } from '../helpers/procs.ts';
import { scratch, script } from '../helpers/scratch.ts';
import { stopServers } from '../helpers/servers.ts';
import type { Need } from '../helpers/tools.ts';

const FILES = filesOf('guides/fencing.md');
const STALE = 76;

afterEach(endAll);
afterAll(stopServers);

/** A folder with elect-run in its PATH, in which files of the guide are. */
class Desk {
  readonly dir = scratch();
  readonly env: NodeJS.ProcessEnv;

  constructor(env: NodeJS.ProcessEnv = {}) {
    mkdirSync(join(this.dir, 'bin'));
    symlinkSync(NODE, join(this.dir, 'bin/node'));
    symlinkSync(BIN, join(this.dir, 'bin/elect-run'));
    this.env = { ...process.env, ...env };
    this.env.PATH = `${join(this.dir, 'bin')}:${this.env.PATH}`;
  }

  path = (name: string) => join(this.dir, name);
  read = (name: string) => readFileSync(this.path(name), 'utf8');

  /** /srv is in here. */
  paste(name: string): string {
    return script(this.dir, name, FILES[name]!.replaceAll('/srv', this.path('srv')));
  }

  has(name: string, body: string): this {
    script(this.dir, name, `#!/bin/sh\n${body}\n`);
    return this;
  }

  start(command: string[], env: NodeJS.ProcessEnv = {}, input = '') {
    const [file, ...args] = command;
    const started = spawn(file!, args, { cwd: this.dir, env: { ...this.env, ...env } });
    started.stdin.on('error', () => {}); // it may end without reading
    started.stdin.end(input);
    const output = Promise.all([text(started.stdout), text(started.stderr)]);
    const ended = new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve, reject) => {
      started.once('error', reject);
      started.once('close', async (code) => {
        const [stdout, stderr] = await output;
        resolve({ code, stdout, stderr });
      });
    });
    return { process: started, ended };
  }

  run = (command: string[], env?: NodeJS.ProcessEnv, input?: string) => this.start(command, env, input).ended;

  /** As a leader with that token. */
  as = async (token: number, ...command: string[]) => (await this.run(command, { FENCING_TOKEN: String(token) })).code;
}

describe('the guide to fencing: shell', () => {
  let desk: Desk;
  beforeEach(() => {
    desk = new Desk();
    mkdirSync(desk.path('srv/www'), { recursive: true });
  });

  test('its job publishes what each leader made; a straggler does not', async () => {
    desk.has('make-report', 'echo "report of $FENCING_TOKEN"');
    const job = desk.paste('job.sh');
    for (const leader of [1, 2]) {
      const { code } = await desk.run(['elect-run', '-b', `file:${desk.dir}`, '-n', 'report', '--', job]);
      expect(code).toBe(0);
      expect(desk.read('srv/www/report.txt')).toBe(`report of ${leader}\n`);
    }
    const { code, stderr } = await desk.run([job], { FENCING_TOKEN: '1' });
    expect(code).toBe(STALE);
    expect(stderr).toMatch(/^elect-run: stale token 1: \S*data\.fence has seen 2, by /);
    expect(desk.read('srv/www/report.txt')).toBe('report of 2\n');
  });

  test('by ssh it is the host of the resource that refuses a straggler', async () => {
    // ssh(1) hands its words to a shell on that host, and its input to the command.
    desk.has('bin/ssh', 'shift; exec sh -c "$*"');
    mkdirSync(desk.path('site'));
    const publish = desk.paste('publish.sh');
    const publishAs = (token: number) => {
      writeFileSync(desk.path('site/index.html'), `by ${token}`);
      return desk.as(token, publish);
    };
    expect(await publishAs(42)).toBe(0);
    expect(await publishAs(41)).toBe(STALE);
    expect(desk.read('srv/www/index.html')).toBe('by 42');
    expect(await publishAs(43)).toBe(0);
    expect(desk.read('srv/www/index.html')).toBe('by 43');
  });
});

describeWith(['etcd', 'etcdctl'], 'the guide to fencing: a key in a store', () => {
  test('inside of a command a word is a key in the store of the election', async () => {
    const etcd = await Etcd.start();
    const desk = new Desk().has('upload-report', 'echo "uploaded by $FENCING_TOKEN"');
    const job = desk.paste('key.sh');
    const { code, stdout } = await desk.run(['elect-run', '-b', etcd.url, '-n', 'reports', '--', 'sh', job]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^uploaded by \d+\n$/);
    const straggler = await desk.run(['sh', job], { FENCING_TOKEN: '1', ELECT_RUN_BACKEND: etcd.url });
    expect(straggler).toMatchObject({ code: STALE, stdout: '' });
    expect(straggler.stderr).toMatch(/stale token 1: reports on etcd:\S+ has seen \d+, by /);
  });
});

interface Database {
  env: NodeJS.ProcessEnv;
  /** What a client of it is called with; SQL is its input. */
  client: string[];
}

const DATABASES: [name: string, needs: Need[], job: string, start: () => Promise<Database>][] = [
  ['SQLite', ['sqlite3'], 'pay-sqlite.sh', async () => ({ env: {}, client: ['sqlite3', 'app.db'] })],
  [
    'PostgreSQL',
    ['postgresql'],
    'pay-postgresql.sh',
    async () => ({ env: (await PostgreSql.start()).env, client: ['psql', '-XqAt', '-F|'] }),
  ],
];

for (const [name, needs, job, start] of DATABASES) {
  describeWith(needs, `the guide to fencing: ${name}`, () => {
    let desk: Desk;
    let sql: (text: string) => Promise<string>;
    beforeEach(async () => {
      const { env, client } = await start();
      desk = new Desk(env);
      sql = async (statements) => (await desk.run(client, {}, statements)).stdout.trim();
      await sql(FILES['schema.sql']!);
    });
    const account = () => sql('SELECT balance, fence FROM account WHERE id = 1;');

    test('one UPDATE looks, records and acts', async () => {
      const pay = desk.paste(job);
      expect(await desk.as(42, pay)).toBe(0);
      expect(await desk.as(41, pay)).toBe(STALE);
      expect(await desk.as(42, pay)).toBe(0);
      expect(await account()).toBe('80|42');
    });

    test('of tokens that come all at once each is taken or refused, and the largest is taken', async () => {
      const pay = desk.paste(job);
      const codes = await Promise.all([4, 2, 6, 1, 5, 3].map((token) => desk.as(token, pay)));
      expect(codes[2]).toBe(0);
      const paid = codes.filter((code) => code === 0).length;
      expect(codes.filter((code) => code === STALE)).toHaveLength(6 - paid);
      expect(await account()).toBe(`${100 - 10 * paid}|6`);
    });
  });
}

describeWith(['postgresql'], 'the guide to fencing: a transaction', () => {
  let server: PostgreSql;
  let desk: Desk;
  beforeAll(async () => {
    server = await PostgreSql.start();
  });
  beforeEach(async () => {
    desk = new Desk(server.env);
    await sql('DROP TABLE IF EXISTS fence, ledger;');
    await sql(FILES['ledger.sql']!);
  });
  const sql = async (text: string) => (await desk.run(['psql', '-XqAt', '-F|'], {}, text)).stdout.trim();
  const tokens = () => sql('SELECT DISTINCT token FROM ledger ORDER BY token;');

  test('of a stale token nothing stays', async () => {
    const book = desk.paste('book-postgresql.sh');
    expect(await desk.as(42, book)).toBe(0);
    expect(await desk.as(41, book)).toBe(3);
    expect(await desk.as(42, book)).toBe(0);
    expect(await tokens()).toBe('42');
  });

  test('a smaller token that comes in the middle of it waits, and is refused', async () => {
    const book = desk.paste('book-postgresql.sh');
    const [begin, end] = FILES['book-postgresql.sh']!.replaceAll(':token', '42').split(/(?<=\\gset\n)/);
    const leader = spawn('psql', ['-XqAt'], { cwd: desk.dir, env: desk.env, stdio: ['pipe', 'ignore', 'inherit'] });
    onTestFinished(() => void leader.kill('SIGKILL'));
    leader.stdin.write(begin!.slice(begin!.indexOf('BEGIN')));
    const isAtWork = "state = 'idle in transaction' AND query LIKE '%INSERT%'"; // not only begun
    await until(
      async () => (await sql(`SELECT 1 FROM pg_stat_activity WHERE ${isAtWork};`)) === '1',
      'the leader is at work',
    );
    const straggler = desk.as(41, book);
    await until(
      async () => (await sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock';")) === '1',
      'the straggler waits',
    );
    leader.stdin.end(end!.replace(/^SQL$/m, ''));
    expect(await straggler).toBe(3);
    expect(await tokens()).toBe('42');
  });
});

describeWith(['curl'], 'the guide to fencing: HTTP', () => {
  test('an object is replaced by larger and equal tokens only', async () => {
    const { desk, put, store } = await objectStore();
    expect(await put(42)).toBe(0);
    expect(await put(41)).toBe(STALE);
    expect(await put(42)).toBe(0);
    expect(await put(43)).toBe(0);
    expect(store.objects.get('/bucket/report')).toMatchObject({ body: 'by 43', token: '43' });
    expect(desk.read('report')).toBe('by 43');
  });

  test.each([
    ['a new object', undefined],
    ['an object', '40'],
  ])(
    'whoever looked before a larger token wrote %s is refused by the condition, and looks again',
    async (_, before) => {
      const { put, store } = await objectStore();
      if (before) store.write('/bucket/report', `by ${before}`, before);
      store.beforeWrite = () => {
        store.beforeWrite = () => {};
        store.write('/bucket/report', 'by 42', '42');
      };
      expect(await put(41)).toBe(STALE);
      expect(store.objects.get('/bucket/report')).toMatchObject({ body: 'by 42', token: '42' });
    },
  );

  test('an object that has no token yet gets one', async () => {
    const { put, store } = await objectStore();
    store.write('/bucket/report', 'as it was', undefined);
    expect(await put(1)).toBe(0);
    expect(store.objects.get('/bucket/report')).toMatchObject({ body: 'by 1', token: '1' });
  });

  async function objectStore() {
    const desk = new Desk();
    const store = await ObjectStore.start();
    onTestFinished(() => store.stop());
    const program = desk.paste('put-object.sh');
    const put = (token: number) => {
      writeFileSync(desk.path('report'), `by ${token}`);
      return desk.as(token, program, 'report', store.url('/bucket/report'));
    };
    return { desk, put, store };
  }

  test('its service refuses a stale token, also after a restart, and a request without one', async () => {
    const port = await freePort();
    const desk = new Desk({ PORT: String(port), URL: `http://127.0.0.1:${port}/` });
    const call = desk.paste('call.sh');
    const service = async () => {
      const { process: server, ended } = desk.start([NODE, desk.paste('server.mjs')]);
      onTestFinished(() => void server.kill('SIGKILL'));
      await until(
        () =>
          fetch(desk.env.URL!).then(
            ({ status }) => status === 400,
            () => false,
          ),
        'the service answers',
      );
      return { server, ended };
    };
    const first = await service();
    expect(await desk.as(9, call, 'one')).toBe(0);
    expect(await desk.as(10, call, 'two')).toBe(0);
    expect(await desk.as(9, call, 'three')).toBe(STALE);
    first.server.kill('SIGKILL');
    expect((await first.ended).stdout).toBe('9: one\n10: two\n');
    const second = await service();
    expect(await desk.as(9, call, 'four')).toBe(STALE);
    expect(await desk.as(10, call, 'five')).toBe(0);
    second.server.kill('SIGKILL');
    expect((await second.ended).stdout).toBe('10: five\n');
  });
});
