// What @kubernetes/client-node's config.js pulls in and elect-run never calls, left out by this plugin of esbuild: the 70 MB of generated API
// classes (750 KB of the bundle even after tree shaking), and node-fetch, of which it wants only `Headers`.
const UNUSED = {
  '/@kubernetes/client-node/dist/gen/index.js':
    'export const createConfiguration = undefined, ServerConfiguration = undefined;',
  // To ask for it loads all that fetch() takes, more than 10 ms.
  '/node-fetch/': 'export const Headers = function (...args) { return new globalThis.Headers(...args); };',
};

export const kubernetesConfig = {
  name: 'kubernetes-config',
  setup({ onLoad }) {
    for (const [path, contents] of Object.entries(UNUSED))
      onLoad({ filter: new RegExp(path.replaceAll('.', '\\.')) }, () => ({ contents, loader: 'js' }));
  },
};
