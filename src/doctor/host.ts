import { closeSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { findSetpriv, hasShell } from '../lookup.ts';
import { becomeSubreaper, openPidfd } from '../native.ts';
import { childrenOfOurs } from '../proc.ts';

/** What this host is as one that runs commands. */
export interface Host {
  kernel: string;
  node: string;
  /** A /bin/sh for the guard. */
  hasShell: boolean;
  /** One that knows --pdeathsig, by which the kernel kills the command together with us. */
  hasSetpriv: boolean;
  /** Orphans come to us, and we can list them. */
  isSubreaper: boolean;
  hasPidfd: boolean;
  isPidOne: boolean;
  openFiles: number;
  processes: number;
  /** Whether systemd wants to be told (Type=notify). */
  isNotified: boolean;
}

export function lookAtHost(env: NodeJS.ProcessEnv): Host {
  const pidfd = openPidfd(process.pid);
  if (pidfd !== undefined) closeSync(pidfd);
  const limits = readLimits();
  return {
    kernel: release(),
    node: process.version,
    hasShell: hasShell(),
    hasSetpriv: findSetpriv() !== undefined,
    isSubreaper: becomeSubreaper() && childrenOfOurs() !== undefined,
    hasPidfd: pidfd !== undefined,
    isPidOne: process.pid === 1,
    openFiles: limits('open files'),
    // The kernel does not count those of root (getrlimit(2), RLIMIT_NPROC).
    processes: process.getuid?.() === 0 ? Number.POSITIVE_INFINITY : limits('processes'),
    isNotified: Boolean(env.NOTIFY_SOCKET),
  };
}

/** The soft limits of proc_pid_limits(5). */
function readLimits(): (what: string) => number {
  const text = readFileSync('/proc/self/limits', 'latin1');
  return (what) => {
    const [, soft] = new RegExp(`^Max ${what} +(\\S+)`, 'm').exec(text) ?? [];
    return soft === undefined || soft === 'unlimited' ? Number.POSITIVE_INFINITY : Number(soft);
  };
}
