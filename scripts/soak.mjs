// `npm run soak`: what elect-run does for weeks, on real servers of its own, as fast as they answer; fails when anything has grown.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';
import { buildDriver, soak } from './soak/soak.mjs';

const USAGE = `npm run soak -- [options]
  --what LIST      of renewals,standby,slots,guard; default: all
  --times N        default: a week's renewals, one a second; looks of a standby, one in ten seconds; slots, one a minute; armings of the guard in Node, one a second
  --backend LIST   of file,etcd,redis,zookeeper,kubernetes; default: all
  --node PATH      default: the one that runs this
  --leak KIND      race, listener, descriptor: something that has to be found`;

const WEEK_S = 7 * 24 * 3600;
const A_WEEKS = { renewals: WEEK_S, standby: WEEK_S / 10, slots: WEEK_S / 60, guard: WEEK_S };
const KINDS = ['file', 'etcd', 'redis', 'zookeeper', 'kubernetes'];
const root = fileURLToPath(new URL('..', import.meta.url));
const { values } = parseArgs({
  options: {
    what: { type: 'string', default: Object.keys(A_WEEKS).join(',') },
    times: { type: 'string' },
    backend: { type: 'string', default: KINDS.join(',') },
    node: { type: 'string', default: process.execPath },
    leak: { type: 'string' },
    help: { type: 'boolean', short: 'h' },
  },
});
const [whats, chosen] = [values.what.split(','), values.backend.split(',')];
const isKnown = whats.every((what) => what in A_WEEKS) && chosen.every((kind) => KINDS.includes(kind));
if (values.help || !isKnown || (values.times && !(Number(values.times) >= 10))) {
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

async function look(what, kind, spec) {
  const times = Number(values.times ?? A_WEEKS[what]);
  const title = [what, kind].filter(Boolean).join(', ');
  const progress = (told) => process.stderr.write(`soak: ${title}: ${JSON.stringify(told)}\n`);
  const task = { what, spec, times, leak: values.leak };
  const { before, after, tookMs, grown } = await soak(driver, task, { node: resolve(values.node), progress });
  console.log(`${title}: ${times} times in ${Math.round(tookMs / 1000)} s; grown: ${grown.join(', ') || 'nothing'}`);
  console.table({ 'at a tenth': before, 'at the end': after });
  hasGrown ||= grown.length > 0;
}

if (whats.includes('guard')) await look('guard');
for (const kind of chosen) {
  const asked = whats.filter((what) => what !== 'guard');
  if (asked.length === 0) break;
  const store = await STORES.find(({ name }) => name === kind).start();
  try {
    for (const what of asked) await look(what, kind, store.spec);
  } finally {
    await store.end();
  }
}
await stopServers();
process.exit(hasGrown ? 1 : 0);
