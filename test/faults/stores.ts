import type { Need } from '../helpers/needs.ts';
import { Redis } from '../helpers/redis.ts';

/** A real store that faults can be injected into. */
export interface FaultyStore {
  /** As elect-run's --backend takes it. */
  url: string;
  env?: NodeJS.ProcessEnv;
  /** Its server, and the URL that goes to it by way of another address. */
  endpoint: string;
  urlThrough(endpoint: string): string;
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

export const FAULTY_STORES: FaultyStoreKind[] = [
  {
    name: 'redis',
    needs: ['redis'],
    async start() {
      const redis = await Redis.start();
      return {
        url: redis.url,
        endpoint: redis.endpoints[0]!,
        urlThrough: (endpoint) => redis.urlThrough(endpoint),
        freeze: () => redis.members[0]!.freeze(),
        thaw: () => redis.members[0]!.thaw(),
        kill: () => redis.members[0]!.kill(),
        heal: () => redis.heal(),
        depose: async (name) => void (await redis.cli('del', name)),
      };
    },
  },
];
