import { usage } from '../../outcome.ts';
import { CONTROL, printable } from '../../text.ts';
import { type Auth, mustBeUrl, readAuth, readEndpoint, splitAddress } from '../connection.ts';
import type { SpecReader } from '../spec.ts';

/** Whose line it is: the native recipe beside which we stand. */
export const FLAVORS = ['curator-latch', 'curator-lock', 'kazoo'] as const;
export type Flavor = (typeof FLAVORS)[number];

export interface ZooKeeperSpec {
  kind: 'zookeeper';
  /** `host:port` */
  endpoints: string[];
  /** `/a/b`, or empty: all paths lie below it. */
  chroot: string;
  flavor: Flavor;
  /** The scheme `digest`. */
  auth: Auth | undefined;
}

/** Above the run records, which must not stand in any election's line. */
export const BOOKS = 'elect-run-runs';
/** Above the words that are left for leaders. */
export const WORDS = 'elect-run-words';

const DEFAULT_PORT = 2181;
const FORM = 'zookeeper or zookeeper://host:port,host:port/chroot';

export const zookeeperReader: SpecReader<ZooKeeperSpec> = {
  schemes: ['zookeeper', 'zk'],
  form: 'zookeeper[://host:port,…/chroot]',
  options: ['user', 'passwordFile', 'zkFlavor'],

  read(url, options, env) {
    mustBeUrl(url, FORM);
    const { hosts, path } = splitAddress(url.address);
    const fromEnv = splitAddress(env.ZOO_SERVERS?.includes('=') ? '' : (env.ZOO_SERVERS ?? ''));
    const servers = [hosts, serversOf(env.ZOO_SERVERS), fromEnv.hosts, ['127.0.0.1']].find(({ length }) => length > 0)!;
    const chroot = (path || (hosts.length > 0 ? '' : fromEnv.path)).replace(/\/+$/, '');
    const wrong = chroot === '' ? undefined : whatIsWrong(chroot);
    if (wrong) throw usage(`--backend zookeeper: the chroot "/${printable(chroot)}" ${wrong}`);
    const flavor = FLAVORS.find((one) => one === (options.zkFlavor ?? FLAVORS[0]));
    if (!flavor) throw usage(`--zk-flavor "${printable(options.zkFlavor!)}" is not one of ${FLAVORS.join(', ')}`);
    return {
      kind: 'zookeeper',
      endpoints: servers.map((host) => readEndpoint('zookeeper', host.trim(), DEFAULT_PORT)),
      chroot: chroot && `/${chroot}`,
      flavor,
      auth: readAuth('zookeeper', options, url.credentials),
    };
  },

  checkElection(election, shown) {
    const name = election.replace(/^\//, '');
    const wrong = whatIsWrong(name) ?? (/^zookeeper(\/|$)/.test(name) ? 'is ZooKeeper’s own' : undefined);
    if (wrong) throw usage(`--name "${shown}" ${wrong}; ZooKeeper takes it for the path of a znode`);
    if ([BOOKS, WORDS].some((kept) => name === kept || name.startsWith(`${kept}/`)))
      throw usage(`--name "${shown}" is where elect-run keeps records of its own; choose another name`);
    if (Buffer.byteLength(name) > 1024) throw usage(`--name "${shown}…" is longer than 1024 bytes`);
  },
};

/** The form of docker's image: `server.1=host:2888:3888;2181 server.2=…`. The client's port follows the semicolon, after an address if one is given. */
function serversOf(list: string | undefined): string[] {
  if (!list?.includes('=')) return [];
  return list
    .split(/\s+/)
    .filter(Boolean)
    .map((server) => {
      const [, host, client = ''] = /^[^=]*=(\[[^\]]*\]|[^:;]*)[^;]*(?:;(.*))?$/.exec(server) ?? [undefined, server];
      return `${host}:${/(\d*)$/.exec(client)![1] || DEFAULT_PORT}`;
    });
}

/** PathUtils.validatePath() of ZooKeeper: what it refuses. */
function whatIsWrong(path: string): string | undefined {
  const parts = path.split('/');
  if (parts.includes('')) return 'has an empty part ("//", or "/" at its end)';
  if (parts.includes('.') || parts.includes('..')) return 'has a part "." or ".."';
  if (CONTROL.test(path) || FORBIDDEN.test(path)) return 'has a character that no path may have';
  return undefined;
}

/** Beside control characters: those beyond 16 bits, or halves of them, as Java counts; and those for private use. */
const FORBIDDEN = /[\ud800-\uf8ff\ufff0-\uffff]/;
