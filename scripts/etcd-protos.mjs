// etcd3 reads and parses its .proto files whenever it is loaded, and protobufjs then writes the code of each codec: together longer than a
// whole campaign. This plugin of esbuild has both done at build time. What etcd3 gets instead of @grpc/proto-loader is the
// same definitions of the services that we use, with static codecs and the same conversions.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import protobuf from 'protobufjs';
import pbjs from 'protobufjs-cli/pbjs.js';

const PROTOS = fileURLToPath(new URL('../node_modules/etcd3/proto/', import.meta.url));

/** service → the methods that are called, by etcd3's own client or by ours. */
const USED = {
  KV: ['Range', 'Put', 'DeleteRange', 'Txn'],
  Watch: ['Watch'],
  Lease: ['LeaseGrant', 'LeaseRevoke', 'LeaseKeepAlive', 'LeaseTimeToLive'],
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

/** Only what the used methods reach: fewer codecs are less to load. */
function prune(root) {
  const kept = new Set();
  const keep = (type) => {
    if (kept.has(type.fullName)) return;
    kept.add(type.fullName);
    for (const nested of type.nestedArray ?? []) keep(nested);
    for (const field of type.fieldsArray ?? []) if (field.resolvedType) keep(field.resolvedType);
    for (let outer = type.parent; outer; outer = outer.parent) kept.add(outer.fullName);
  };
  for (const [name, methods] of Object.entries(USED)) {
    const service = root.lookupService(`etcdserverpb.${name}`);
    for (const method of methods.map((name) => service.get(name) ?? service.methods[name])) {
      keep(method.resolvedRequestType);
      keep(method.resolvedResponseType);
    }
  }
  const strip = (namespace) => {
    for (const nested of [...namespace.nestedArray]) {
      if (!kept.has(nested.fullName)) namespace.remove(nested);
      else if (nested.nestedArray) strip(nested);
    }
  };
  strip(root);
}

function definitions(root) {
  return Object.entries(USED).map(([name, methods]) => {
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

async function generate() {
  const root = loadProtos();
  const services = definitions(root);
  prune(root);
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
      ...flags,
      json,
    ]);
    return `${code}
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
    // grpc-js has a use for it, too: the definitions of its channelz service, which nobody serves here.
    onResolve({ filter: /^@grpc\/proto-loader$/ }, () => ({ path: 'etcd-protos', namespace: 'etcd-protos' }));
    onLoad({ filter: /.*/, namespace: 'etcd-protos' }, async () => ({
      contents: `require('protobufjs/minimal').util.Long = require('long'); require('protobufjs/minimal').configure();\n${await generate()}`,
      resolveDir: fileURLToPath(new URL('..', import.meta.url)),
    }));
  },
};
