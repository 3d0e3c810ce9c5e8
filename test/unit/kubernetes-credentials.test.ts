import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Unusable } from '../../src/backend.ts';
import { LeaseApi } from '../../src/backends/kubernetes/api.ts';
import { Cluster } from '../../src/backends/kubernetes/cluster.ts';
import { withoutDescriptors } from '../helpers/descriptors.ts';
import { scratch } from '../helpers/scratch.ts';

const PATH = '/etc/plugin';

/** What a request ends with when the credentials cannot be read. */
function errorFor(code: string, hasServed: boolean): Promise<unknown> {
  const error = Object.assign(new Error(`${code}: open '${PATH}'`), { code, path: PATH });
  const cluster = { hasServed, credentials: () => Promise.reject(error) } as unknown as Cluster;
  return new LeaseApi(cluster, 'default', 'job').read(new AbortController().signal).catch((thrown) => thrown);
}

test.each(['ENOENT', 'EACCES'])('credentials that have never been had, with %s, are no use', async (code) => {
  expect(await errorFor(code, false)).toBeInstanceOf(Unusable);
  expect(await errorFor(code, true)).not.toBeInstanceOf(Unusable);
});

test.each(['EMFILE', 'EAGAIN', 'EIO'])('%s may pass, also at first', async (code) => {
  const error = await errorFor(code, false);
  expect(error).not.toBeInstanceOf(Unusable);
  expect((error as Error).message).toContain(code);
});

test('an exec plugin for which no descriptor is left is an error like any other', async () => {
  const kubeconfig = join(scratch(), 'config');
  const exec = { apiVersion: 'client.authentication.k8s.io/v1', command: '/bin/true', interactiveMode: 'Never' };
  const config = {
    clusters: [{ name: 'test', cluster: { server: 'https://127.0.0.1:9' } }],
    users: [{ name: 'test', user: { exec } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'test' } }],
    'current-context': 'test',
  };
  writeFileSync(kubeconfig, JSON.stringify(config));
  const cluster = new Cluster({ kind: 'kubernetes', namespace: 'default', kubeconfig: [kubeconfig] });
  await withoutDescriptors(() =>
    expect(cluster.credentials()).rejects.toThrow('spawn /bin/true: no descriptor is left'),
  );
});
