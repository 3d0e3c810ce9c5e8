import { constants, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import type koffi from 'koffi';

/**
 * The few calls of libc, and of the libuv inside of Node, for which Node has no API: flock(2), prctl(2), waitpid(2), pidfd_open(2), fcntl(2), poll(2), close_range(2), real-time signals (and posix_spawn(3), in spawn.ts). Loading costs about 6 ms,
 * so it happens when the first of them is needed.
 */
interface Libc {
  flock(fd: number, operation: number): number;
  prctl(option: number, a: number, b: number, c: number, d: number): number;
  waitpid(pid: number, status: [number], options: number): number;
  syscall(number: number, ...typed: unknown[]): number;
  ioctl(fd: number, request: number, ...typed: unknown[]): number;
  fcntl(fd: number, command: number, ...typed: unknown[]): number;
  poll(fds: Buffer, count: number, timeoutMs: number): number;
  errno(): number;
}

let loaded: Libc | undefined;
let ffi: typeof koffi;
let program: ReturnType<typeof koffi.load>;

/** For files with calls of their own (datagrams.ts). */
export function native(): { ffi: typeof koffi; program: ReturnType<typeof koffi.load> } {
  if (!program) {
    ffi = createRequire(import.meta.url)('koffi');
    program = ffi.load(null); // the program itself: Node is linked to the libc of this system, glibc or musl
  }
  return { ffi, program };
}

function libc(): Libc {
  if (!loaded) {
    native();
    loaded = {
      flock: program.func('int flock(int, int)'),
      prctl: program.func('int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long)'),
      waitpid: program.func('int waitpid(int, _Out_ int *, int)'),
      syscall: program.func('long syscall(long, ...)'),
      ioctl: program.func('int ioctl(int, unsigned long, ...)'),
      fcntl: program.func('int fcntl(int, int, ...)'),
      poll: program.func('int poll(_Inout_ void *, unsigned long, int)'),
      errno: ffi.errno,
    };
  }
  return loaded;
}

const { O_NONBLOCK } = constants;
const LOCK_EX = 2;
const LOCK_NB = 4;
const EWOULDBLOCK = 11;

/** Takes the exclusive flock(2) of an open file, without waiting. False: somebody else has it. Throws what the kernel says otherwise (ENOLCK, EINTR …). */
export function tryLock(fd: number): boolean {
  if (libc().flock(fd, LOCK_EX | LOCK_NB) === 0) return true;
  const errno = libc().errno();
  if (errno === EWOULDBLOCK) return false;
  throw Object.assign(new Error(`flock failed with errno ${errno}`), { errno });
}

const F_SETFD = 2;
const F_GETFL = 3;
const F_SETFL = 4;
const FD_CLOEXEC = 1;
const SYS_close_range = 436; // the same number on every architecture, close_range(2), Linux 5.11
const CLOSE_RANGE_CLOEXEC = 4;
const LAST_FD = 0xffffffff;

/**
 * From now on nothing that is started inherits a descriptor beyond stdin, stdout and stderr unless it is handed to it. Node opens its own that way; the C client of ZooKeeper
 * does not, and a socket that we have closed while a child holds it stays in our epoll set (epoll(7), question 6): Node would spin over it, or take
 * its events for those of the next socket with that number.
 */
export function closeOnExec(): void {
  const { fcntl, syscall } = libc();
  const range = ['unsigned int', 3, 'unsigned int', LAST_FD, 'unsigned int', CLOSE_RANGE_CLOEXEC];
  if (syscall(SYS_close_range, ...range) === 0) return;
  for (const name of readdirSync('/proc/self/fd')) {
    if (Number(name) > 2) fcntl(Number(name), F_SETFD, 'int', FD_CLOEXEC);
  }
}

/** What is started meanwhile inherits these descriptors, and finds them such that reads and writes wait, whatever Node or others have made of them. */
export function inherited<T>(fds: number[], act: () => T): T {
  const { fcntl } = libc();
  for (const fd of fds) {
    fcntl(fd, F_SETFD, 'int', 0);
    const flags = fcntl(fd, F_GETFL);
    if (flags & O_NONBLOCK) fcntl(fd, F_SETFL, 'int', flags & ~O_NONBLOCK);
  }
  try {
    return act();
  } finally {
    for (const fd of fds) if (fd > 2) fcntl(fd, F_SETFD, 'int', FD_CLOEXEC);
  }
}

const POLLERR = 8;
const POLLHUP = 16;

/** Whether nobody is left to read what is written to this pipe, socket or terminal (poll(2): POLLERR, POLLHUP). A file always has readers. */
export function isUnread(fd: number): boolean {
  const pollfd = Buffer.alloc(8); // int fd; short events; short revents
  pollfd.writeInt32LE(fd, 0);
  if (libc().poll(pollfd, 1, 0) <= 0) return false;
  return (pollfd.readInt16LE(6) & (POLLERR | POLLHUP)) !== 0;
}

const PR_SET_CHILD_SUBREAPER = 36;

/**
 * From now on a descendant whose parent died becomes our child, not init's (prctl(2), PR_SET_CHILD_SUBREAPER, Linux 3.4): what
 * daemonizes cannot leave the tree while we live. False where the kernel does not do it.
 */
export function becomeSubreaper(): boolean {
  return libc().prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) === 0;
}

