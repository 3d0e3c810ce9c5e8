import { connect } from 'node:tls';
import { InterceptingCall, type InterceptorOptions, type NextCall } from '@grpc/grpc-js';
import { noop } from 'cockatiel';
import { Etcd3, type IOptions } from 'etcd3';
import { Refused, Unusable } from '../../backend.ts';
import { NETWORK_TROUBLES, splitEndpoint } from '../connection.ts';
import { endInHandshake } from '../handshake.ts';
import type { EtcdSpec } from './spec.ts';

interface Member {
  endpoint: string;
  client: Etcd3;
}

/**
 * The members of a cluster, each behind a client of etcd3 of its own, which serves as transport only: its retries and circuit breakers are switched
 * off (one hung member of three cost a lease with them), its leases, election and watches are not used.
 *
 * A call goes to the member that answered last. When that one is silent for a third of the request's time, or fails, the next one is asked as
 * well, and the first answer counts: every call here may safely be made twice.
 */
export class EtcdMembers {
  readonly #spec: EtcdSpec;
  readonly #requestMs: number;
  readonly #right: string;
  readonly #members: Member[];
  #preferred = 0;
  #isClosed = false;

  /** `right`: what a user has to be granted, for the message when it is missing. */
  constructor(spec: EtcdSpec, requestMs: number, right: string) {
    this.#spec = spec;
    this.#requestMs = requestMs;
    this.#right = right;
    this.#members = spec.endpoints.map((endpoint) => ({ endpoint, client: this.#connect(endpoint) }));
  }

