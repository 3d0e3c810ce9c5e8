// Builds dist/: every entry bundled, split by backend so that only the chosen store's library is loaded, as CommonJS chunks
// (they start sooner than ES modules, and a compile cache serves them on every Node). What every start loads is one chunk, main.js.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, transform } from 'esbuild';
import { etcdProtos } from './etcd-protos.mjs';
import { kubernetesConfig } from './kubernetes-config.mjs';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
rmSync('dist', { recursive: true, force: true });
mkdirSync('dist');
const { version } = JSON.parse(readFileSync('package.json', 'utf8'));

const result = await build({
  entryPoints: ['main', 'cleanup-process', 'guard-process', 'witness-process'].map((name) => `src/${name}.ts`),
  bundle: true,
  splitting: true,
  write: false,
  metafile: true,
  outdir: 'dist',
  platform: 'node',
  target: 'node20',
  format: 'esm',
  external: ['koffi', 'zookeeper'],
  loader: { '.lua': 'text', '.html': 'text' },
  plugins: [
    etcdProtos,
    kubernetesConfig,
    { name: 'commander', setup: withoutProcesses },
    { name: 'ioredis', setup: ioredis },
  ],
  define: { ELECT_RUN_VERSION: JSON.stringify(version) },
  minifySyntax: true,
  minifyWhitespace: true,
  legalComments: 'linked',
  logLevel: 'warning',
});

const chunks = new Map(result.outputFiles.map(({ path, text }) => [basename(path), text]));
const parts = loadedBy('main.js');
const main = await build({
  stdin: {
    contents: [
      `export { start } from './main.js';`,
      ...parts.map((name, index) => `export * as part${index} from './${name}';`),
    ].join('\n'),
  },
  bundle: true,
  write: false,
  format: 'esm',
  external: ['node:*'],
  plugins: [{ name: 'parts', setup: bundleParts }],
  minifySyntax: true,
  minifyWhitespace: true,
  legalComments: 'none',
  logLevel: 'warning',
});
for (const name of parts) chunks.delete(name);
chunks.set('main.js', main.outputFiles[0].text);

for (const [name, text] of chunks)
  writeFileSync(`dist/${name}`, name.endsWith('.js') ? marked(await commonJs(text)) : text);

/** By this mark bin/elect-run.js knows which source the code is of that it has kept. */
function marked(text) {
  return `${text.trimEnd()}\n//${createHash('sha256').update(text).digest('hex').slice(0, 16)}`;
}

/** commander would start subcommands that are programs of their own. We have none, and node:child_process takes 2 ms to load. */
function withoutProcesses({ onResolve, onLoad }) {
  onResolve({ filter: /^node:child_process$/ }, ({ importer }) =>
    importer.includes('/node_modules/commander/') ? { path: 'child_process', namespace: 'nothing' } : undefined,
  );
  onLoad({ filter: /.*/, namespace: 'nothing' }, () => ({ contents: 'module.exports = {}' }));
}

/**
 * What ioredis needs only with TLS, or for scripts by their names, or to refuse an argument, takes 5 ms to load. And it gives a prototype 600 methods one by one, each of which costs V8 the more the more there are,
 * 9 ms together: they are inherited as well from a prototype of that one.
 */
function ioredis({ onResolve, onLoad }) {
  onResolve({ filter: /^(tls|crypto|assert)$/ }, ({ path, importer }) =>
    /\/node_modules\/(ioredis|redis-errors)\//.test(importer) ? { path, namespace: 'lazy' } : undefined,
  );
  onLoad({ filter: /.*/, namespace: 'lazy' }, ({ path }) => ({
    contents: `const load = () => require('node:${path}');
      module.exports = new Proxy(() => {}, { get: (_, name) => load()[name], apply: (_, self, args) => load()(...args) });`,
  }));
  onLoad({ filter: /\/ioredis\/built\/utils\/Commander\.js$/ }, ({ path }) => {
    const parts = readFileSync(path, 'utf8').split('Commander.prototype[commandName');
    if (parts.length !== 3) throw new Error(`${path} is not what scripts/build.mjs knows`);
    const text = parts.join('methods[commandName');
    return {
      contents: `const methods = { __proto__: null };\n${text}\nObject.setPrototypeOf(Commander.prototype, methods);`,
    };
  });
}

/** The chunks that are loaded with this one, in any order. */
function loadedBy(name, found = new Set()) {
  found.add(name);
  for (const { path, kind, external } of result.metafile.outputs[`dist/${name}`].imports) {
    if (kind === 'import-statement' && !external && !found.has(basename(path))) loadedBy(basename(path), found);
  }
  return [...found];
}

function bundleParts({ onResolve, onLoad }) {
  onResolve({ filter: /^\.\// }, ({ path }) =>
    parts.includes(basename(path)) ? { path: basename(path), namespace: 'part' } : { path, external: true },
  );
  onLoad({ filter: /.*/, namespace: 'part' }, ({ path }) => ({ contents: chunks.get(path) }));
}

async function commonJs(text) {
  const { code } = await transform(text, {
    format: 'cjs',
    platform: 'node',
    target: 'node20',
    supported: { 'dynamic-import': false },
    define: { 'import.meta.url': '__url', 'import.meta.dirname': '__dirname', 'import.meta.filename': '__filename' },
    banner: text.includes('import.meta.url') ? 'const __url=require("node:url").pathToFileURL(__filename).href;' : '',
    minifySyntax: true,
    minifyWhitespace: true,
  });
  return code.replace(/require\("\.\/(chunk-\w+\.js)"\)/g, (found, name) =>
    parts.includes(name) ? `require("./main.js").part${parts.indexOf(name)}` : found,
  );
}

writeFileSync('dist/package.json', '{ "type": "commonjs" }\n');
for (const script of ['guard.sh', 'witness.sh']) {
  copyFileSync(`src/${script}`, `dist/${script}`);
  chmodSync(`dist/${script}`, 0o755);
}

mkdirSync('dist/completions');
for (const [shell, file] of Object.entries({ bash: 'elect-run.bash', zsh: '_elect-run', fish: 'elect-run.fish' }))
  writeFileSync(`dist/completions/${file}`, execFileSync(process.execPath, ['bin/elect-run.js', 'completion', shell]));

// The manual page. Its reader takes each line end for a break, so a paragraph has to be one line.
const manual = readFileSync('docs/elect-run.1.md', 'utf8').replace(/(?<=[^\n:])\n(?=[\w`*(~])(?!\*)/g, ' ');
const flags = ['--version', `elect-run ${version}`, '--manual', 'User Commands'];
const page = execFileSync(process.execPath, ['node_modules/marked-man/bin/marked-man.js', ...flags], { input: manual });
writeFileSync('dist/elect-run.1', page);
