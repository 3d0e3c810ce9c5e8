import { constants, readdirSync } from 'node:fs';
import { getSystemErrorMap } from 'node:util';
import { type Koffi, loadKoffi } from './koffi.ts';

/**
 * The few calls of libc, and of the libuv inside of Node, for which Node has no API: flock(2), prctl(2), waitpid(2), pidfd_open(2), fcntl(2), poll(2), socketpair(2), close_range(2), real-time signals (and posix_spawn(3), in spawn.ts). What takes them from there
 * is loaded when the first of them is needed.
 */
interface Libc {
  flock(fd: number, operation: number): number;
  prctl(option: number, a: number, b: number, c: number, d: number): number;
  waitpid(pid: number, status: [number], options: number): number;
  syscall(number: number, ...typed: unknown[]): number;
  ioctl(fd: number, request: number, ...typed: unknown[]): number;
  fcntl(fd: number, command: number, ...typed: unknown[]): number;
  poll(fds: Buffer, count: number, timeoutMs: number): number;
  socketpair(domain: number, type: number, protocol: number, fds: Int32Array): number;
  errno(): number;
}

let loaded: Libc | undefined;
let ffi: Koffi;
let program: ReturnType<Koffi['load']>;

/** For files with calls of their own (datagrams.ts). */
export function native(): { ffi: Koffi; program: ReturnType<Koffi['load']> } {
  if (!program) {
    ffi = loadKoffi();
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
      socketpair: program.func('int socketpair(int, int, int, int *)'),
      errno: ffi.errno,
    };
  }
  return loaded;
}

let messageHeader_: ReturnType<Koffi['pointer']> | undefined;

/** A pointer to struct msghdr, for sendmsg(2) and recvmsg(2). */
export function messageHeader(): ReturnType<Koffi['pointer']> {
  if (messageHeader_) return messageHeader_;
  const { ffi } = native();
  const iovec = ffi.struct({ base: 'void *', length: 'size_t' });
  messageHeader_ = ffi.pointer(
    ffi.struct({
      name: 'void *',
      nameLength: 'unsigned int',
      iov: ffi.pointer(iovec),
      iovLength: 'size_t',
      control: 'void *',
      controlLength: 'size_t',
      flags: 'int',
    }),
  );
  return messageHeader_;
}

/** As Node throws them, with a `code`. */
export function systemError(what: string, errno: number): NodeJS.ErrnoException {
  const [code, message] = getSystemErrorMap().get(-errno) ?? [String(errno), 'unknown error'];
  return Object.assign(new Error(`${what}: ${message}`), { code });
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

const F_OFD_GETLK = 36; // linux/fcntl.h, Linux 3.15
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;

/** struct flock, for the whole of a file. Its first field is a short; the others, of whatever width, are 0. */
const wholeFile = (type: number): Int16Array => new Int16Array(32).fill(type, 0, 1);

/**
 * Marks an open file until it is closed, to be seen by `isMarked`: by a shared lock of another kind (fcntl(2), open file description locks), which keeps nobody out and has nothing to do
 * with flock(2). Where there are no such locks it is not marked.
 */
export function mark(fd: number): void {
  libc().fcntl(fd, F_OFD_SETLK, 'void *', wholeFile(F_RDLCK));
}

/** Whether somebody has this file open and marked, in whatever container. The kernel is asked for a lock of this kind, none is tried. */
export function isMarked(fd: number): boolean {
  const found = wholeFile(F_WRLCK);
  return libc().fcntl(fd, F_OFD_GETLK, 'void *', found) === 0 && found[0] !== F_UNLCK;
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

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;

/** Two ends of one connection: ours, which never waits, and one to be handed to a child. */
export function socketPair(): { ours: number; theirs: number } {
  const { socketpair, fcntl, errno } = libc();
  const fds = new Int32Array(2);
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) !== 0) throw systemError('socketpair', errno());
  const [ours, theirs] = [fds[0]!, fds[1]!];
  fcntl(ours, F_SETFL, 'int', fcntl(ours, F_GETFL) | O_NONBLOCK);
  return { ours, theirs };
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

// enum uv_handle_type and enum uv_poll_event, uv.h: part of libuv's ABI since 1.0
const UV_POLL = 8;
const UV_SIGNAL = 16;
const UV_READABLE = 1;

interface Uv {
  loop: unknown;
  newHandle(type: number): unknown;
  unref(handle: unknown): void;
  signalInit(loop: unknown, handle: unknown): number;
  signalStart(handle: unknown, callback: unknown, signal: number): number;
  pollInit(loop: unknown, handle: unknown, fd: number): number;
  pollStart(handle: unknown, events: number, callback: unknown): number;
  pollStop(handle: unknown): number;
  close(handle: unknown, whenClosed: unknown): void;
  onSignal: ReturnType<Koffi['pointer']>;
  onPoll: ReturnType<Koffi['pointer']>;
  /** free(3), to be called by libuv. */
  free: unknown;
}

let uv_: Uv | undefined;

function uv(): Uv {
  uv_ ??= loadUv();
  return uv_;
}

function loadUv(): Uv {
  const { ffi, program } = native();
  const onSignal = ffi.pointer(ffi.proto('void onSignal(void *handle, int signal)'));
  const onPoll = ffi.pointer(ffi.proto('void onPoll(void *handle, int status, int events)'));
  const calloc = program.func('void *calloc(size_t, size_t)');
  const sizeOf = program.func('size_t uv_handle_size(int)');
  return {
    loop: program.func('void *uv_default_loop()')(),
    newHandle: (type) => calloc(1, sizeOf(type)),
    unref: program.func('void uv_unref(void *)'),
    signalInit: program.func('int uv_signal_init(void *, void *)'),
    signalStart: program.func('uv_signal_start', 'int', ['void *', onSignal, 'int']),
    pollInit: program.func('int uv_poll_init(void *, void *, int)'),
    pollStart: program.func('uv_poll_start', 'int', ['void *', 'int', onPoll]),
    pollStop: program.func('int uv_poll_stop(void *)'),
    close: program.func('void uv_close(void *, void *)'),
    onSignal,
    onPoll,
    free: program.symbol('free', 'void'),
  };
}

/** Calls back, from the event loop, at each of these signals, for which Node has no name: libuv itself takes any (uv_signal_t). It does not keep the process alive. */
export function onSignals(signals: number[], callback: (signal: number) => void): void {
  const { loop, newHandle, unref, signalInit, signalStart, onSignal } = uv();
  const called = native().ffi.register((_handle: unknown, signal: number) => callback(signal), onSignal);
  for (const signal of signals) {
    const handle = newHandle(UV_SIGNAL);
    signalInit(loop, handle);
    signalStart(handle, called, signal);
    unref(handle);
  }
}

/**
 * Calls back, from the event loop, while there is something to be read from this descriptor, or its other end is closed (uv_poll_t). It does not keep the process alive.
 * What is returned ends it, before the descriptor is closed.
 */
export function onReadable(fd: number, callback: () => void): () => void {
  const { loop, newHandle, unref, pollInit, pollStart, pollStop, close, onPoll, free } = uv();
  const { ffi } = native();
  let isOver = false;
  const handle = newHandle(UV_POLL);
  // Not within libuv's own callback: what is called may throw.
  const called = ffi.register(() => setImmediate(() => isOver || callback()), onPoll);
  pollInit(loop, handle, fd);
  pollStart(handle, UV_READABLE, called);
  unref(handle);
  return () => {
    if (isOver) return;
    isOver = true;
    pollStop(handle);
    close(handle, free);
    ffi.unregister(called);
  };
}
