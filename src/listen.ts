import { usage } from './outcome.ts';
import { printable } from './text.ts';

/** Where --listen listens. Port 0: the kernel chooses one. */
export interface ListenAddress {
  host: string;
  port: number;
}

const LOOPBACK = '127.0.0.1';
const FORM = /^(?:(?<host>\[[\da-f:.]+\]|[\w.-]+)?:)?(?<port>\d{1,5})$/i;

/** `9100`, `:9100`, `0.0.0.0:9100`, `[::1]:9100`: loopback unless said otherwise. Throws a usage Failure. */
export function readListen(text: string): ListenAddress {
  const { host = LOOPBACK, port } = FORM.exec(text)?.groups ?? {};
  if (port === undefined || Number(port) > 65_535)
    throw usage(
      `--listen "${printable(text).slice(0, 80)}" is not an address; write a port for this host only, as 9100, or as in 0.0.0.0:9100`,
    );
  return { host: host.replace(/^\[|\]$/g, ''), port: Number(port) };
}
