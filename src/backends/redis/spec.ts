import { usage } from '../../outcome.ts';
import { printable } from '../../text.ts';
import {
  type Auth,
  type BackendUrl,
  type ConnectionOptions,
  mustBeUrl,
  readAuth,
  readEndpoint,
  readTls,
  splitAddress,
  splitUrl,
  type Tls,
  withoutSecret,
} from '../connection.ts';
import type { SpecReader } from '../spec.ts';

export interface RedisSpec {
  kind: 'redis';
  /** `host:port`: of the server, or with `master` of the Sentinels. */
  endpoints: string[];
  /** The name by which the Sentinels know the master. */
  master: string | undefined;
  database: number;
  /** Present: TLS. */
  tls: Tls | undefined;
  /** No username: the password of `requirepass`. */
  auth: Partial<Auth> | undefined;
  /** How many replicas have to confirm what we hold. */
  waitReplicas: number;
}

/** What is called, by us or in a script of ours. */
const COMMANDS = '+eval +get +set +del +pttl +pexpire +time +rpush +blpop';

/** As ACL SETUSER takes it. */
export function rightsFor(election: string, { waitReplicas, database }: RedisSpec): string {
  const keys = [election, ...['token', 'baton', 'runs', 'word'].map((what) => `{${election}}:${what}`)];
  return `${keys.map((key) => `~${key}`).join(' ')} ${COMMANDS}${waitReplicas > 0 ? ' +wait' : ''}${database > 0 ? ' +select' : ''}`;
}

const FORM = 'redis[://host:port[/DB]], rediss://… or redis+sentinel://host:port,…/MASTER';
const SCHEMES = ['redis', 'rediss', 'redis+sentinel', 'rediss+sentinel'];
const MOST_REPLICAS = 100;

export const redisReader: SpecReader<RedisSpec> = {
  schemes: SCHEMES,
  form: 'redis[://host:port]',
  options: ['cacert', 'cert', 'key', 'user', 'passwordFile', 'redisWaitReplicas'],

  read(given, options, env) {
    mustBeUrl(given, FORM);
    const url = given.address === '' && given.credentials === undefined ? fromEnvironment(given, env) : given;
    const { hosts, path } = splitAddress(url.address);
    const isSentinel = url.scheme.endsWith('+sentinel');
    if (isSentinel && (hosts.length === 0 || path === ''))
      throw usage(
        `--backend "${withoutSecret(url.scheme + url.rest)}": write redis+sentinel://host:port,host:port/MASTER`,
      );
    if (!isSentinel && hosts.length > 1)
      throw usage(
        `--backend redis takes one host; for several Sentinels write redis+sentinel://host:port,host:port/MASTER`,
      );
    if (!isSentinel && !/^\d{0,5}$/.test(path))
      throw usage(`--backend redis: "${printable(path)}" is not the number of a database`);
    const tls = readTls(options);
    const isTls = url.scheme.startsWith('rediss') || Object.keys(tls).length > 0;
    return {
      kind: 'redis',
      endpoints: (isSentinel ? hosts : [hosts[0] ?? '127.0.0.1']).map((host) =>
        readEndpoint('redis', host, isSentinel ? 26379 : 6379),
      ),
      master: isSentinel ? path : undefined,
      database: isSentinel ? 0 : Number(path),
      tls: isTls ? tls : undefined,
      auth: readRedisAuth(options, url),
      waitReplicas: readReplicas(options.redisWaitReplicas),
    };
  },

  checkElection(election, shown) {
    if (Buffer.byteLength(election) > 1024) throw usage(`--name "${shown}…" is longer than 1024 bytes`);
    if (/^\{.*\}:(token|baton|runs|word)$/s.test(election))
      throw usage(`--name "${shown}" is a key that elect-run keeps for another election; choose another name`);
  },
};

function fromEnvironment(url: BackendUrl, env: NodeJS.ProcessEnv): BackendUrl {
  if (!env.REDIS_URL) return url;
  const other = splitUrl(env.REDIS_URL);
  if (!SCHEMES.includes(other.scheme) || !other.rest.startsWith('://'))
    throw usage(`REDIS_URL "${withoutSecret(env.REDIS_URL)}": write ${FORM}`);
  return other;
}

/** `:password@` and a password file alone are for the user that Redis calls default. */
function readRedisAuth(options: ConnectionOptions, { credentials }: BackendUrl): RedisSpec['auth'] {
  const isPasswordAlone =
    options.user === undefined && (credentials === undefined || /^(default)?(:|$)/.test(credentials));
  if (!isPasswordAlone) return readAuth('redis', options, credentials);
  if (credentials === undefined && options.passwordFile === undefined) return undefined;
  const { password } = readAuth('redis', options, `default:${credentials?.replace(/^[^:]*:?/, '') ?? ''}`)!;
  return { password };
}

function readReplicas(text: string | undefined): number {
  if (text === undefined) return 0;
  const count = Number(text);
  if (!/^\d{1,3}$/.test(text) || count > MOST_REPLICAS)
    throw usage(`--redis-wait-replicas "${printable(text)}" is not a number of replicas (0 to ${MOST_REPLICAS})`);
  return count;
}
