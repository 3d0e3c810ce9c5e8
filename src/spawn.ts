import { awaited } from './awaited.ts';
import { closeOnExec, inherited, native, reap, systemError } from './native.ts';

export interface Program {
  file: string;
  /** Its own name first. */
  argv: string[];
  env: NodeJS.ProcessEnv;
  /** A session, and so a process group, of its own. */
  ownSession: boolean;
  /** Its stdin, stdout and stderr: descriptors of ours, each of them this very one or a number above 2; undefined: /dev/null. */
  stdio: readonly [number | undefined, number | undefined, number | undefined];
  /** What it inherits beside them, as 3, 4 ... */
  fds?: number[];
  /** Instead of ours, where libc can do it. */
  directory?: string;
}

/** The command line by which the kernel kills it when our main thread ends in any way (PR_SET_PDEATHSIG). `setpriv`: one of `findSetpriv`. */
export const tethered = (setpriv: string, argv: string[]): string[] => [setpriv, '--pdeathsig', 'KILL', '--', ...argv];

export const OURS = [0, 1, 2] as const;
export const NOTHING = [undefined, undefined, undefined] as const;

/**
 * Starts a program with every signal unblocked and at its default. Node's own way, fork(2), copies the page tables of a process of 70 MB, and execa adds as much again;
 * posix_spawn(3) is a vfork, for which we wait until its exec. Throws when it cannot be started. `ended` resolves with the status of wait(2), when it is no zombie any more.
 */
export function spawnProgram(program: Program): { pid: number; ended: Promise<number> } {
  const { file, argv, env, ownSession, stdio, fds = [], directory } = program;
  const { spawn, actionsFor, forget, attributes } = libc();
  closeOnExec();
  const pid: [number] = [0];
  // In ascending order none is overwritten before it was copied.
  const others = [...new Set(fds)].sort((a, b) => a - b);
  const moves = [...stdio, ...others].map((fd, as) => ({ fd, as }));
  const actions = actionsFor(moves, directory);
  const assignments = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  const staying = moves.filter(({ fd, as }) => fd === as).map(({ as }) => as);
  const error = inherited(staying, () =>
    spawn(pid, file, actions, attributes[ownSession ? 1 : 0], terminated(argv), terminated(assignments)),
  );
  forget(actions);
  if (error) throw systemError(file, error);
  awaited.add(pid[0]);
  return { pid: pid[0], ended: whenEnded(pid[0]) };
}

const SHORTAGES = ['EAGAIN', 'ENOMEM', 'EMFILE', 'ENFILE', 'ETOOMANYREFS'];

/** It could not be started for want of processes, memory or descriptors (also of those that are under way, unix(7)): that passes. */
export const isShortage = (error: unknown): boolean => SHORTAGES.includes((error as NodeJS.ErrnoException).code ?? '');

/** For how long to wait before it is tried again. */
export const SHORTAGE_MS = 100;
/** For how long to try, where nothing else sets an end. */
export const LONGEST_SHORTAGE_MS = 5000;

function whenEnded(pid: number): Promise<number> {
  return new Promise((resolve) => {
    const look = () => {
      const status = reap(pid);
      if (status === undefined) return;
      process.off('SIGCHLD', look);
      awaited.delete(pid);
      resolve(status);
    };
    process.prependListener('SIGCHLD', look);
    look(); // it may have ended before we listened
  });
}

const O_RDWR = 2;
const SETSIGDEF = 0x04; // spawn.h: the same in glibc and musl, as those that follow
const SETSIGMASK = 0x08;
const SETSID = 0x80;
/** No posix_spawnattr_t, posix_spawn_file_actions_t or sigset_t is as large. */
const ROOM = 1024;

type Strings = (string | null)[];
const terminated = (strings: string[]): Strings => [...strings, null];

interface Libc {
  spawn(pid: [number], file: string, actions: Buffer, attributes: Buffer, argv: Strings, env: Strings): number;
  actionsFor(moves: { fd: number | undefined; as: number }[], directory: string | undefined): Buffer;
  forget(actions: Buffer): void;
  /** In our session; in one of its own. */
  attributes: [Buffer, Buffer];
}

let loaded: Libc | undefined;

function libc(): Libc {
  loaded ??= load();
  return loaded;
}

function load(): Libc {
  const { program } = native();
  const made = (fill: (room: Buffer) => void): Buffer => {
    const room = Buffer.alloc(ROOM);
    fill(room);
    return room;
  };
  const all = Buffer.alloc(ROOM, 0xff); // sigfillset(3) leaves out two of glibc's own, which would then be ignored
  const none = Buffer.alloc(ROOM);
  const initActions = program.func('int posix_spawn_file_actions_init(void *)');
  const addDup2 = program.func('int posix_spawn_file_actions_adddup2(void *, int, int)');
  const addOpen = program.func('int posix_spawn_file_actions_addopen(void *, int, const char *, int, unsigned int)');
  const addChdir = ifThere(
    () => program.func('int posix_spawn_file_actions_addchdir_np(void *, const char *)'), // glibc 2.29, musl 1.1.24
  );
  const initAttributes = program.func('int posix_spawnattr_init(void *)');
  const setDefault = program.func('int posix_spawnattr_setsigdefault(void *, void *)');
  const setMask = program.func('int posix_spawnattr_setsigmask(void *, void *)');
  const setFlags = program.func('int posix_spawnattr_setflags(void *, short)');
  const attributes = (flags: number) =>
    made((room) => {
      initAttributes(room);
      setDefault(room, all);
      setMask(room, none);
      setFlags(room, SETSIGDEF | SETSIGMASK | flags);
    });
  return {
    spawn: program.func('int posix_spawn(_Out_ int *, const char *, void *, void *, const char **, const char **)'),
    actionsFor: (moves, directory) =>
      made((room) => {
        initActions(room);
        if (directory !== undefined) addChdir?.(room, directory);
        for (const { fd, as } of moves) {
          if (fd === undefined) addOpen(room, as, '/dev/null', O_RDWR, 0);
          else if (fd !== as) addDup2(room, fd, as);
        }
      }),
    forget: program.func('int posix_spawn_file_actions_destroy(void *)'),
    attributes: [attributes(0), attributes(SETSID)],
  };
}

function ifThere<T>(find: () => T): T | undefined {
  try {
    return find();
  } catch {
    return undefined;
  }
}
