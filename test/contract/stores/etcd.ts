import { readFileSync } from 'node:fs';
import { Etcd } from '../../helpers/etcd.ts';
import type { StoreKind } from './store.ts';

const etcd = (name: string, options: Parameters<typeof Etcd.start>[0]): StoreKind => ({
  name,
  needs: ['etcd', 'etcdctl', ...(options?.tls ? (['openssl'] as const) : [])],
  async start() {
    const server = await Etcd.start(options);
    const { certificates } = server;
    const read = (file: string) => readFileSync(file, 'utf8');
    const tls = certificates && {
      ca: read(certificates.ca),
      cert: read(certificates.client.cert),
      key: read(certificates.client.key),
    };
    const auth = options?.auth ? { username: 'app', password: 'apppw' } : undefined;
    return {
      spec: { kind: 'etcd', endpoints: server.endpoints, tls, auth },
      tellsAtOnce: true,
      depose: async (handle) => {
        await server.etcdctl('del', (handle as { key: string }).key);
      },
      servers: server,
      end: () => server.stop(),
    };
  },
});

export const ETCD: StoreKind[] = [
  etcd('etcd', {}),
  etcd('etcd, three members', { members: 3 }),
  etcd('etcd, with password', { auth: true }),
  etcd('etcd, with TLS and client certificates', { tls: true }),
];
