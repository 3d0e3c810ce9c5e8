import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { BIN, elect, endAll, NODE } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { newFolder } from '../helpers/folders.ts';
import { filesOf } from '../helpers/guide.ts';
import { describeWith } from '../helpers/needs.ts';
import { stopServers } from '../helpers/servers.ts';

const FILES = filesOf('guides/cron.md');

describeWith(['etcd', 'etcdctl'], 'the guide to cron', () => {
  let etcd: Etcd;
  const folder = newFolder('cron-guide');
  const bin = join(folder, 'bin');
  const out = join(folder, 'out');
  beforeAll(async () => {
    etcd = await Etcd.start();
    mkdirSync(bin);
    mkdirSync(out);
    symlinkSync(NODE, join(bin, 'node'));
    symlinkSync(BIN, join(bin, 'elect-run'));
    writeFileSync(join(bin, 'reconcile'), FILES.reconcile!);
    chmodSync(join(bin, 'reconcile'), 0o755);
  });
  afterAll(async () => {
    await endAll();
    await stopServers();
  });

  const here = (text: string) =>
    text.replaceAll('/usr/local/bin', bin).replace('etcd://e1:2379,e2:2379,e3:2379', etcd.url);

  test('its crontab, as cron runs it on three hosts: one run, silent elsewhere, all end with 0', async () => {
    const lines = here(FILES.crontab!).trim().split('\n');
    const variables = Object.fromEntries(lines.slice(0, -1).map((line) => line.split(/=(.*)/s).slice(0, 2)));
    const command = /^(?:\S+ ){5}(.*)$/.exec(lines.at(-1)!)![1]!;
    // crontab(5): a "%" would end the command.
    expect(command).not.toContain('%');
    const hosts = [1, 2, 3].map(async () => {
      const cron = spawn('/bin/sh', ['-c', command], { env: { ...variables, HOME: folder, OUT: out }, stdio: 'pipe' });
      let mail = '';
      for (const stream of [cron.stdout, cron.stderr]) stream.on('data', (text) => (mail += text));
      const [code] = await once(cron, 'close');
      return { code, mail };
    });
    expect(await Promise.all(hosts)).toEqual(Array(3).fill({ code: 0, mail: '' }));
    const [day, ...others] = readdirSync(out);
    expect(others).toEqual([]);
    expect(readFileSync(join(out, day!), 'utf8')).toMatch(/^reconciled \S+Z with token \d+$/m);
  });

  test('its job does its work once per slot, however often it is run', async () => {
    const again = join(folder, 'again');
    mkdirSync(again);
    const run = (token: string) =>
      spawn(join(bin, 'reconcile'), {
        env: {
          PATH: process.env.PATH,
          OUT: again,
          ELECT_RUN_SCHEDULED_AT: '2026-11-25T23:00:00Z',
          FENCING_TOKEN: token,
        },
      });
    for (const token of ['41', '42']) expect(await once(run(token), 'close')).toEqual([0, null]);
    expect(readFileSync(join(again, '2026-11-25'), 'utf8')).toContain('with token 41');
  });

  test('its schedule stays, and leads', async () => {
    const [, ...args] = here(FILES['schedule.sh']!)
      .trim()
      .replace('exec ', '')
      .match(/'[^']*'|\S+/g)!;
    const stays = elect(args.map((arg) => arg.replaceAll("'", '')));
    expect(await stays.event('scheduled')).toMatchObject({ slot: expect.stringMatching(/T2[23]:00:00Z$/) });
    stays.kill('SIGTERM');
    expect((await stays.ended).code).toBe(128 + 15);
  });
});
