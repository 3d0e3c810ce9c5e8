import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync, statSync } from 'node:fs';

/** One line of /proc/PID/stat: what is needed to tell whose a process is (proc(5)). */
export interface Proc {
  pid: number;
  parent: number;
  group: number;
  session: number;
  /** Clock ticks since boot at which it started. With the pid it names one process for ever: a pid that was used again has another. */
  startedAt: string;
}

const PF_KTHREAD = 0x00200000; // include/linux/sched.h

/** There is no such process; or it is another user's, whom we are not shown (proc(5): hidepid, environ). */
const NOBODY = ['ENOENT', 'ESRCH', 'EPERM', 'EACCES'];

/** Undefined when there is nobody to be read of. Throws what proves nothing about that, as where no descriptor or memory is left. */
function ofSomebody<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (NOBODY.includes((error as NodeJS.ErrnoException).code!)) return undefined;
    throw error;
  }
}

/** The fields of /proc/PID/stat, or of a thread's, from the state on. The command's name before it stands in parentheses and may itself contain spaces and parentheses. Throws when there is nobody. */
function fieldsOf(folder: string): string[] {
  const stat = readText(`${folder}/stat`);
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}

/** Undefined when there is no such process, or only its zombie: dead means dead. Throws when that cannot be told just now. */
export function readProc(pid: number): Proc | undefined {
  const fields = ofSomebody(() => fieldsOf(`/proc/${pid}`));
  if (!fields || isOver(fields) || Number(fields[6]) & PF_KTHREAD) return undefined;
  return {
    pid,
    parent: Number(fields[1]),
    group: Number(fields[2]),
    session: Number(fields[3]),
    startedAt: fields[19]!,
  };
}

/**
 * Its last thread has ended. Where only the first one has, by pthread_exit(3), and others work on, the state is a zombie's as well, but a zombie has one thread (proc(5), fields 3 and 20): what
 * the kernel shows of a process is what it knows of the first one.
 */
const isOver = (fields: string[]) => 'ZXx'.includes(fields[0]!) && Number(fields[17]) < 2;

/** Those that have ended too, as the first one may; none when there is nobody. Throws as `readProc` does. */
const threadsOf = (pid: number): string[] =>
  (ofSomebody(() => readdirSync(`/proc/${pid}/task`)) ?? []).map((thread) => `/proc/${pid}/task/${thread}`);

/** Every thread was stopped by a signal, as by Ctrl-Z, or is not there any more. False as well when that cannot be told just now. */
export function hasStopped(pid: number): boolean {
  try {
    return threadsOf(pid).every((thread) => 'TZX'.includes(ofSomebody(() => fieldsOf(thread)[0]!) ?? 'X'));
  } catch {
    return false;
  }
}

/** All that are in the process table. */
export const listPids = (): number[] => readdirSync('/proc').map(Number).filter(Number.isInteger);

/**
 * The number that was given to a process or thread last, in our pid namespace (proc(5): the fifth field of /proc/loadavg). Undefined where what we are shown is not
 * the kernel's: another file is mounted there, as lxcfs does it, whose number is the host's or some seconds old; or it is smaller than one of our own, and the numbers have not come round.
 */
export function lastPid(file = '/proc/loadavg'): number | undefined {
  try {
    if (statSync(file).dev !== statSync('/proc/self').dev) return undefined;
    const last = Number(readFileSync(file, 'latin1').split(' ')[4]);
    const ours = Math.max(...readdirSync('/proc/self/task').map(Number));
    return last >= ours || last < process.pid ? last : undefined;
  } catch {
    return undefined;
  }
}

/** Numbers of processes go up to this, and then start again from `FIRST_PID` (proc(5), kernel/pid.c: RESERVED_PIDS). */
export const highestPid = (): number => Number(readFileSync('/proc/sys/kernel/pid_max', 'latin1')) - 1;
export const FIRST_PID = 300;

/** Not a further thread of a process, which has a number as well, and is found by it, though not listed. False when there is nobody. Throws as `readProc` does. */
export function isLeader(pid: number): boolean {
  const status = ofSomebody(() => readFileSync(`/proc/${pid}/status`, 'latin1'));
  return status !== undefined && /^Tgid:\s*(\d+)$/m.exec(status)?.[1] === String(pid);
}

/** Is this very process alive? Whoever has this number, where the start is not known. True as well when it cannot be told just now: death has to be shown. */
export function isAlive({ pid, startedAt }: { pid: number; startedAt: string | undefined }): boolean {
  try {
    const proc = readProc(pid);
    return proc !== undefined && proc.startedAt === (startedAt ?? proc.startedAt);
  } catch {
    return true;
  }
}

/**
 * Has its number been given to somebody else? Not while it is a zombie, nor while any member of its group or session lives (kernel/pid.c). Throws as `readProc` does. False where
 * the start is not known, as of one that was dead before it could be read.
 */
export function isAnothers({ pid, startedAt }: { pid: number; startedAt: string | undefined }): boolean {
  const startNow = ofSomebody(() => fieldsOf(`/proc/${pid}`)[19]);
  return startNow !== undefined && !!startedAt && startNow !== startedAt;
}

