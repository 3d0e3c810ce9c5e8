import { readBackend } from '../../../src/backends/spec.ts';
import { Redis } from '../../helpers/redis.ts';
import type { StoreKind } from './store.ts';

const redis = (name: string, options: Parameters<typeof Redis.start>[0]): StoreKind => ({
  name,
  needs: ['redis', ...(options?.tls ? (['openssl'] as const) : [])],
  async start() {
    const server = await Redis.start(options);
    const { certificates } = server;
    const files = certificates && {
      cacert: certificates.ca,
      cert: certificates.client.cert,
      key: certificates.client.key,
    };
    return {
      spec: readBackend({ backend: server.url, ...files }, {}),
      tellsAtOnce: false,
      depose: async (_, election) => {
        await server.cli('del', election);
      },
      servers: server,
      end: () => server.stop(),
    };
  },
});

export const REDIS: StoreKind[] = [
  redis('redis', {}),
  redis('redis, with user and password', { auth: true }),
  redis('redis, with TLS and client certificates', { tls: true }),
  redis('redis, behind Sentinels', { sentinels: true }),
];
