import { usage } from '../../outcome.ts';
import { type Auth, mustBeUrl, readAuth, readEndpoint, readTls, type Tls } from '../connection.ts';
import type { SpecReader } from '../spec.ts';

export interface EtcdSpec {
  kind: 'etcd';
  /** `host:port` */
  endpoints: string[];
  /** Present: TLS. */
  tls: Tls | undefined;
  auth: Auth | undefined;
}

/** Above the run records, which must not stand in any election's line. */
export const BOOKS = 'elect-run-runs';
/** Above the words that are left for leaders. */
export const WORDS = 'elect-run-words';
/** Above what observers are told of a leader. */
export const LEADERS = 'elect-run-leaders';

export const etcdReader: SpecReader<EtcdSpec> = {
  schemes: ['etcd', 'etcds'],
  form: 'etcd[://host:port,…]',
  options: ['cacert', 'cert', 'key', 'user', 'passwordFile'],

  read(url, options, env) {
    mustBeUrl(url, 'etcd or etcd://host:port,host:port');
    const list = (url.address || env.ETCDCTL_ENDPOINTS || '127.0.0.1:2379').split(',').filter(Boolean);
    const files = {
      ...options,
      cacert: options.cacert ?? env.ETCDCTL_CACERT,
      cert: options.cert ?? env.ETCDCTL_CERT,
      key: options.key ?? env.ETCDCTL_KEY,
    };
    const isTls =
      url.scheme === 'etcds' ||
      [files.cacert, files.cert].some(Boolean) ||
      list.some((host) => host.startsWith('https://'));
    const tls = readTls(files as typeof options);
    return {
      kind: 'etcd',
      endpoints: list.map((host) => readEndpoint('etcd', host.replace(/^https?:\/\//, '').replace(/\/$/, ''), 2379)),
      tls: isTls ? tls : undefined,
      auth: readAuth('etcd', options, url.credentials, {
        user: env.ETCDCTL_USER,
        password: env.ETCDCTL_PASSWORD,
        passwordVariable: 'ETCDCTL_PASSWORD',
      }),
    };
  },

  checkElection(election, shown) {
    if (/^\/*$/.test(election) || election.endsWith('/'))
      throw usage(`--name "${shown}" must not end with "/": elect-run adds it`);
    if ([BOOKS, LEADERS, WORDS].some((kept) => election === kept || election.startsWith(`${kept}/`)))
      throw usage(`--name "${shown}" is where elect-run keeps records of its own; choose another name`);
    if (Buffer.byteLength(election) > 1024) throw usage(`--name "${shown}…" is longer than 1024 bytes`);
  },
};
