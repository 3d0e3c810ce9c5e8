import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { CGROUP2 } from './cgroups.ts';
import { BIN, NODE } from './elect.ts';
import { newFolder } from './folders.ts';
import { alive, until } from './procs.ts';
import { type Servers, started, stopped } from './servers.ts';

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PREFIX = 'elect-run-systemd-';

/**
 * In namespaces of its own: a root file system in memory, with the machine's /usr and the folders that are named, and a systemd as pid 1 that knows no other units than
 * those of FOLDER/units. Of the machine's own nothing is changed; /proc/sys and /sys can only be read.
 */
const BOOT = `
set -eu
folder=$1 cgroup=$2 repository=$3 node=$4
echo $$ >"$cgroup/cgroup.procs"
exec setpriv --pdeathsig KILL -- unshare --fork --kill-child --pid --mount --net --uts --ipc --cgroup sh -euc '
  folder=$1 repository=$2 node=$3
  mount --make-rprivate /
  mount -t tmpfs tmpfs "$folder/root"
  cd "$folder/root"
  mkdir -p usr etc/systemd/system etc/elect-run opt/node dev proc sys run var/lib var/log tmp root ".$repository" ".$folder"
  mount --rbind /usr usr
  for name in bin sbin lib lib32 lib64 libx32; do
    if [ -L "/$name" ]; then ln -s "$(readlink "/$name")" "$name"
    elif [ -d "/$name" ]; then mkdir "$name" && mount --rbind "/$name" "$name"; fi
  done
  cp -r /etc/passwd /etc/group /etc/nsswitch.conf /etc/ld.so.* /etc/alternatives etc
  printf "127.0.0.1 localhost e1 e2 e3\\n" >etc/hosts
  mount --bind "$node" opt/node
  mount --rbind "$repository" ".$repository"
  mount --bind "$folder" ".$folder"
  mount --bind "$folder/bin" usr/local/bin
  mount --bind "$folder/units" etc/systemd/system
  mount --bind "$folder/etc" etc/elect-run
  mount -t tmpfs tmpfs dev
  for name in null zero full random urandom tty; do : >"dev/$name" && mount --bind "/dev/$name" "dev/$name"; done
  mount -t proc proc proc
  echo 512 >proc/sys/net/unix/max_dgram_qlen # as systemd does, of this network namespace only
  mount --bind proc/sys proc/sys && mount -o remount,bind,ro proc/sys
  mount -t sysfs -o ro sysfs sys
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  mount -t tmpfs tmpfs run
  ip link set lo up
  hostname box
  exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=/etc/systemd/system \\
    chroot . /lib/systemd/systemd --system --unit=box.target --log-target=journal --show-status=no
' sh "$folder" "$repository" "$node"
`;

const UNITS = '/etc/systemd/system';
/** Folder in there → where it lies in ours. */
const FOLDERS = [
  [UNITS, 'units'],
  ['/etc/elect-run', 'etc'],
  ['/usr/local/bin', 'bin'],
] as const;

/** What the units of a distribution expect to be there. */
const TARGETS = ['sysinit', 'basic', 'shutdown', 'timers', 'multi-user', 'network-online'];
const JOURNAL = ['systemd-journald.socket', 'systemd-journald.service'];

/** A real systemd, with a journal. */
export class SystemdBox implements Servers {
  readonly folder = newFolder('systemd');
  readonly #cgroup = join(CGROUP2!, `${PREFIX}${process.pid}-${boxes++}`);
  readonly #process: ChildProcess;
  #log = '';
  #init = 0;

  private constructor() {
    removeAbandoned();
    for (const name of ['root', ...FOLDERS.map(([, outside]) => outside)]) mkdirSync(join(this.folder, name));
    mkdirSync(this.#cgroup);
    started(this);
    this.file(`${UNITS}/box.target`, '[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\n');
    for (const name of TARGETS) this.file(`${UNITS}/${name}.target`, '[Unit]\nDefaultDependencies=no\n');
    for (const name of JOURNAL) this.file(`${UNITS}/${name}`, readFileSync(join('/lib/systemd/system', name), 'utf8'));
    symlinkSync('/opt/node/node', join(this.folder, 'bin/node'));
    symlinkSync(BIN, join(this.folder, 'bin/elect-run'));
    const args = [this.folder, this.#cgroup, ROOT.replace(/\/$/, ''), dirname(NODE)];
    this.#process = spawn('sh', ['-c', BOOT, 'sh', ...args], { detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.#process.stdout!, this.#process.stderr!])
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.#log += text;
      });
  }

