import { Kubernetes } from '../../helpers/kubernetes.ts';
import { Redis } from '../../helpers/redis.ts';
import type { Need } from '../../helpers/tools.ts';
import { ZooKeeper } from '../../helpers/zookeeper.ts';

/** A real store that faults can be injected into. */
export interface FaultyStore {
  /** `host:port` of its server. */
  endpoint: string;
  /** What elect-run is told of it, by way of that address or another one. */
  through(endpoint: string): { backend: string; env?: NodeJS.ProcessEnv };
  /** All of it: it keeps its connections and answers nobody. */
  freeze(): Promise<void>;
  thaw(): void;
  kill(): Promise<void>;
  /** Everything as at the beginning, and answering. */
  heal(): Promise<void>;
  /** Takes the leadership from whoever has it, as an operator would. */
  depose(name: string): Promise<void>;
}

export interface FaultyStoreKind {
  name: string;
  needs: Need[];
  start(): Promise<FaultyStore>;
}

export const REDIS: FaultyStoreKind = {
  name: 'redis',
  needs: ['redis'],
  async start() {
    const redis = await Redis.start();
    return {
      endpoint: redis.endpoints[0]!,
      through: (endpoint) => ({ backend: redis.urlThrough(endpoint) }),
      freeze: () => redis.members[0]!.freeze(),
      thaw: () => redis.members[0]!.thaw(),
      kill: () => redis.members[0]!.kill(),
      heal: () => redis.heal(),
      depose: async (name) => void (await redis.cli('del', name)),
    };
  },
};

export const ZOOKEEPER: FaultyStoreKind = {
  name: 'zookeeper',
  needs: ['zookeeper'],
  async start() {
    const zookeeper = await ZooKeeper.start();
    const [server] = zookeeper.members;
    return {
      endpoint: zookeeper.endpoints[0]!,
      through: (endpoint) => ({ backend: zookeeper.urlThrough(endpoint) }),
      freeze: () => server!.freeze(),
      thaw: () => server!.thaw(),
      kill: () => server!.kill(),
      heal: () => zookeeper.heal(),
      depose: async (name) => zookeeper.delete((await zookeeper.line(name))[0]!),
    };
  },
};

export const KUBERNETES: FaultyStoreKind = {
  name: 'kubernetes',
  needs: ['kubeApiserver', 'etcd', 'openssl'],
  async start() {
    const kubernetes = await Kubernetes.start();
    const [server] = kubernetes.members;
    return {
      endpoint: kubernetes.endpoints[0]!,
      through: (endpoint) => ({
        backend: kubernetes.url,
        env: { KUBECONFIG: kubernetes.kubeconfig('app', { endpoint }) },
      }),
      freeze: () => server.freeze(),
      thaw: () => server.thaw(),
      kill: () => server.kill(),
      heal: () => kubernetes.heal(),
      depose: (name) => kubernetes.delete(name),
    };
  },
};
