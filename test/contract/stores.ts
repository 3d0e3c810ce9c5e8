import { mkdtempSync, rmSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Backend } from '../../src/backend.ts';
import { type BackendSpec, type Candidate, openBackend } from '../../src/backends/index.ts';
import type { Need } from '../helpers/needs.ts';
import { Etcd } from '../helpers/servers.ts';

/** A real store, as the contract suite wants it. */
export interface Store {
  spec: BackendSpec;
  /** Takes from the store what makes this candidate the leader, as an operator would. */
  depose(handle: unknown, election: string): Promise<void>;
  /** Undefined: it cannot fall silent. */
  silence: { begin(): Promise<void>; end(): void } | undefined;
  end(): Promise<void>;
}

export interface StoreKind {
  name: string;
  needs: Need[];
  start(): Promise<Store>;
}

const etcd = (name: string, options: Parameters<typeof Etcd.start>[0]): StoreKind => ({
  name,
  needs: ['etcd', 'etcdctl', ...(options?.tls ? (['openssl'] as const) : [])],
  async start() {
    const server = await Etcd.start(options);
    const { certificates } = server;
    const read = async (file: string) => (await import('node:fs')).readFileSync(file, 'utf8');
    const tls = certificates && {
      ca: await read(certificates.ca),
      cert: await read(certificates.client.cert),
      key: await read(certificates.client.key),
    };
    const auth = options?.auth ? { username: 'app', password: 'apppw' } : undefined;
    return {
      spec: { kind: 'etcd', endpoints: server.endpoints, tls, auth },
      depose: async (handle) => {
        await server.etcdctl('del', (handle as { key: string }).key);
      },
      silence: {
        begin: async () => {
          await Promise.all(server.members.map((member) => member.freeze()));
        },
        end: () => {
          for (const member of server.members) member.thaw();
        },
      },
      end: () => server.stop(),
    };
  },
});

export const STORES: StoreKind[] = [
  {
    name: 'file',
    needs: ['flock'],
    async start() {
      const dir = mkdtempSync(join(tmpdir(), 'elect-run-contract-'));
      return {
        spec: { kind: 'file', dir },
        depose: async (_, election) => unlinkSync(join(dir, `${election}.lock`)),
        silence: undefined,
        end: async () => rmSync(dir, { recursive: true }),
      };
    },
  },
  etcd('etcd', {}),
  etcd('etcd, three members', { members: 3 }),
  etcd('etcd, with password', { auth: true }),
  etcd('etcd, with TLS and client certificates', { tls: true }),
];

export async function open(
  store: Store,
  election: string,
  id: string,
): Promise<{ backend: Backend; candidate: Candidate }> {
  const candidate: Candidate = { election, id, ttlMs: 3000, requestMs: 600 };
  return { backend: await openBackend(store.spec, candidate), candidate };
}
