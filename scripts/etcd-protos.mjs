// Etcd's messages are those of the .proto files that etcd3 brings. To read and parse them at each start, and to have protobufjs then write the code of each codec, takes
// longer than a whole campaign. This plugin of esbuild has both done at build time. What is imported instead of @grpc/proto-loader is the same definitions
// of the services that are used, with static codecs and the same conversions.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import protobuf from 'protobufjs';
import pbjs from 'protobufjs-cli/pbjs.js';

const PROTOS = fileURLToPath(new URL('../node_modules/etcd3/proto/', import.meta.url));

/** service → the methods that are called: in an election, by our own transport, and by etcd3's client. */
const OURS = {
  KV: ['Range', 'Put', 'DeleteRange', 'Txn'],
  Watch: ['Watch'],
  Lease: ['LeaseGrant', 'LeaseRevoke', 'LeaseKeepAlive', 'LeaseTimeToLive'],
  Auth: ['Authenticate'],
};
const OF_ETCD3 = {
  Auth: ['Authenticate'],
  Cluster: ['MemberList'],
  Maintenance: ['Status'],
};

/** As in etcd3's connection-pool.js. */
const CONVERSION = '{ longs: String, enums: String, defaults: true, oneofs: true }';

function loadProtos() {
  const root = new protobuf.Root();
  root.resolvePath = (_, target) => join(PROTOS, target.replace(/^.*\//, ''));
  root.loadSync('rpc.proto', { keepCase: true }).resolveAll();
  return root;
}

/** All types that can be in a message of one of these. */
function reachable(types) {
  const found = new Set();
  const add = (type) => {
    if (found.has(type)) return;
    found.add(type);
    for (const field of type.fieldsArray ?? []) if (field.resolvedType) add(field.resolvedType);
  };
  for (const type of types) add(type);
  return found;
}

/** Fewer codecs are less to load. */
function prune(root, types) {
  const kept = new Set();
  for (const type of types) for (let outer = type; outer; outer = outer.parent) kept.add(outer.fullName);
  const strip = (namespace) => {
    for (const nested of [...namespace.nestedArray]) {
      if (!kept.has(nested.fullName)) namespace.remove(nested);
      else if (nested.nestedArray) strip(nested);
    }
  };
  strip(root);
}

/** Requests are only written, answers only read. */
function oneWay(code, requests, answers) {
  const names = (types) => new Set([...types].map(({ name }) => name));
  const written = names(requests);
  const read = names(answers);
  const isUsed = (name, verb) => (verb === 'encode' || verb === 'fromObject' ? written : read).has(name);
  return code
    .replace(/^( +)(\w+)\.(encode|decode|fromObject|toObject) = function [\s\S]*?^\1\};\n/gm, (text, _, name, verb) =>
      isUsed(name, verb) ? text : '',
    )
    .replace(/^( +)\w+\.prototype\.toJSON = function [\s\S]*?^\1\};\n/gm, '');
}

function definitions(root, used) {
  return Object.entries(used).map(([name, methods]) => {
    const service = root.lookupService(`etcdserverpb.${name}`);
    const entries = methods.map((methodName) => {
      const method = service.methods[methodName];
      const path = `/etcdserverpb.${name}/${methodName}`;
      const streams = `requestStream: ${!!method.requestStream}, responseStream: ${!!method.responseStream}`;
      const [request, response] = [method.resolvedRequestType, method.resolvedResponseType].map(
        (type) => type.fullName,
      );
      return `${methodName}: { path: '${path}', originalName: '${methodName[0].toLowerCase() + methodName.slice(1)}', ${streams}, ...codec(protos${request}, protos${response}) }`;
    });
    return `'etcdserverpb.${name}': { ${entries.join(',\n')} }`;
  });
}

/** `name` keeps the codecs of two modules apart: protobufjs has one table of all. */
async function generate(name, used) {
  const root = loadProtos();
  const services = definitions(root, used);
  const methods = Object.entries(used).flatMap(([service, names]) =>
    names.map((name) => root.lookupService(`etcdserverpb.${service}`).methods[name]),
  );
  const requests = reachable(methods.map((method) => method.resolvedRequestType));
  const answers = reachable(methods.map((method) => method.resolvedResponseType));
  prune(root, [...requests, ...answers]);
  const folder = mkdtempSync(join(tmpdir(), 'elect-run-protos-'));
  try {
    const json = join(folder, 'protos.json');
    writeFileSync(json, JSON.stringify(root.toJSON()));
    const flags = [
      '--no-create',
      '--no-verify',
      '--no-delimited',
      '--no-comments',
      '--no-typeurl',
      '--no-beautify',
      '--no-service',
    ];
    const code = await promisify(pbjs.main)([
      '-t',
      'static-module',
      '-w',
      'commonjs',
      '--keep-case',
      '--force-long',
      '--root',
      name,
      ...flags,
      json,
    ]);
    return `${oneWay(code, requests, answers)}
const protos = module.exports;
const conversion = ${CONVERSION};
const codec = (request, response) => ({
  requestSerialize: (value) => Buffer.from(request.encode(request.fromObject(value)).finish()),
  responseDeserialize: (bytes) => response.toObject(response.decode(bytes), conversion),
});
module.exports = { loadSync: () => ({ ${services.join(',\n')} }) };
`;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

export const etcdProtos = {
  name: 'etcd-protos',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^@grpc\/proto-loader$/ }, ({ importer }) => ({
      path: importer.endsWith('/src/backends/etcd/definitions.ts') ? 'ours' : 'of-etcd3',
      namespace: 'etcd-protos',
    }));
    // grpc-js has a use for it, too: the definitions of its channelz service, which nobody serves here.
    onLoad({ filter: /.*/, namespace: 'etcd-protos' }, async ({ path }) => ({
      contents: `require('protobufjs/minimal').util.Long = require('long'); require('protobufjs/minimal').configure();\n${await generate(path, path === 'ours' ? OURS : OF_ETCD3)}`,
      resolveDir: fileURLToPath(new URL('..', import.meta.url)),
    }));
  },
};