  static async boot(): Promise<SystemdBox> {
    const box = new SystemdBox();
    await until(() => box.#findInit(), `systemd as pid 1: ${box.#log}`);
    await until(
      async () => /running|degraded/.test(await box.try('systemctl', 'is-system-running')),
      'a booted system',
    );
    await box.systemctl('start', ...JOURNAL);
    return box;
  }

  #findInit(): boolean {
    // pid 1 of the namespace is the child of unshare(1), which is what our child has become.
    const children = readFileSync(`/proc/${this.#process.pid}/task/${this.#process.pid}/children`, 'utf8').split(' ');
    this.#init = Number(children[0]);
    return this.#init > 0 && readFileSync(`/proc/${this.#init}/comm`, 'utf8') === 'systemd\n';
  }

  /** Writes a file in there, into one of the folders that are there for it. */
  file(path: string, text: string): void {
    const [inside, outside] = FOLDERS.find(([folder]) => path.startsWith(`${folder}/`))!;
    const file = join(this.folder, outside, path.slice(inside.length));
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text, { mode: outside === 'bin' ? 0o755 : 0o644 });
  }

  /** Runs a command in there; throws when it fails. */
  async exec(...command: string[]): Promise<string> {
    const root = `/proc/${this.#init}/root`;
    const enter = ['-t', String(this.#init), '-p', '-m', '-n', '-u', '-i', '-C', `--root=${root}`, `--wd=${root}`];
    return (await run('nsenter', [...enter, '--', ...command])).stdout.trim();
  }

  /** Its output, whether it fails or not. */
  async try(...command: string[]): Promise<string> {
    return this.exec(...command).catch(({ stdout }) => String(stdout ?? '').trim());
  }

  systemctl(...args: string[]): Promise<string> {
    return this.exec('systemctl', ...args);
  }

  show(unit: string, property: string): Promise<string> {
    return this.exec('systemctl', 'show', '--value', '-p', property, unit);
  }

  /** Until the property of the unit is this, or fits. */
  async shows(unit: string, property: string, value: string | RegExp): Promise<void> {
    let shown = '';
    const fits = async () => {
      shown = await this.show(unit, property);
      return typeof value === 'string' ? shown === value : value.test(shown);
    };
    await until(fits, '', 30_000).catch(async () => {
      const journal = await this.exec('journalctl', '--no-pager', '-n', '50');
      throw new Error(`${unit}: ${property} is "${shown}", not ${value}\n${journal}`);
    });
  }

  /** As the machine counts its pids: all processes of the unit, its main process first. */
  async pidsOf(unit: string): Promise<number[]> {
    const cgroup = await this.show(unit, 'ControlGroup');
    const text = readFileSync(join(this.#cgroup, cgroup, 'cgroup.procs'), 'utf8');
    return text.split('\n').filter(Boolean).map(Number).filter(alive);
  }

  async journal(unit: string): Promise<{ MESSAGE: string; PRIORITY: string; SYSLOG_IDENTIFIER: string }[]> {
    await this.exec('journalctl', '--sync');
    const text = await this.exec('journalctl', '-o', 'json', '--no-pager', `_SYSTEMD_UNIT=${unit}`);
    return text
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line));
  }

  /** What systemd itself said of the unit. */
  async said(unit: string): Promise<string> {
    await this.exec('journalctl', '--sync');
    return this.exec('journalctl', '-o', 'cat', '--no-pager', `UNIT=${unit}`);
  }

  async stop(): Promise<void> {
    this.#process.kill('SIGKILL'); // unshare(1) kills pid 1, and the kernel with it all the rest
    await until(() => isEmpty(this.#cgroup), 'the end of every process in the box');
    removeCgroup(this.#cgroup);
    stopped(this);
  }
}

let boxes = 0;

const isEmpty = (cgroup: string) => readFileSync(join(cgroup, 'cgroup.events'), 'utf8').includes('populated 0');

function removeCgroup(cgroup: string): void {
  for (const entry of readdirSync(cgroup, { withFileTypes: true }))
    if (entry.isDirectory()) removeCgroup(join(cgroup, entry.name));
  rmdirSync(cgroup);
}

/** Those of test processes that were killed before they could remove theirs. */
function removeAbandoned(): void {
  for (const name of readdirSync(CGROUP2!)) {
    const owner = new RegExp(`^${PREFIX}(\\d+)-`).exec(name)?.[1];
    if (!owner || alive(Number(owner))) continue;
    try {
      if (isEmpty(join(CGROUP2!, name))) removeCgroup(join(CGROUP2!, name));
    } catch {} // others do so, too
  }
}
