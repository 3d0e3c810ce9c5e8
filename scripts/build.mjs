// Builds dist/: every entry bundled, split by backend so that only the chosen store's library is loaded, as CommonJS chunks
// (they start sooner than ES modules, and a compile cache serves them on every Node).
import { chmodSync, copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, transform } from 'esbuild';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
rmSync('dist', { recursive: true, force: true });
mkdirSync('dist');

/** etcd3 reads and parses its .proto files whenever it is loaded, which takes longer than a campaign: parse them here, once. */
const parsedProtos = {
  name: 'parsed-protos',
  setup({ onLoad }) {
    onLoad({ filter: /etcd3\/lib\/connection-pool\.js$/ }, ({ path }) => {
      const require = createRequire(path);
      const protobuf = createRequire(require.resolve('@grpc/proto-loader'))('protobufjs');
      const root = new protobuf.Root();
      const folder = join(dirname(path), '../proto');
      root.resolvePath = (_, target) => join(folder, target.replace(/^.*\//, ''));
      root.loadSync('rpc.proto', { keepCase: true });
      // biome-ignore lint/suspicious/noTemplateCurlyInString: the text of a program
      const call = '(0, proto_loader_1.loadSync)(`${__dirname}/../proto/rpc.proto`,';
      const source = readFileSync(path, 'utf8');
      if (!source.includes(call))
        throw new Error('etcd3 loads its protos in another way now: look at connection-pool.js');
      return { contents: source.replace(call, `(0, proto_loader_1.fromJSON)(${JSON.stringify(root.toJSON())},`) };
    });
  },
};

const result = await build({
  entryPoints: ['src/main.ts', 'src/cleanup.ts'],
  bundle: true,
  splitting: true,
  write: false,
  outdir: 'dist',
  platform: 'node',
  target: 'node20',
  format: 'esm',
  external: ['koffi'],
  plugins: [parsedProtos],
  minifySyntax: true,
  minifyWhitespace: true,
  legalComments: 'linked',
  logLevel: 'warning',
});

for (const { path, text } of result.outputFiles) {
  mkdirSync(dirname(path), { recursive: true });
  if (!path.endsWith('.js')) {
    writeFileSync(path, text);
    continue;
  }
  const { code } = await transform(text, {
    format: 'cjs',
    platform: 'node',
    target: 'node20',
    supported: { 'dynamic-import': false },
    define: { 'import.meta.url': '__url' },
    banner: 'const __url=require("node:url").pathToFileURL(__filename).href;',
  });
  writeFileSync(path, code);
}
writeFileSync('dist/package.json', '{ "type": "commonjs" }\n');
for (const script of ['guard.sh', 'witness.sh']) {
  copyFileSync(`src/${script}`, `dist/${script}`);
  chmodSync(`dist/${script}`, 0o755);
}
