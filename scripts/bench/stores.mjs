// The servers of Redis, ZooKeeper and Kubernetes: those of the tests, whose helpers are bundled for it, and what their own users would write instead of elect-run.
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import { curatorCandidate } from './curator.mjs';

const HELPERS = `
  export { Redis } from './test/helpers/redis.ts';
  export { ZooKeeper } from './test/helpers/zookeeper.ts';
  export { Kubernetes } from './test/helpers/kubernetes.ts';
  export { KUBE_APISERVER } from './test/helpers/kube-apiserver.ts';
  export { stopServers } from './test/helpers/servers.ts';`;

const LOOP = `until [ "$(redis-cli -p "$PORT" set "$NAME" shell nx px 60000)" = OK ]; do sleep 0.05; done
"$@"; redis-cli -p "$PORT" del "$NAME" >/dev/null`;

/**
 * By name: `backend` and `env` for elect-run, the aim for a hand-over (in ms; 'first': as fast as the first of the others), `others`, each with the command line for an election and a job, and how many
 * `requests` the server has had so far.
 */
export async function startStores(names, root) {
  const outfile = join(root, 'node_modules/.bench/stores.mjs');
  await build({
    stdin: { contents: HELPERS, resolveDir: root, loader: 'ts' },
    outfile,
    bundle: true,
    packages: 'external',
    platform: 'node',
    format: 'esm',
    logLevel: 'warning',
  });
  const { Redis, ZooKeeper, Kubernetes, KUBE_APISERVER, stopServers } = await import(pathToFileURL(outfile));
  const stores = {};
  if (names.includes('redis')) {
    const redis = await Redis.start();
    const env = { PORT: redis.endpoints[0].split(':')[1] };
    const loop = (election, job) => ['env', `NAME=${election}`, 'sh', '-c', LOOP, 'loop', ...job];
    const others = [{ key: '`SET NX` in a shell loop of 50 ms', command: loop, env }];
    const requests = async () => Number(/^total_reads_processed:(\d+)/m.exec(await redis.cli('info', 'stats'))[1]);
    stores.redis = { backend: redis.url, env: {}, handOverAim: 6, others, requests };
  }
  if (names.includes('zookeeper')) {
    const zookeeper = await ZooKeeper.start();
    const [hosts] = zookeeper.endpoints;
    const inLine = (election, count) => zookeeper.inLine(election, count);
    const native = (key, program, recipe) => {
      const command = (election, job) => [...program, hosts, recipe, `/${election}`, ...job];
      return { key, command, env: {}, inLine };
    };
    const curator = curatorCandidate(root);
    const others = [
      native('Kazoo, Lock', ['/usr/bin/python3', join(root, 'test/natives/kazoo_candidate.py')], 'lock'),
      ...(curator ? [native('Curator, InterProcessMutex', curator, 'mutex')] : []),
      ...(curator ? [native('Curator, LeaderLatch', curator, 'latch')] : []),
    ];
    const requests = () => zookeeper.received();
    stores.zookeeper = { backend: zookeeper.url, env: {}, handOverAim: 'first', others, requests };
  }
  if (names.includes('kubernetes') && KUBE_APISERVER) {
    const kubernetes = await Kubernetes.start();
    const kubeconfig = kubernetes.kubeconfig('app');
    let candidates = 0;
    const clientGo = (election, job) => [
      ...[process.execPath, join(root, 'test/natives/client-go-candidate.mjs'), kubeconfig, 'default', election],
      ...[`candidate-${++candidates}`, '15', '2', ...job],
    ];
    const others = [{ key: 'client-go, in JavaScript, retrying every 2 s', command: clientGo, env: {} }];
    const requests = () => kubernetes.answered();
    stores.kubernetes = { backend: kubernetes.url, env: kubernetes.env, handOverAim: 50, others, requests };
  }
  return { stores, stop: stopServers };
}
