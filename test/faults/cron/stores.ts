import { Etcd } from '../../helpers/etcd.ts';
import { newFolder } from '../../helpers/folders.ts';
import type { Need } from '../../helpers/tools.ts';
import { type FaultyStoreKind, KUBERNETES, REDIS, ZOOKEEPER } from '../every-store/stores.ts';

/** A real store, as hosts with a schedule see it. */
export interface CronStore {
  /** `host:port`; undefined: nothing that a host could be cut off from. */
  endpoint: string | undefined;
  /** What elect-run is told of it, by way of that address or another one. */
  access(endpoint?: string): { backend: string; env?: NodeJS.ProcessEnv };
  heal(): Promise<void>;
}

export interface CronStoreKind {
  name: string;
  needs: Need[];
  start(): Promise<CronStore>;
}

const FILE: CronStoreKind = {
  name: 'file',
  needs: [],
  async start() {
    const dir = newFolder('cron');
    return { endpoint: undefined, access: () => ({ backend: `file:${dir}` }), heal: async () => {} };
  },
};

const ETCD: CronStoreKind = {
  name: 'etcd',
  needs: ['etcd', 'etcdctl'],
  async start() {
    const etcd = await Etcd.start();
    const [endpoint] = etcd.endpoints;
    return {
      endpoint,
      access: (through = endpoint!) => ({ backend: `etcd://${through}` }),
      heal: () => etcd.heal(),
    };
  },
};

const withFaults = (kind: FaultyStoreKind): CronStoreKind => ({
  ...kind,
  async start() {
    const store = await kind.start();
    return {
      endpoint: store.endpoint,
      access: (through = store.endpoint) => store.through(through),
      heal: () => store.heal(),
    };
  },
});

export const CRON_STORES = {
  file: FILE,
  etcd: ETCD,
  redis: withFaults(REDIS),
  zookeeper: withFaults(ZOOKEEPER),
  kubernetes: withFaults(KUBERNETES),
};
