import { fileURLToPath } from 'node:url';
import { loadSync } from '@grpc/proto-loader';
import type { Method } from './grpc.ts';

/** Etcd's services from the .proto files that etcd3 brings; in dist/ they have become static codecs (scripts/etcd-protos.mjs). */
export const definitions = loadSync(
  fileURLToPath(new URL('../../../node_modules/etcd3/proto/rpc.proto', import.meta.url)),
  { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true },
) as unknown as Record<string, Record<string, Method<never, never>>>;
