// `npm run soak`: as many renewals as asked for, on real servers of its own, as fast as they answer; fails when anything has grown.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';
import { buildDriver, soak } from './soak/soak.mjs';

const USAGE = `npm run soak -- [options]
  --renewals N     default 604800: a week's, one a second
  --backend LIST   of file,etcd,redis,zookeeper,kubernetes; default: all
  --node PATH      default: the one that runs this
  --leak KIND      race, listener, descriptor: something that has to be found`;

const KINDS = ['file', 'etcd', 'redis', 'zookeeper', 'kubernetes'];
const root = fileURLToPath(new URL('..', import.meta.url));
const { values } = parseArgs({
  options: {
    renewals: { type: 'string', default: '604800' },
    backend: { type: 'string', default: KINDS.join(',') },
    node: { type: 'string', default: process.execPath },
    leak: { type: 'string' },
    help: { type: 'boolean', short: 'h' },
  },
});
const renewals = Number(values.renewals);
const chosen = values.backend.split(',');
if (values.help || !(renewals >= 10) || chosen.some((kind) => !KINDS.includes(kind))) {
  console.error(USAGE);
  process.exit(values.help ? 0 : 64);
}

const cache = join(root, 'node_modules/.soak');
mkdirSync(cache, { recursive: true });
const outfile = join(cache, 'stores.mjs');
await build({
  stdin: {
    contents:
      "export { STORES } from './test/contract/stores.ts'; export { stopServers } from './test/helpers/servers.ts';",
    resolveDir: root,
    loader: 'ts',
  },
  outfile,
  bundle: true,
  packages: 'external',
  platform: 'node',
  format: 'esm',
  loader: { '.lua': 'text' },
  logLevel: 'error',
});
const { STORES, stopServers } = await import(pathToFileURL(outfile));
const driver = await buildDriver(cache);
const folder = mkdtempSync(join(tmpdir(), 'elect-run-soak-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

let hasGrown = false;
for (const kind of chosen) {
  const store = await STORES.find(({ name }) => name === kind).start();
  const progress = (told) => process.stderr.write(`soak: ${kind}: ${JSON.stringify(told)}\n`);
  const task = { spec: store.spec, renewals, leak: values.leak };
  try {
    const { before, after, tookMs, grown } = await soak(driver, task, { node: resolve(values.node), progress });
    console.log(
      `${kind}: ${renewals} renewals in ${Math.round(tookMs / 1000)} s; grown: ${grown.join(', ') || 'nothing'}`,
    );
    console.table({ 'at a tenth': before, 'at the end': after });
    hasGrown ||= grown.length > 0;
  } finally {
    await store.end();
  }
}
await stopServers();
process.exit(hasGrown ? 1 : 0);
