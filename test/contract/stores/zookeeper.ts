import type { Flavor } from '../../../src/backends/zookeeper/spec.ts';
import { ZooKeeper } from '../../helpers/zookeeper.ts';
import type { StoreKind } from './store.ts';

const zookeeper = (name: string, options: Parameters<typeof ZooKeeper.start>[0], flavor: Flavor): StoreKind => ({
  name,
  needs: ['zookeeper'],
  async start() {
    const server = await ZooKeeper.start(options);
    const auth = options?.auth ? { username: 'app', password: 'apppw' } : undefined;
    return {
      spec: { kind: 'zookeeper', endpoints: server.endpoints, chroot: '', flavor, auth },
      tellsAtOnce: true,
      depose: (handle, election) => server.depose(handle, election),
      servers: server,
      end: () => server.stop(),
    };
  },
});

export const ZOOKEEPER: StoreKind[] = [
  zookeeper('zookeeper', {}, 'curator-latch'),
  zookeeper('zookeeper, three servers', { members: 3 }, 'curator-lock'),
  zookeeper('zookeeper, with digest', { auth: true }, 'kazoo'),
];
