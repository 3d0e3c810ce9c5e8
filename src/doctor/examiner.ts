import type { EtcdHealth } from '../backends/etcd/health.ts';
import type { FileHealth } from '../backends/file/health.ts';
import type { KubernetesHealth } from '../backends/kubernetes/health.ts';
import type { RedisHealth } from '../backends/redis/health.ts';
import type { BackendSpec } from '../backends/spec.ts';
import type { ZooKeeperHealth } from '../backends/zookeeper/health.ts';

/** One server, asked by itself. */
export interface Answer {
  endpoint: string;
  /** How long an answer took on an open connection. */
  tookMs: number | undefined;
  /** Why there is none. */
  problem: string | undefined;
  /** In ms since 1970: until when its certificate is valid. */
  validUntil?: number | undefined;
}

export type Health = EtcdHealth | FileHealth | KubernetesHealth | RedisHealth | ZooKeeperHealth;

/** What doctor asks a store beside the contract of a backend. Facts only: what they mean is policy.ts's. */
export interface Examiner {
  /** How the store is, and what we may do with this election. Changes nothing. Never rejects because a server is not well. */
  health(election: string, signal: AbortSignal): Promise<Health>;
  /**
   * Connects, and asks for the rights to lead this very election, changing nothing. True: the store has said that we have them; false: it can only
   * be tried. Throws as a backend does.
   */
  enter(election: string, signal: AbortSignal): Promise<boolean>;
  /** Before anything is written: remembers what is there, so that `sweep` leaves it. */
  prepare(election: string, signal: AbortSignal): Promise<void>;
  /** Removes what an election leaves behind when all its places are given back. */
  sweep(election: string, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

export async function openExaminer(spec: BackendSpec, election: string, requestMs: number): Promise<Examiner> {
  switch (spec.kind) {
    case 'file':
      return new (await import('../backends/file/health.ts')).FileExaminer(spec);
    case 'etcd':
      return new (await import('../backends/etcd/health.ts')).EtcdExaminer(spec, election, requestMs);
    case 'redis':
      return new (await import('../backends/redis/health.ts')).RedisExaminer(spec, election, requestMs);
    case 'zookeeper':
      return new (await import('../backends/zookeeper/health.ts')).ZooKeeperExaminer(spec, requestMs);
    case 'kubernetes':
      return new (await import('../backends/kubernetes/health.ts')).KubernetesExaminer(spec);
  }
}
