import { closeSync, fstatSync, openSync, readFileSync, statSync } from 'node:fs';

/**
 * Whether /proc/locks shows an flock(2) on this file: a try of our own could make somebody else's fail. In a container it leaves out whoever is not in there, and whose process has
 * taken the lock and ended, as flock(1) does for a shell (proc_locks(5); fs/locks.c, locks_translate_pid).
 */
export function isSeenLocked(file: string): boolean {
  if (!statSync(file, { throwIfNoEntry: false })) return false;
  const name = nameInLocks(file);
  return readFileSync('/proc/locks', 'latin1')
    .split('\n')
    .some((line) => /: FLOCK /.test(line) && !line.includes('->') && line.split(/\s+/).includes(name));
}

const O_PATH = 0o10000000; // open(2): this may be done by whoever may not read it

/** Device and inode, by the file system's own numbers: stat(2) has others on btrfs and overlayfs (proc(5): fdinfo, mountinfo). */
function nameInLocks(file: string): string {
  const fd = openSync(file, O_PATH);
  try {
    const { dev, ino } = fstatSync(fd);
    const info = readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1');
    const field = (name: string) => new RegExp(`^${name}:\\s*(\\d+)$`, 'm').exec(info)?.[1];
    const [major, minor] = deviceOf(field('mnt_id')) ?? [(dev >> 8) & 0xfff, (dev & 0xff) | ((dev >> 12) & 0xfff00)];
    return `${hex(major)}:${hex(minor)}:${field('ino') ?? ino}`;
  } finally {
    closeSync(fd);
  }
}

/** Undefined: the mount lies around our root, and is not shown. */
function deviceOf(mount: string | undefined): [number, number] | undefined {
  const mounts = readFileSync('/proc/self/mountinfo', 'latin1');
  const [, major, minor] = new RegExp(`^${mount} \\d+ (\\d+):(\\d+) `, 'm').exec(mounts) ?? [];
  return major === undefined ? undefined : [Number(major), Number(minor)];
}

const hex = (number: number): string => number.toString(16).padStart(2, '0');
