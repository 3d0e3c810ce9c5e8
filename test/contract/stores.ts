import type { Backend } from '../../src/backend.ts';
import { type Candidate, openBackend } from '../../src/backends/index.ts';
import { ETCD } from './stores/etcd.ts';
import { FILE } from './stores/file.ts';
import { KUBERNETES } from './stores/kubernetes.ts';
import { REDIS } from './stores/redis.ts';
import type { Store, StoreKind } from './stores/store.ts';
import { ZOOKEEPER } from './stores/zookeeper.ts';

export type { Store } from './stores/store.ts';

export const STORES: StoreKind[] = [...FILE, ...ETCD, ...REDIS, ...ZOOKEEPER, ...KUBERNETES];

export async function open(
  store: Store,
  election: string,
  id: string,
  ttlMs: number,
): Promise<{ backend: Backend; candidate: Candidate }> {
  const candidate: Candidate = { election, id, ttlMs, requestMs: 600 };
  return { backend: await openBackend(store.spec, candidate), candidate };
}
