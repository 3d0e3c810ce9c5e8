import { InterceptingCall, type InterceptorOptions, type NextCall } from '@grpc/grpc-js';
import { noop } from 'cockatiel';
import { Etcd3, type IOptions } from 'etcd3';
import type { EtcdSpec } from './spec.ts';

/** etcd3's client of one member, for questions that are not asked in an election. Its retries and circuit breakers are switched off. */
export function clientOf(endpoint: string, { tls, auth }: EtcdSpec, requestMs: number): Etcd3 {
  const options: IOptions = {
    hosts: `${tls ? 'https' : 'http'}://${endpoint}`,
    faultHandling: { host: () => noop, global: noop },
    defaultCallOptions: () => ({ deadline: Date.now() + requestMs }),
    grpcOptions: GRPC_OPTIONS,
    ...(auth ? { auth } : {}),
  };
  if (tls) {
    options.credentials = {
      rootCertificate: tls.ca ? Buffer.from(tls.ca) : (undefined as never),
      ...(tls.cert && tls.key ? { certChain: Buffer.from(tls.cert), privateKey: Buffer.from(tls.key) } : {}),
    };
  }
  return new Etcd3(options);
}

/** A member that lost its cluster answers "no leader" at once (etcd's Go client sends the same). */
function requireLeader(options: InterceptorOptions, nextCall: NextCall): InterceptingCall {
  return new InterceptingCall(nextCall(options), {
    start(metadata, listener, next) {
      metadata.set('hasleader', 'true');
      next(metadata, listener);
    },
  });
}

const GRPC_OPTIONS = {
  interceptors: [requireLeader],
  'grpc.use_local_subchannel_pool': 1, // a new client is a new connection
} as unknown as NonNullable<IOptions['grpcOptions']>;