/**
 * Our children, zombies included, or undefined where they cannot be told: the kernel was built without CONFIG_PROC_CHILDREN, or no descriptor is left. All of them are the main thread's: it
 * starts those of ours, and the kernel hands orphans to the thread from which they descend.
 */
export function childrenOfOurs(): number[] | undefined {
  try {
    ours ??= new Kept(`/proc/self/task/${process.pid}/children`);
    return numbersIn(ours.read());
  } catch {
    return undefined;
  }
}

let ours: Kept | undefined;

/** Zombies included, of all its threads; none where the kernel does not tell. Throws as `readProc` does. */
export function childrenOf(pid: number): number[] {
  return threadsOf(pid).flatMap((thread) => numbersIn(ofSomebody(() => readText(`${thread}/children`)) ?? ''));
}

/** As `childrenOf`, for one that is asked for again and again. Until `end` it costs a descriptor. */
export class Children {
  readonly #pid: number;
  #kept: Kept | undefined;

  constructor(pid: number) {
    this.#pid = pid;
  }

  read(): number[] {
    const children = ofSomebody(() => {
      // Two links, and one for each thread (fs/proc/base.c, proc_task_getattr).
      if (statSync(`/proc/${this.#pid}/task`).nlink !== 3) return childrenOf(this.#pid);
      this.#kept ??= new Kept(`/proc/${this.#pid}/task/${this.#pid}/children`);
      return numbersIn(this.#kept.read());
    });
    return children ?? [];
  }

  end(): void {
    this.#kept?.end();
    this.#kept = undefined;
  }
}

const numbersIn = (text: string): number[] => text.split(' ').filter(Boolean).map(Number);

/** A page: no more comes at once, and of a number that does not fit nothing does. Most lists fit. */
const KEPT_BYTES = 4096;
const LONGEST_NUMBER = 16;
const shared = Buffer.alloc(KEPT_BYTES);

/** A file of /proc that stays open: a read from its start makes it anew (seq_file), in a quarter of the time. */
class Kept {
  readonly #file: string;
  readonly #fd: number;

  /** Throws when it is not there. */
  constructor(file: string) {
    this.#file = file;
    this.#fd = openSync(file, 'r');
  }

  read(): string {
    const length = readSync(this.#fd, shared, 0, KEPT_BYTES, 0);
    return length < KEPT_BYTES - LONGEST_NUMBER ? shared.toString('latin1', 0, length) : readText(this.#file);
  }

  end(): void {
    closeSync(this.#fd);
  }
}

/**
 * Was the process started with this variable in its environment? It is inherited, also through setsid and double forks. Undefined: it shows none at all, as
 * those do that are just in execve(2) or exit(2). False when it is another user's. Throws as `readProc` does.
 */
export function hasInEnvironment(pid: number, assignment: string): boolean | undefined {
  let environment = environmentOf(`/proc/${pid}`);
  if (environment === '') for (const thread of threadsOf(pid)) environment ||= environmentOf(thread) ?? '';
  if (environment === undefined) return false;
  return environment === '' ? undefined : `\0${environment}\0`.includes(`\0${assignment}\0`);
}

/** Empty for a thread that has ended, and for its process if it was the first; newer kernels say ESRCH then (fs/proc/base.c: __mem_open), and so of whoever is in exit(2). */
function environmentOf(folder: string): string | undefined {
  return ofSomebody(() => {
    try {
      return readText(`${folder}/environ`);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ESRCH') return '';
      throw error;
    }
  });
}

/**
 * Our descriptors with a flock(2): our own, and those that whoever started us has handed down, as a file backend around us does, so that the lock stays taken while anything
 * of its tree lives. Node hands nothing on by itself. (proc(5): fdinfo names the locks of an open file since Linux 4.1)
 */
export function lockedFds(): number[] {
  return readdirSync('/proc/self/fd')
    .map(Number)
    .filter((fd) => fd > 2 && hasName(fd) && hasLock(fd));
}

/** Most descriptors are Node's own pipes and the like, which nobody else can lock: a look at fdinfo takes ten times as long. */
function hasName(fd: number): boolean {
  try {
    return !/^(pipe|socket|anon_inode):/.test(readlinkSync(`/proc/self/fd/${fd}`));
  } catch {
    return false; // that of the look itself
  }
}

function hasLock(fd: number): boolean {
  try {
    return /^lock:.* FLOCK /m.test(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'));
  } catch {
    return false;
  }
}

let buffer = Buffer.allocUnsafeSlow(4096);

/** In latin1. Files in /proc tell no size, and readFileSync() takes 64 kB anew for each of them: half of what a look at the tree cost. */
function readText(file: string): string {
  const fd = openSync(file, 'r');
  try {
    for (let length = 0; ; ) {
      if (length === buffer.length) buffer = Buffer.concat([buffer], 2 * length);
      const count = readSync(fd, buffer, length, buffer.length - length, null);
      if (count === 0) return buffer.toString('latin1', 0, length);
      length += count;
    }
  } finally {
    closeSync(fd);
  }
}
