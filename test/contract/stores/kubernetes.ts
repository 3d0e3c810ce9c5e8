import { Kubernetes, type User } from '../../helpers/kubernetes.ts';
import type { StoreKind } from './store.ts';

const kubernetes = (
  name: string,
  user: User,
  depose: (server: Kubernetes, election: string) => Promise<unknown>,
): StoreKind => ({
  name,
  needs: ['kubeApiserver', 'etcd', 'openssl'],
  async start() {
    const server = await Kubernetes.start();
    return {
      spec: { kind: 'kubernetes', namespace: 'default', kubeconfig: [server.kubeconfig(user)] },
      tellsAtOnce: true,
      depose: async (_, election) => void (await depose(server, election)),
      servers: server,
      end: () => server.stop(),
    };
  },
});

export const KUBERNETES: StoreKind[] = [
  kubernetes('kubernetes', 'app', (server, election) => server.delete(election)),
  kubernetes('kubernetes, without the right to watch', 'unwatching', (server, election) =>
    server.edit(election, { spec: { holderIdentity: null } }),
  ),
];
