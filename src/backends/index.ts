import type { Backend } from '../backend.ts';
import { FileBackend } from './file.ts';
import type { BackendSpec } from './spec.ts';

/** What a candidate shows of itself. */
export interface Candidate {
  election: string;
  /** Unique to this process; one line. */
  id: string;
  /** The lease to ask for. */
  ttlMs: number;
  /** How long a single request may take. */
  requestMs: number;
}

/** Opens a store. Its library, where it has one, is loaded here, and only that of the store that was chosen. */
export async function openBackend(spec: BackendSpec, candidate: Candidate): Promise<Backend> {
  switch (spec.kind) {
    case 'file':
      return new FileBackend(spec, candidate);
    case 'etcd':
      return new (await import('./etcd.ts')).EtcdBackend(spec, candidate);
    case 'redis':
      return new (await import('./redis.ts')).RedisBackend(spec, candidate);
    case 'kubernetes':
      return new (await import('./kubernetes.ts')).KubernetesBackend(spec, candidate);
    case 'zookeeper':
      return new (await import('./zookeeper.ts')).ZooKeeperBackend(spec, candidate);
  }
}
