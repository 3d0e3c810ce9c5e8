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

/** Undefined when there is no such process, or only its zombie: dead means dead. */
export function readProc(pid: number): Proc | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // The command's name stands in parentheses and may itself contain spaces and parentheses.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  if (isDead(fields[0]) || Number(fields[6]) & PF_KTHREAD) return undefined;
  return {
    pid,
    parent: Number(fields[1]),
    group: Number(fields[2]),
    session: Number(fields[3]),
    startedAt: fields[19]!,
  };
}

const isDead = (state: string | undefined) => state === 'Z' || state === 'X' || state === 'x';

export function readAllProcs(): Proc[] {
  const procs: Proc[] = [];
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    const proc = Number.isInteger(pid) ? readProc(pid) : undefined;
    if (proc) procs.push(proc);
  }
  return procs;
}

/** Is this very process alive? */
export function isAlive({ pid, startedAt }: Pick<Proc, 'pid' | 'startedAt'>): boolean {
  return readProc(pid)?.startedAt === startedAt;
}

/**
 * Our children, zombies included, or undefined where the kernel was built without CONFIG_PROC_CHILDREN. All of them are the main thread's: it
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

/** Zombies included, of all its threads; none where the kernel does not tell. */
export function childrenOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((thread) =>
      numbersIn(readFileSync(`/proc/${pid}/task/${thread}/children`, 'latin1')),
    );
  } catch {
    return [];
  }
}

/** As `childrenOf`, for one that is asked for again and again. Until `end` it costs a descriptor. */
export class Children {
  readonly #pid: number;
  #kept: Kept | undefined;

  constructor(pid: number) {
    this.#pid = pid;
  }

  read(): number[] {
    try {
      // Two links, and one for each thread (fs/proc/base.c, proc_task_getattr).
      if (statSync(`/proc/${this.#pid}/task`).nlink !== 3) return childrenOf(this.#pid);
      this.#kept ??= new Kept(`/proc/${this.#pid}/task/${this.#pid}/children`);
      return numbersIn(this.#kept.read());
    } catch {
      return [];
    }
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
    return length < KEPT_BYTES - LONGEST_NUMBER
      ? shared.toString('latin1', 0, length)
      : readFileSync(this.#file, 'latin1');
  }

  end(): void {
    closeSync(this.#fd);
  }
}

/** Was the process started with this variable in its environment? It is inherited, also through setsid and double forks. */
export function hasInEnvironment(pid: number, assignment: string): boolean {
  try {
    return `\0${readFileSync(`/proc/${pid}/environ`, 'latin1')}\0`.includes(`\0${assignment}\0`);
  } catch {
    return false;
  }
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
