import { usage } from '../outcome.ts';
import { type BackendUrl, type ConnectionOptions, flagOf, splitUrl, withoutSecret } from './connection.ts';
import { type EtcdSpec, etcdReader } from './etcd/spec.ts';
import { type FileSpec, fileReader } from './file/spec.ts';
import { type KubernetesSpec, kubernetesReader } from './kubernetes/spec.ts';
import { type RedisSpec, redisReader } from './redis/spec.ts';

import { type ZooKeeperSpec, zookeeperReader } from './zookeeper/spec.ts';

/** Which store, and how to reach it: plain data, so that the guard's clean-up can be told. May hold a password. */
export type BackendSpec = EtcdSpec | FileSpec | KubernetesSpec | RedisSpec | ZooKeeperSpec;

/** What a store takes from the command line. Always loaded, so none of it may need the store's library. */
export interface SpecReader<Spec extends BackendSpec> {
  schemes: string[];
  /** How its URL is written, for messages and --help. */
  form: string;
  /** The connection options that have a meaning for it; others are refused. */
  options: (keyof ConnectionOptions)[];
  /** Throws a usage Failure. */
  read(url: BackendUrl, options: ConnectionOptions, env: NodeJS.ProcessEnv): Spec;
  /** Throws a usage Failure when the store cannot hold the name. `shown` is the name as it can be shown. */
  checkElection(election: string, shown: string): void;
}

const READERS: { [Kind in BackendSpec['kind']]: SpecReader<Extract<BackendSpec, { kind: Kind }>> } = {
  file: fileReader,
  etcd: etcdReader,
  redis: redisReader,
  zookeeper: zookeeperReader,
  kubernetes: kubernetesReader,
};

const CONNECTION_OPTIONS: (keyof ConnectionOptions)[] = [
  'cacert',
  'cert',
  'key',
  'user',
  'passwordFile',
  'redisWaitReplicas',
  'zkFlavor',
];

export const BACKEND_FORMS = Object.values(READERS)
  .map(({ form }) => form)
  .join(', ')
  .replace(/, ([^,]*)$/, ' or $1');

export const BACKEND_SCHEMES = Object.values(READERS).flatMap(({ schemes }) => schemes);

/** Throws a usage Failure that names the option, the value and the way out. No request is made. */
export function readBackend(options: ConnectionOptions & { backend: string }, env: NodeJS.ProcessEnv): BackendSpec {
  const url = splitUrl(options.backend);
  const reader = Object.values(READERS).find(({ schemes }) => schemes.includes(url.scheme));
  if (!reader) throw usage(`--backend "${withoutSecret(options.backend)}" is unknown; use ${BACKEND_FORMS}`);
  for (const option of CONNECTION_OPTIONS) {
    if (options[option] === undefined || reader.options.includes(option)) continue;
    const others = Object.values(READERS).filter((other) => other.options.includes(option));
    const suggestion = others.map(({ schemes }) => schemes[0]).join(' or ');
    throw usage(
      `${flagOf(option)} has no meaning for --backend ${reader.schemes[0]}; did you mean --backend ${suggestion}?`,
    );
  }
  return reader.read(url, options, env);
}

export const checkElection = (spec: BackendSpec, election: string, shown: string): void =>
  READERS[spec.kind].checkElection(election, shown);
