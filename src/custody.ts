import { readSync } from 'node:fs';
import { messageHeader, native, socketPair, systemError } from './native.ts';

const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const INT_BYTES = 4;

/**
 * Open files that others hold together with us, for as long as any of them lives: they lie in a socket that nobody reads (SCM_RIGHTS, unix(7)). Whoever has inherited the socket holds what is put
 * there later, too, and we can take it back from all of them.
 */
export class Custody {
  /** To be inherited. */
  readonly fd: number;
  readonly #ours: number;
  #isHolding = false;

  constructor() {
    const { ours, theirs } = socketPair();
    this.#ours = ours;
    this.fd = theirs;
  }

  /** With its lock (flock(2)). Throws when the kernel has no room for it. */
  hold(fd: number): void {
    if (this.#isHolding) return;
    send(this.#ours, fd);
    this.#isHolding = true;
  }

  /** Nobody but us holds it any more, unless it was inherited as such. */
  letGo(): void {
    if (!this.#isHolding) return;
    readSync(this.fd, Buffer.alloc(1)); // read(2) closes what comes along
    this.#isHolding = false;
  }
}

let sendmsg: ReturnType<ReturnType<typeof native>['program']['func']> | undefined;

function send(socket: number, fd: number): void {
  const { ffi, program } = native();
  sendmsg ??= program.func('sendmsg', 'long', ['int', messageHeader(), 'int']);
  const lengthBytes = ffi.sizeof('size_t');
  const control = Buffer.alloc(lengthBytes + 3 * INT_BYTES); // struct cmsghdr, and one descriptor (cmsg(3))
  const header = new DataView(control.buffer, control.byteOffset);
  const isLittle = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1;
  header.setUint32(isLittle ? 0 : lengthBytes - INT_BYTES, control.length, isLittle);
  for (const [index, value] of [SOL_SOCKET, SCM_RIGHTS, fd].entries())
    header.setInt32(lengthBytes + index * INT_BYTES, value, isLittle);
  const message = {
    name: null,
    nameLength: 0,
    iov: [{ base: Buffer.alloc(1), length: 1 }],
    iovLength: 1,
    control,
    controlLength: control.length,
    flags: 0,
  };
  if (sendmsg(socket, message, 0) < 0) throw systemError('the guard cannot hold the lock', ffi.errno());
}
