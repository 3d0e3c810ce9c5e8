// `npm run chaos`: builds elect-run and the harness of test/chaos, and runs it.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { prepare } from './prepare.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = join(root, 'node_modules/.chaos');
prepare();
await build({
  entryPoints: ['main', 'lane'].map((name) => join(root, `test/chaos/${name}.ts`)),
  outdir: folder,
  outExtension: { '.js': '.mjs' },
  bundle: true,
  packages: 'external',
  platform: 'node',
  format: 'esm',
  loader: { '.lua': 'text' },
  logLevel: 'warning',
});
const env = {
  ...process.env,
  PATH: `${process.env.PATH}:/usr/sbin:/sbin`,
  ROOT: root,
  LANE: join(folder, 'lane.mjs'),
  BIN: join(root, 'bin/elect-run.js'),
  MUTANTS: join(folder, 'mutants'),
};
const main = spawn(process.execPath, [join(folder, 'main.mjs'), ...process.argv.slice(2)], { stdio: 'inherit', env });
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => main.kill(signal));
const [code, signal] = await once(main, 'exit');
process.exit(code ?? 128 + { SIGINT: 2, SIGTERM: 15, SIGHUP: 1, SIGKILL: 9 }[signal]);