const WNOHANG = 1;

/**
 * Takes a dead child of ours out of the process table, and returns its status of wait(2); undefined: it lives. Never to be called for a child that Node started: Node waits for
 * those itself.
 */
export function reap(pid: number): number | undefined {
  const status: [number] = [0];
  return libc().waitpid(pid, status, WNOHANG) === 0 ? undefined : status[0];
}

const SYS_pidfd_open = 434; // the same number on every architecture, pidfd_open(2)
const PIDFD_INFO_EXIT = 1n << 3n;
const PIDFD_INFO_SIZE = 64;
const PIDFD_INFO_EXIT_CODE_OFFSET = 60;
const PIDFD_GET_INFO = 3 * 2 ** 30 + PIDFD_INFO_SIZE * 2 ** 16 + 0xff * 2 ** 8 + 11; // _IOWR(0xFF, 11, struct pidfd_info), linux/pidfd.h

/** A handle on this very process, or undefined before Linux 5.3. */
export function openPidfd(pid: number): number | undefined {
  const fd = libc().syscall(SYS_pidfd_open, 'int', pid, 'unsigned int', 0);
  return fd < 0 ? undefined : fd;
}

/** The raw wait(2) status of a process that was already reaped, or undefined before Linux 6.15. */
export function waitStatusOf(pidfd: number): number | undefined {
  const info = Buffer.alloc(PIDFD_INFO_SIZE);
  info.writeBigUInt64LE(PIDFD_INFO_EXIT, 0);
  if (libc().ioctl(pidfd, PIDFD_GET_INFO, 'void *', info) !== 0) return undefined;
  if ((info.readBigUInt64LE(0) & PIDFD_INFO_EXIT) === 0n) return undefined;
  return info.readInt32LE(PIDFD_INFO_EXIT_CODE_OFFSET);
}

// enum uv_handle_type, uv.h: part of libuv's ABI since 1.0
const UV_POLL = 8;
const UV_SIGNAL = 16;
const UV_READABLE = 1;

/** Calls back at each signal of this number, of those for which Node has no name: libuv itself takes any (uv_signal_t). It does not keep the process alive. */
export function onSignal(signal: number, callback: () => void): void {
  signalCallback ??= native().ffi.pointer(native().ffi.proto('void onSignal(void *handle, int signal)'));
  const { loop, handle } = newHandle(UV_SIGNAL);
  program.func('int uv_signal_init(void *, void *)')(loop, handle);
  const start = program.func('uv_signal_start', 'int', ['void *', signalCallback, 'int']);
  start(handle, ffi.register(callback, signalCallback), signal);
  program.func('void uv_unref(void *)')(handle);
}

let signalCallback: ReturnType<typeof koffi.pointer> | undefined;

/** Calls back, from the event loop, while there is something to be read from this descriptor (uv_poll_t). It does not keep the process alive. */
export function onReadable(fd: number, callback: () => void): void {
  const callbackType = native().ffi.pointer(ffi.proto('void onReadable(void *handle, int status, int events)'));
  const { loop, handle } = newHandle(UV_POLL);
  program.func('int uv_poll_init(void *, void *, int)')(loop, handle, fd);
  const start = program.func('uv_poll_start', 'int', ['void *', 'int', callbackType]);
  // Not within libuv's own callback: what is called may throw.
  start(
    handle,
    UV_READABLE,
    ffi.register(() => setImmediate(callback), callbackType),
  );
  program.func('void uv_unref(void *)')(handle);
}

function newHandle(type: number): { loop: unknown; handle: unknown } {
  const loop = native().program.func('void *uv_default_loop()')();
  const sizeOf = program.func('size_t uv_handle_size(int)');
  return { loop, handle: program.func('void *calloc(size_t, size_t)')(1, sizeOf(type)) };
}
