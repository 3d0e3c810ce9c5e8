// What a fresh clone lacks: the packages and the build. Used by `npm run quickstart` and `npm test`.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('..', import.meta.url));

export function prepare() {
  process.chdir(root);
  if (!existsSync('node_modules/esbuild/package.json')) {
    console.error('installing packages …');
    // Not `npm ci`: it fails where a registry lacks an optional package of another platform, which is not needed here.
    execFileSync('npm', ['install', '--no-save', '--no-audit', '--no-fund', '--loglevel=error'], {
      stdio: ['ignore', 2, 2],
    });
  }
  console.error('building dist/ …');
  execFileSync(process.execPath, ['scripts/build.mjs'], { stdio: ['ignore', 2, 2] });
}
