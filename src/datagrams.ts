import type { Koffi } from './koffi.ts';
import { messageHeader, native, onReadable } from './native.ts';

/** AF_UNIX datagrams, for which Node has no API: unix(7), and sd_notify(3) for how the address is written. */
interface Calls {
  socket(domain: number, type: number, protocol: number): number;
  sendto(fd: number, data: Buffer, length: number, flags: number, address: Buffer, addressLength: number): number;
  bind(fd: number, address: Buffer, addressLength: number): number;
  getsockname(fd: number, address: Buffer, addressLength: [number]): number;
  setsockopt(fd: number, level: number, option: number, value: Buffer, length: number): number;
  recvmsg(fd: number, message: object, flags: number): number;
}

let ffi: Koffi;
let loaded: Calls | undefined;

function calls(): Calls {
  if (loaded) return loaded;
  const { program } = native();
  ffi = native().ffi;
  loaded = {
    socket: program.func('int socket(int, int, int)'),
    sendto: program.func('long sendto(int, const void *, size_t, int, const void *, unsigned int)'),
    bind: program.func('int bind(int, const void *, unsigned int)'),
    getsockname: program.func('int getsockname(int, _Out_ uint8_t *, _Inout_ unsigned int *)'),
    setsockopt: program.func('int setsockopt(int, int, int, const void *, unsigned int)'),
    recvmsg: program.func('recvmsg', 'long', ['int', ffi.inout(messageHeader()), 'int']),
  };
  return loaded;
}

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const EAGAIN = 11;
const SOL_SOCKET = 1;
const SO_PASSCRED = 16;

/** Longest path of a sockaddr_un, unix(7). */
const LONGEST_PATH = 108;

function open(): number {
  return calls().socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/** `/path` or `@abstract`; undefined for anything else, which has no place in NOTIFY_SOCKET that we could send to. */
function addressOf(name: string): Buffer | undefined {
  if (!/^[/@]./.test(name)) return undefined;
  const path = Buffer.from(name.startsWith('@') ? `\0${name.slice(1)}` : name);
  if (path.length > LONGEST_PATH) return undefined;
  const family = Buffer.alloc(2);
  new Uint16Array(family.buffer, family.byteOffset, 1)[0] = AF_UNIX;
  return Buffer.concat([family, path]);
}

/** Sends without ever waiting or failing: false when the receiver's queue is full, and only then. */
export type Send = (text: string) => boolean;

export function senderTo(name: string): Send {
  const address = addressOf(name);
  const fd = address ? open() : -1;
  if (!address || fd < 0) return () => true;
  return (text) => {
    const data = Buffer.from(text);
    const sent = calls().sendto(fd, data, data.length, MSG_DONTWAIT | MSG_NOSIGNAL, address, address.length);
    return sent >= 0 || native().ffi.errno() !== EAGAIN;
  };
}

export interface Datagram {
  text: string;
  /** Of the sender, vouched for by the kernel. */
  pid: number;
  uid: number;
}

const LONGEST_DATAGRAM = 4096;

/** A socket with an abstract name of the kernel's choice (autobind, unix(7)), which leaves no file behind. Undefined where there is none to be had. */
export function receiver(receive: (datagram: Datagram) => void): string | undefined {
  const fd = open();
  const { bind, getsockname, setsockopt } = calls();
  const [address, length, on] = [Buffer.alloc(2 + LONGEST_PATH), [0] as [number], Buffer.alloc(4, 1)];
  length[0] = address.length;
  const family = addressOf('@-')!.subarray(0, 2);
  if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, on, on.length) !== 0) return undefined;
  if (bind(fd, family, family.length) !== 0 || getsockname(fd, address, length) !== 0) return undefined;
  onReadable(fd, () => {
    for (let datagram = read(fd); datagram; datagram = read(fd)) receive(datagram);
  });
  return `@${address.toString('latin1', 3, length[0])}`;
}

function read(fd: number): Datagram | undefined {
  const data = Buffer.alloc(LONGEST_DATAGRAM);
  // struct cmsghdr and struct ucred, and no more: descriptors that come along find no room, and the kernel closes them (unix(7), cmsg(3)).
  const headerLength = ffi.sizeof('size_t') + 8;
  const control = Buffer.alloc(headerLength + 12);
  const message = {
    name: null,
    nameLength: 0,
    iov: [{ base: data, length: data.length }],
    iovLength: 1,
    control,
    controlLength: control.length,
    flags: 0,
  };
  const length = calls().recvmsg(fd, message, MSG_DONTWAIT);
  if (length < 0) return undefined;
  const [pid, uid] = new Uint32Array(control.buffer.slice(control.byteOffset + headerLength));
  return { text: data.toString('utf8', 0, length), pid: pid!, uid: uid! };
}
