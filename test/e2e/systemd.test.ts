import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../helpers/needs.ts';
import { alive, commandLine, identify, signal, until } from '../helpers/procs.ts';
import { stopServers } from '../helpers/servers.ts';
import { SystemdBox } from '../helpers/systemd.ts';

/** The files of the guide: each is a block below a line that names it. */
const GUIDE = readFileSync(new URL('../../docs/guides/systemd.md', import.meta.url), 'utf8');
const FILES = Object.fromEntries(
  [...GUIDE.matchAll(/^`(\/\S+)`\n\n```\w+\n(.*?)^```$/gms)].map(([, path, text]) => [path!, text!]),
);
const UNITS = '/etc/systemd/system';

const MAILER = 'elect-run-mailer.service';
const OTHER_HOST = 'elect-run-mailer-elsewhere.service';
const REPORT = 'elect-run-report.service';

/** Says what it gets, and so does a process of it that left group, session and environment. TERM ends both, after a moment. */
const JOB = `#!/bin/sh
trap 'echo "$0: HUP"' HUP
trap 'echo "$0: TERM"; ending=yes' TERM
case $0 in
  *hidden) ;;
  *) echo "working with token $FENCING_TOKEN"; (env -i setsid /usr/local/bin/hidden &) ;;
esac
until [ "$ending" ]; do sleep 0.05; done
sleep 0.3
`;

const ENDED = 'the child ended with status 0';

const ETCD = `[Service]
Type=notify
ExecStart=etcd --data-dir /var/lib/etcd --log-level error
`;

const FAST = `ELECT_RUN_BACKEND=etcd://e1:2379
ELECT_RUN_NAME=fast
ELECT_RUN_TTL=3s
`;

