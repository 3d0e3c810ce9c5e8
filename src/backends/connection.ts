import { readFileSync } from 'node:fs';
import { usage } from '../outcome.ts';
import { printable } from '../text.ts';

/** The options that say how to reach a store, as the command line or ELECT_RUN_* gave them. */
export interface ConnectionOptions {
  cacert?: string;
  cert?: string;
  key?: string;
  user?: string;
  passwordFile?: string;
  redisWaitReplicas?: string;
  zkFlavor?: string;
}

/** PEM texts. */
export interface Tls {
  ca?: string;
  cert?: string;
  key?: string;
}

export interface Auth {
  username: string;
  password: string;
}

/** What the system's codes for a failed connection mean. */
export const NETWORK_TROUBLES: Record<string, string> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset',
  ENOTFOUND: 'no such host',
  EAI_AGAIN: 'no such host',
  ETIMEDOUT: 'no answer in time',
  EPIPE: 'connection reset',
};

/** `scheme://credentials@address`, or the scheme alone. */
export interface BackendUrl {
  scheme: string;
  /** Everything after the scheme, as it was given. May hold a password. */
  rest: string;
  credentials: string | undefined;
  /** Hosts, and what follows them. Empty: the scheme alone. */
  address: string;
}

export function splitUrl(text: string): BackendUrl {
  const scheme = /^[a-z0-9+]+/i.exec(text)?.[0] ?? '';
  const rest = text.slice(scheme.length);
  const [, credentials, address] = /^(?:(.*)@)?(.*)$/s.exec(rest.replace(/^:\/\//, ''))!;
  return { scheme, rest, credentials, address: address! };
}

/** `redis://u:p@h` → `redis://h`: what is wrong with a URL can be shown without its password. */
export const withoutSecret = (url: string): string => printable(url.replace(/^([^:]*:\/*).*@/s, '$1'));

/** `h1:1,h2:2/path` → the hosts and, without its slash, the path. */
export function splitAddress(address: string): { hosts: string[]; path: string } {
  const [, hosts, path = ''] = /^([^/]*)(?:\/(.*))?$/s.exec(address)!;
  return { hosts: hosts!.split(',').filter(Boolean), path };
}

/** A flag as the user writes it. */
export const flagOf = (option: string): string =>
  `--${option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** `scheme` alone, or `scheme://…`. */
export function mustBeUrl({ scheme, rest }: BackendUrl, form: string): void {
  if (rest !== '' && !rest.startsWith('://')) throw usage(`--backend "${withoutSecret(scheme + rest)}": write ${form}`);
}

/** `host`, `host:port`, `[::1]:port` → `host:port`. Numbers that are no address (`256.1.1.1`) are not taken for a name: a URL refuses them as well. */
export function readEndpoint(store: string, text: string, defaultPort: number): string {
  const match = /^(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?$/i.exec(text);
  const port = Number(match?.[2] ?? defaultPort);
  if (!match || port < 1 || port > 65535 || !URL.canParse(`http://${match[1]}`))
    throw usage(`--backend ${store}: "${withoutSecret(`:${text}`).slice(1)}" is not host:port`);
  return `${match[1]}:${port}`;
}

export function splitEndpoint(endpoint: string): { host: string; port: number } {
  const [, host, port] = /^(.*):(\d+)$/.exec(endpoint)!;
  return { host: host!.replace(/^\[|\]$/g, ''), port: Number(port) };
}

export function readTls({ cacert, cert, key }: ConnectionOptions): Tls {
  if ((cert === undefined) !== (key === undefined))
    throw usage('--cert and --key belong together; give both or neither');
  const tls = {
    ...(cacert ? { ca: readPem('--cacert', cacert) } : {}),
    ...(cert ? { cert: readPem('--cert', cert) } : {}),
    ...(key ? { key: readPem('--key', key) } : {}),
  };
  if (!tls.ca && !tls.cert) return tls;
  const { createPrivateKey, X509Certificate } = process.getBuiltinModule('node:crypto'); // takes some 4 ms to load
  if (tls.ca) usable('--cacert', cacert!, () => new X509Certificate(tls.ca!));
  if (!tls.cert || !tls.key) return tls;
  if (/^-----BEGIN ENCRYPTED|^Proc-Type: .*ENCRYPTED/m.test(tls.key))
    throw usage(`--key ${printable(key!)} is encrypted; give one without a passphrase`);
  const certificate = usable('--cert', cert!, () => new X509Certificate(tls.cert!));
  const privateKey = usable('--key', key!, () => createPrivateKey(tls.key!));
  if (!certificate.checkPrivateKey(privateKey))
    throw usage(`--key ${printable(key!)} is not the key of --cert ${printable(cert!)}`);
  return tls;
}

/** Of a broken certificate a server would hear nothing, and we only that it wants one. */
function usable<T>(option: string, file: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    const [, reason] = /routines:[^:]*:(.+)/.exec((error as Error).message) ?? [];
    throw usage(`${option} ${printable(file)} cannot be used: ${printable(reason ?? (error as Error).message)}`);
  }
}

/** From --user, else from the URL, else from `fallback` (`user` or `user:password`); the password from --password-file, else from there. */
export function readAuth(
  store: string,
  options: ConnectionOptions,
  inUrl: string | undefined,
  fallback: { user?: string | undefined; password?: string | undefined; passwordVariable?: string } = {},
): Auth | undefined {
  const user = options.user ?? (inUrl === undefined ? undefined : unescapeUrl(store, inUrl)) ?? fallback.user;
  const fromFile =
    options.passwordFile === undefined
      ? undefined
      : readText('--password-file', options.passwordFile).replace(/\r?\n$/, '');
  if (user === undefined || user === '') return undefined;
  const [username, ...rest] = user.split(':');
  const password = fromFile ?? (rest.length > 0 ? rest.join(':') : fallback.password);
  if (password === undefined) {
    const variable = fallback.passwordVariable ? `, or ${fallback.passwordVariable} in the environment` : '';
    throw usage(`--user: no password; give --password-file FILE${variable}`);
  }
  return { username: username!, password };
}

function unescapeUrl(store: string, text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw usage(`--backend ${store}: a "%" in the user or password has to be written %25`);
  }
}

function readText(option: string, file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw usage(`${option} ${printable(file)} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
}

function readPem(option: string, file: string): string {
  const text = readText(option, file);
  if (!text.includes('-----BEGIN ')) throw usage(`${option} ${printable(file)} is not a PEM file`);
  return text;
}