  async call<T>(signal: AbortSignal, request: (client: Etcd3) => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    const order = this.#members.map((_, index) => this.#members[(this.#preferred + index) % this.#members.length]!);
    return new Promise<T>((resolve, reject) => {
      const unanswered = new Set<Member>();
      let hedge: NodeJS.Timeout | undefined;
      let lastError: Error | undefined;
      const settle = (act: () => void) => {
        clearTimeout(hedge);
        signal.removeEventListener('abort', onAbort);
        for (const member of unanswered) this.#reset(member);
        unanswered.clear();
        act();
      };
      const onAbort = () => settle(() => reject(signal.reason));
      signal.addEventListener('abort', onAbort);
      const askNext = () => {
        clearTimeout(hedge);
        const member = order.shift();
        if (!member) {
          if (unanswered.size === 0) settle(() => reject(lastError));
          return;
        }
        unanswered.add(member);
        hedge = order.length > 0 ? setTimeout(askNext, this.#requestMs / 3) : undefined;
        request(member.client).then(
          (answer) => {
            if (!unanswered.delete(member)) return;
            this.#preferred = this.#members.indexOf(member);
            settle(() => resolve(answer));
          },
          async (error: Error) => {
            const plain = await this.#explain(error, member);
            if (!unanswered.delete(member)) return;
            lastError = plain;
            if (isFinal(plain)) settle(() => reject(plain));
            else {
              this.#reset(member);
              askNext();
            }
          },
        );
      };
      askNext();
    });
  }

  /** Renews the lease once and returns its length in seconds; 0: there is no such lease. */
  keepAlive(lease: string, signal: AbortSignal): Promise<number> {
    return this.call(signal, async ({ leaseClient }) => {
      const stream = await leaseClient.leaseKeepAlive();
      try {
        return await new Promise<number>((resolve, reject) => {
          const timer = setTimeout(() => reject(new Error('the lease was not renewed in time')), this.#requestMs);
          stream.on('data', ({ TTL }) => {
            clearTimeout(timer);
            resolve(Number(TTL));
          });
          stream.on('error', (error: Error) => {
            clearTimeout(timer);
            reject(error);
          });
          stream.write({ ID: lease });
        });
      } finally {
        hangUp(stream);
      }
    });
  }

  /** Resolves at the deletion of one of the keys at or after that revision, and when aborted. Rejects when the watch breaks. */
  async watchDeletion(keys: Buffer[], fromRevision: bigint, signal: AbortSignal): Promise<void> {
    const member = this.#members[this.#preferred]!;
    const stream = await member.client.watchClient.watch();
    try {
      await new Promise<void>((resolve, reject) => {
        signal.addEventListener('abort', () => resolve());
        if (signal.aborted) resolve();
        stream.on('error', reject);
        stream.on('end', () => reject(new Error('the watch ended')));
        stream.on('data', ({ canceled, cancel_reason, events }) => {
          if (canceled) reject(new Error(cancel_reason || 'the watch was cancelled'));
          if (events.some(({ type }) => type === 'Delete' || (type as string) === 'DELETE')) resolve();
        });
        for (const key of keys) {
          stream.write({ create_request: { key, start_revision: String(fromRevision), filters: ['Noput'] } } as never);
        }
      });
    } catch (error) {
      this.#reset(member);
      throw error;
    } finally {
      hangUp(stream);
    }
  }

  close(): void {
    this.#isClosed = true;
    for (const { client } of this.#members) client.close();
  }

  /** A connection that did not answer may be half open: TCP would wait for minutes. */
  #reset(member: Member): void {
    member.client.close();
    if (!this.#isClosed) member.client = this.#connect(member.endpoint);
  }

  #connect(endpoint: string): Etcd3 {
    const { tls, auth } = this.#spec;
    const options: IOptions = {
      hosts: `${tls ? 'https' : 'http'}://${endpoint}`,
      faultHandling: { host: () => noop, global: noop },
      defaultCallOptions: ({ isStream }) => (isStream ? {} : { deadline: Date.now() + this.#requestMs }),
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

  /** Says what the user can mend. Certificate errors reach us as "unavailable": only a handshake of our own tells. */
  async #explain(error: Error, { endpoint }: Member): Promise<Error> {
    const text = `${error.name} ${error.message}`;
    if (/PermissionDenied|permission denied/i.test(text)) {
      const user = this.#spec.auth ? `user ${this.#spec.auth.username}` : 'we';
      return new Refused(`etcd: ${user} may not do this; grant the role ${this.#right}`);
    }
    if (/authentication failed|invalid user ID or password/i.test(text))
      return new Refused('etcd: wrong user or password (--user, --password-file)');
    if (/user name is empty/i.test(text))
      return new Refused('etcd: authentication is on: give --user and --password-file');
    if (/authentication is not enabled/i.test(text))
      return new Refused('etcd: authentication is off on this server, but --user was given');
    if (/too large lease TTL/i.test(text)) return new Unusable('--ttl: longer than etcd allows');
    if (this.#spec.tls && /UNAVAILABLE|GRPCUnavailable/i.test(text)) {
      const problem = await tlsProblem(endpoint, this.#spec.tls, this.#requestMs);
      if (problem) return problem;
    }
    return new Error(`etcd at ${endpoint}: ${plainMessage(error)}`, { cause: error });
  }
}

/** The cluster's answer: no other member would say otherwise. */
const isFinal = (error: Error): boolean =>
  error instanceof Refused || error instanceof Unusable || /lease not found/.test(error.message);

/** Ended first, then cancelled: etcd3 takes the cancellation of a stream that is open for a failure, and closes the whole connection. */
function hangUp(stream: { end(): void; cancel(): void }): void {
  stream.end();
  stream.cancel();
}

/** A member that lost its cluster answers "no leader" at once instead of keeping us waiting (etcd's Go client sends the same). */
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
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1000,
} as unknown as NonNullable<IOptions['grpcOptions']>;

function plainMessage(error: Error): string {
  if (/Name resolution failed/.test(error.message)) return 'no such host';
  if (/DEADLINE_EXCEEDED|Deadline exceeded/.test(error.message)) return 'no answer in time';
  const reason = /ECONNREFUSED|ECONNRESET|ENOTFOUND|EHOSTUNREACH|ENETUNREACH|EAI_AGAIN/.exec(error.message)?.[0];
  return (
    (reason && (NETWORK_TROUBLES[reason] ?? reason)) ||
    error.message.replace(/ Last error:.*$/s, '').replace(/\s+/g, ' ')
  );
}

/** Why a TLS handshake with this endpoint fails; undefined: it does not, or not for TLS's sake. */
function tlsProblem(
  endpoint: string,
  tls: NonNullable<EtcdSpec['tls']>,
  timeoutMs: number,
): Promise<Error | undefined> {
  return new Promise((resolve) => {
    const socket = connect({
      ...splitEndpoint(endpoint),
      ...tls,
      ALPNProtocols: ['h2'],
      timeout: timeoutMs,
    });
    const finish = (problem: Error | undefined) => {
      socket.destroy();
      resolve(problem);
    };
    socket.on('timeout', () => finish(undefined));
    // A server that wants a certificate says so only after the handshake, in TLS 1.3 with the first read.
    socket.on('secureConnect', () => setTimeout(() => finish(undefined), 100));
    socket.on('error', (error: NodeJS.ErrnoException) => {
      const ended = endInHandshake(error, socket);
      if (ended) return finish(new Error(`etcd at ${endpoint}: ${ended}`, { cause: error }));
      if (/^E(CONN|HOST|NET|PIPE|TIMEDOUT|AI_|NOTFOUND)/.test(error.code ?? '')) return finish(undefined);
      const reason = (/SSL routines:[^:]*:([^:]+)/.exec(error.message)?.[1] ?? error.message).trim();
      finish(new Refused(`etcd: TLS with ${endpoint} failed: ${reason} (--cacert, --cert, --key)`));
    });
  });
}