describeWith(['systemd', 'etcd', 'etcdctl'], 'under systemd', () => {
  let box: SystemdBox;

  beforeAll(async () => {
    box = await SystemdBox.boot();
    for (const [path, text] of Object.entries(FILES)) box.file(path, text);
    box.file(`${UNITS}/${OTHER_HOST}`, FILES[`${UNITS}/${MAILER}`]!);
    box.file(`${UNITS}/etcd.service`, ETCD);
    for (const name of ['mailer', 'hidden', 'queue', 'report']) box.file(`/usr/local/bin/${name}`, JOB);
    await box.systemctl('daemon-reload');
    await box.systemctl('start', 'etcd');
  });

  afterEach(async () => {
    await box.systemctl('stop', 'elect-run*');
    await box.exec('etcdctl', 'del', '--from-key', '');
    await box.try('systemctl', 'reset-failed');
  });

  afterAll(stopServers);

  /** An instance of the template with a lease of 3 s, and a watchdog that fits. */
  async function fast(instance: string, more: string, dropIn = ''): Promise<string> {
    const unit = `elect-run@${instance}.service`;
    box.file(`/etc/elect-run/${instance}.env`, `COMMAND=/usr/local/bin/mailer\n${FAST}${more}`);
    await override(unit, `WatchdogSec=2500ms\n${dropIn}`);
    return unit;
  }

  async function override(unit: string, service: string): Promise<void> {
    box.file(`${UNITS}/${unit}.d/test.conf`, `[Service]\n${service}`);
    await box.systemctl('daemon-reload');
  }

  async function startLeading(unit: string): Promise<void> {
    await box.systemctl('start', unit);
    await box.shows(unit, 'StatusText', /^leading/);
  }

  const isJob = (pid: number) => commandLine(pid).some((argument) => /bin\/(mailer|hidden)$/.test(argument));
  const isElectRun = (pid: number) => commandLine(pid)[1] === '/usr/local/bin/elect-run';
  const isHidden = (pid: number) => commandLine(pid)[1] === '/usr/local/bin/hidden';

  /** The command's two processes, once both are there: not the shell between them, which is gone when only two are left. */
  const jobsOf = (unit: string) =>
    until(async () => {
      const jobs = (await box.pidsOf(unit)).filter((pid) => isJob(pid) && !isElectRun(pid));
      return jobs.length === 2 && jobs.some(isHidden) && jobs.map(identify);
    }, `both processes of ${unit}`);

  const electRunOf = async (unit: string) => (await box.pidsOf(unit)).find(isElectRun)!;
  const messages = async (unit: string) => (await box.journal(unit)).map(({ MESSAGE }) => MESSAGE);
  const count = async (unit: string, message: string) =>
    (await messages(unit)).filter((other) => other === message).length;

  test('the guide has all that it speaks of, and systemd finds no fault with its units', async () => {
    const units = Object.keys(FILES).filter((path) => path.startsWith(UNITS));
    expect(Object.keys(FILES)).toEqual([
      `${UNITS}/elect-run-mailer.service`,
      `${UNITS}/elect-run@.service`,
      '/etc/elect-run/queue.env',
      `${UNITS}/elect-run-report.timer`,
      `${UNITS}/elect-run-report.service`,
      '/usr/local/bin/slow-start',
    ]);
    expect(await box.exec('sh', '-c', `systemd-analyze verify --man=no ${units.join(' ')} 2>&1`)).toBe('');
  });

  test('a standby is active and says who leads, takes over, and stops without a failure as a leader does', async () => {
    await startLeading(MAILER);
    await box.systemctl('start', OTHER_HOST);
    expect(await box.show(OTHER_HOST, 'ActiveState')).toBe('active');
    await box.shows(OTHER_HOST, 'StatusText', /^standing by: box-\d+-\w+ leads; we are number 2 in line$/);
    await box.systemctl('stop', MAILER);
    await box.shows(OTHER_HOST, 'StatusText', /^leading with token/);
    await box.systemctl('start', MAILER);
    await box.systemctl('stop', MAILER, OTHER_HOST);
    for (const unit of [MAILER, OTHER_HOST]) {
      expect(await box.show(unit, 'ActiveState')).toBe('inactive');
      expect(await box.show(unit, 'Result')).toBe('success');
    }
  });

  test('a stop is TERM to elect-run alone, which passes it on once and waits for the end', async () => {
    await startLeading(MAILER);
    const before = await count(MAILER, '/usr/local/bin/mailer: TERM');
    const jobs = await jobsOf(MAILER);
    await box.systemctl('stop', MAILER);
    expect(await count(MAILER, '/usr/local/bin/mailer: TERM')).toBe(before + 1);
    expect(jobs.filter(alive)).toEqual([]);
    const said = await messages(MAILER);
    // What has left the command's group is ended after it.
    expect(said.lastIndexOf('/usr/local/bin/hidden: TERM')).toBeGreaterThan(said.lastIndexOf(ENDED));
  });

  test('a reload reaches the command of the leader', async () => {
    await startLeading(MAILER);
    await jobsOf(MAILER);
    await box.systemctl('reload', MAILER);
    await until(async () => (await count(MAILER, '/usr/local/bin/mailer: HUP')) > 0, 'the HUP');
    await box.shows(MAILER, 'SubState', 'running');
  });

  test('a leader that loses its lease ends with 79 and stands again', async () => {
    await startLeading(MAILER);
    const jobs = await jobsOf(MAILER);
    await box.exec('etcdctl', 'del', '--prefix', 'mailer/');
    await box.shows(MAILER, 'NRestarts', '1');
    expect(jobs.filter(alive)).toEqual([]);
    await box.shows(MAILER, 'StatusText', /^leading/);
    expect(await box.said(MAILER)).toContain('Main process exited, code=exited, status=79');
  });

  test('a wrong option is not tried again', async () => {
    const unit = await fast('wrong', 'ELECT_RUN_GRACE=5\n');
    await expect(box.systemctl('start', unit)).rejects.toThrow();
    expect(await box.show(unit, 'ExecMainStatus')).toBe('64');
    expect(await box.show(unit, 'ActiveState')).toBe('failed');
  });

  test('the journal has the priority of each line, and nothing of it in the text', async () => {
    await startLeading(MAILER);
    await jobsOf(MAILER); // it works
    await box.exec('etcdctl', 'del', '--prefix', 'mailer/');
    await box.shows(MAILER, 'NRestarts', '1');
    const journal = await box.journal(MAILER);
    const priorityOf = (text: RegExp) => journal.find(({ MESSAGE }) => text.test(MESSAGE))?.PRIORITY;
    expect(priorityOf(/^elected leader of mailer/)).toBe('6');
    expect(priorityOf(/^stepping down/)).toBe('4');
    expect(priorityOf(/^working with token/)).toBe('6');
    expect(journal.filter(({ MESSAGE }) => MESSAGE.startsWith('<'))).toEqual([]);
  });

  test('after kill -9 of elect-run, its guard frozen, nothing of the command is alive when the unit is started again', async () => {
    const unit = await fast('fast', '');
    await startLeading(unit);
    const jobs = await jobsOf(unit);
    const electRun = await electRunOf(unit);
    for (const pid of await box.pidsOf(unit)) if (pid !== electRun && !isJob(pid)) signal(pid, 'SIGSTOP');
    signal(electRun, 'SIGKILL');
    await box.shows(unit, 'NRestarts', '1');
    expect(jobs.filter(alive)).toEqual([]);
    await box.shows(unit, 'StatusText', /^leading/);
  });

  test('after kill -9 with KillMode=process the guard ends the command and gives the lease back', async () => {
    await override(MAILER, 'KillMode=process\n');
    await startLeading(MAILER);
    const jobs = await jobsOf(MAILER);
    await box.systemctl('start', OTHER_HOST);
    await box.shows(OTHER_HOST, 'StatusText', /^standing by/);
    const killedAt = performance.now();
    signal(await electRunOf(MAILER), 'SIGKILL');
    await box.shows(OTHER_HOST, 'StatusText', /^leading/);
    expect(performance.now() - killedAt).toBeLessThan(7000); // of a lease of 15 s, not renewed for 5 s at most
    expect(jobs.filter(alive)).toEqual([]);
    await override(MAILER, '');
  });

  test('the watchdog ends the command before the lease has run out, when elect-run and its guard hang', async () => {
    const unit = await fast('fast', '');
    await startLeading(unit);
    const jobs = await jobsOf(unit);
    for (const pid of await box.pidsOf(unit)) if (isElectRun(pid) || !isJob(pid)) signal(pid, 'SIGSTOP');
    const stoppedAt = performance.now();
    await until(() => jobs.filter(alive).length === 0, 'the end of the command');
    expect(performance.now() - stoppedAt).toBeLessThan(3000); // counted from later than the last renewal
    await box.shows(unit, 'NRestarts', '1');
    expect(await box.said(unit)).toContain('Watchdog timeout');
  });

  test('the watchdog lets a standby alone, also while the store is away', async () => {
    const [leader, standby] = [await fast('fast', ''), await fast('standby', '')];
    await startLeading(leader);
    await box.systemctl('start', standby);
    await box.systemctl('kill', '--signal=STOP', 'etcd');
    await box.shows(standby, 'StatusText', /^the store cannot be reached/); // later than its place has run out, and the watchdog would have
    await box.shows(leader, 'NRestarts', '1');
    await box.systemctl('kill', '--signal=CONT', 'etcd');
    await box.shows(standby, 'StatusText', /^(standing by: box|leading)/);
    expect(await box.show(standby, 'NRestarts')).toBe('0');
  });

  test('--stop-timeout is kept where TimeoutStopSec is shorter', async () => {
    const unit = await fast('slow', 'ELECT_RUN_STOP_TIMEOUT=4s\n', 'TimeoutStopSec=2s\n');
    box.file('/etc/elect-run/slow.sh', 'trap "echo TERM" TERM; echo ready; while :; do sleep 0.05; done\n');
    box.file('/etc/elect-run/slow.env', `COMMAND=sh /etc/elect-run/slow.sh\n${FAST}ELECT_RUN_STOP_TIMEOUT=4s\n`);
    await startLeading(unit);
    await until(async () => (await count(unit, 'ready')) > 0, 'its trap');
    await box.systemctl('stop', unit);
    expect(await messages(unit)).toContainEqual(expect.stringContaining('(--stop-timeout): killed'));
    expect(await box.show(unit, 'Result')).toBe('success');
  });

  test('a command that speaks for itself decides when the unit is active', async () => {
    box.file('/usr/local/bin/warm-up', '#!/bin/sh\nuntil [ -e /run/warm ]; do sleep 0.05; done\n');
    box.file('/usr/local/bin/serve', '#!/bin/sh\nexec sleep 1000\n');
    const unit = await fast('slow-start', 'ELECT_RUN_NOTIFY_CHILD=1\nELECT_RUN_READY_ON=leader\n');
    box.file(
      '/etc/elect-run/slow-start.env',
      `COMMAND=/usr/local/bin/slow-start\n${FAST}ELECT_RUN_NOTIFY_CHILD=1\nELECT_RUN_READY_ON=leader\n`,
    );
    await box.systemctl('start', '--no-block', unit);
    await box.shows(unit, 'StatusText', /^leading/);
    expect(await box.show(unit, 'ActiveState')).toBe('activating');
    await box.exec('touch', '/run/warm');
    await box.shows(unit, 'ActiveState', 'active');
    await box.shows(unit, 'StatusText', /^leading with token \d+ since \S+: serving$/);
  });

  test('the template runs what its file says', async () => {
    await startLeading('elect-run@queue.service');
    await until(async () => (await messages('elect-run@queue.service')).some((line) => line.startsWith('working')), '');
    const pids = await box.pidsOf('elect-run@queue.service');
    expect(pids.map(commandLine)).toContainEqual(['/bin/sh', '/usr/local/bin/queue', '--workers', '4']);
  });

  test('the timer is due at midnight, and starts the command once for a slot', async () => {
    const timer = 'elect-run-report.timer';
    await box.systemctl('start', timer);
    expect(await box.show(timer, 'NextElapseUSecRealtime')).toMatch(/ 00:00:00 /);
    await box.systemctl('stop', timer);
    box.file(`${UNITS}/${timer}.d/test.conf`, '[Timer]\nOnActiveSec=100ms\n');
    await box.systemctl('daemon-reload');
    await box.systemctl('start', timer);
    await until(async () => (await messages(REPORT)).some((line) => line.startsWith('working with token')), 'a report');
    await box.systemctl('stop', REPORT);
    await box.systemctl('start', REPORT);
    expect(await messages(REPORT)).toContainEqual(expect.stringMatching(/^nothing to do: slot \S+ was run by box-/));
  });

  test('a timer on a host whose turn it is not has done nothing, and not failed', async () => {
    box.file(`${UNITS}/elect-run-elsewhere.service`, FILES[`${UNITS}/${REPORT}`]!.replace('Type=oneshot', ''));
    await box.systemctl('daemon-reload');
    await box.systemctl('start', 'elect-run-elsewhere');
    await until(async () => (await messages('elect-run-elsewhere.service')).some((line) => /^working/.test(line)), '');
    await box.systemctl('start', REPORT);
    expect(await messages(REPORT)).toContainEqual(expect.stringMatching(/^not elected: box-\S+ leads report$/));
    expect(await box.show(REPORT, 'ActiveState')).toBe('inactive');
  });
});
