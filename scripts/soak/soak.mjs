// Builds and runs the driver, and says whether what it holds stayed as it was.
import { spawn } from 'node:child_process';
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { etcdProtos } from '../etcd-protos.mjs';
import { kubernetesConfig } from '../kubernetes-config.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** From a tenth of the way to the end, whatever its length. Of 20 000 turns one that leaves 57 bytes of heap behind is found, of a week's renewals one that leaves 2. */
const GROWTH = {
  heapKB: 1024,
  /** V8 gives back what it does not need when it likes to, and takes up to 15 MB while what runs often gets compiled. */
  residentKB: 20 * 1024,
  descriptors: 0,
  resources: 2,
  guardResidentKB: 512,
  /** A nap may be over just now. */
  guardProcesses: 1,
  guardDescriptors: 4,
};

export async function buildDriver(folder) {
  const entry = (name) => join(root, name);
  await build({
    entryPoints: {
      driver: entry('scripts/soak/driver.ts'),
      inside: entry('scripts/soak/inside.ts'),
      'guard-process': entry('src/guard-process.ts'),
    },
    outdir: folder,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'esm',
    banner: {
      js: "import { createRequire as requireOf } from 'node:module';const require=requireOf(import.meta.url);const __dirname='';",
    },
    external: ['koffi', 'zookeeper'],
    loader: { '.lua': 'text', '.html': 'text' },
    plugins: [etcdProtos, kubernetesConfig],
    logLevel: 'error',
  });
  for (const script of ['guard.sh', 'witness.sh']) copyFileSync(join(root, 'src', script), join(folder, script));
  return join(folder, 'driver.mjs');
}

/** Resolves with both samples, how long it took, and what has grown. */
export async function soak(driver, task, { node = process.execPath, env = {}, progress = () => {} } = {}) {
  const child = spawn(node, ['--expose-gc', '--max-semi-space-size=2', driver, JSON.stringify(task)], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    said += text;
  });
  const samples = [];
  let tookMs = 0;
  createInterface({ input: child.stdout }).on('line', (line) => {
    const told = JSON.parse(line);
    if (told.sample) {
      samples.push(told.sample);
      tookMs = told.tookMs;
    } else progress(told);
  });
  const status = await new Promise((resolve) => child.once('close', resolve));
  if (status !== 0 || samples.length < 2) throw new Error(`the driver ended with ${status}: ${said}`);
  const [before, after] = samples;
  const grown = Object.keys(GROWTH).filter((what) => after[what] - before[what] > GROWTH[what]);
  return { before, after, tookMs, grown };
}
