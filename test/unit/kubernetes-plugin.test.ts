import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from 'vitest';
import { Cluster } from '../../src/backends/kubernetes/cluster.ts';
import { newFolder } from '../helpers/folders.ts';
import { alive, signal, until } from '../helpers/procs.ts';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
});
afterEach(() => {
  vi.useRealTimers();
});

/** A cluster whose credentials come from this script. */
function clusterWith(script: string): { cluster: Cluster; folder: string } {
  const folder = newFolder('plugin');
  const [command, kubeconfig] = [join(folder, 'plugin.sh'), join(folder, 'config')];
  writeFileSync(command, `#!/bin/sh\ncd ${folder}\n${script}\n`);
  chmodSync(command, 0o755);
  const config = {
    'current-context': 'test',
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'test' } }],
    clusters: [{ name: 'test', cluster: { server: 'https://127.0.0.1:9' } }],
    users: [{ name: 'test', user: { exec: { apiVersion: 'client.authentication.k8s.io/v1', command } } }],
  };
  writeFileSync(kubeconfig, JSON.stringify(config));
  const cluster = new Cluster({ kind: 'kubernetes', namespace: undefined, kubeconfig: [kubeconfig] });
  onTestFinished(() => cluster.close());
  return { cluster, folder };
}

test('an exec plugin that hangs, also in a process of its own, is ended in the end, and the next time it is started anew', async () => {
  const credential =
    '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"app"}}';
  const { cluster, folder } = clusterWith(
    `[ -e pids ] || { sleep 300 & echo $$ $! >new; mv new pids; wait; }; echo '${credential}'`,
  );
  const first = cluster.credentials().then(
    () => 'credentials',
    (error: Error) => error.message,
  );
  const pids = join(folder, 'pids');
  await until(() => existsSync(pids), 'the plugin hangs');
  const [plugin, sleeper] = readFileSync(pids, 'utf8').split(' ').map(Number);
  onTestFinished(() => signal(sleeper!, 'SIGKILL'));
  vi.advanceTimersByTime(59_000);
  expect(alive(plugin!)).toBe(true);
  vi.advanceTimersByTime(1000);
  expect(await first).toBe('the exec plugin has not answered within 1m');
  expect(alive(plugin!)).toBe(false);
  expect((await cluster.credentials()).headers).toEqual({ Authorization: 'Bearer app' });
});
