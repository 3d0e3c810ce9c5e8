import { type Call, GrpcChannel, type GrpcError, type Method } from './grpc.ts';
import { AUTHENTICATE, LEASE_KEEP_ALIVE, WATCH } from './methods.ts';
import type { EtcdSpec } from './spec.ts';

/** A member that lost its cluster answers "no leader" at once instead of keeping us waiting (etcd's Go client sends the same). */
const REQUIRE_LEADER = { hasleader: 'true' };

const NO_PUT = ['Noput' as const];

/** One member of a cluster: a connection to it, on which all calls and streams are, and who we are there. */
export class Member {
  readonly endpoint: string;
  readonly #auth: EtcdSpec['auth'];
  readonly #requestMs: number;
  readonly #channel: GrpcChannel;
  #token: Promise<string> | undefined;
  #renewals: Renewals;

  constructor(endpoint: string, { tls, auth }: EtcdSpec, requestMs: number) {
    this.endpoint = endpoint;
    this.#auth = auth;
    this.#requestMs = requestMs;
    this.#channel = new GrpcChannel(endpoint, tls);
    this.#renewals = new Renewals(this.#channel);
  }

  ask<Request, Answer>(method: Method<Request, Answer>, request: Request): Promise<Answer> {
    return this.#asUser((metadata) => this.#channel.unary(method, request, metadata, this.#requestMs));
  }

  /** Renews the lease once and returns its length in seconds; 0: there is no such lease. */
  keepAlive(lease: string): Promise<number> {
    return this.#asUser((metadata) => this.#renewals.renew(lease, metadata, this.#requestMs));
  }

  /** Resolves at the deletion of one of the keys at or after that revision, with those deleted; with none when aborted. Rejects when the watch breaks. `changed` hears of new values before. */
  watchDeletion(
    keys: string[],
    fromRevision: bigint,
    signal: AbortSignal,
    changed?: (key: string, value: string) => void,
  ): Promise<string[]> {
    return this.#asUser(
      (metadata) =>
        new Promise((resolve, reject) => {
          const end = (act: () => void) => {
            signal.removeEventListener('abort', onAbort);
            call.cancel();
            act();
          };
          const onAbort = () => end(() => resolve([]));
          const call = this.#channel.open(WATCH, metadata, {
            message: ({ canceled, cancel_reason, events }) => {
              if (canceled) end(() => reject(new Error(cancel_reason || 'the watch was cancelled')));
              for (const { type, kv } of events) if (type === 'Put') changed?.(kv.key.toString(), kv.value.toString());
              const deleted = events.filter(({ type }) => type === 'Delete').map(({ kv }) => kv.key.toString());
              if (deleted.length > 0) end(() => resolve(deleted));
            },
            ended: (error) => end(() => reject(error ?? new Error('the watch ended'))),
          });
          signal.addEventListener('abort', onAbort);
          if (signal.aborted) return onAbort();
          for (const key of keys) {
            const create = {
              key: Buffer.from(key),
              start_revision: String(fromRevision),
              filters: changed ? [] : NO_PUT,
            };
            call.write({ create_request: create });
          }
        }),
    );
  }

  /** Ends the connection with all that is on it. It is opened anew when it is needed. */
  reset(): void {
    this.#renewals = new Renewals(this.#channel);
    this.#channel.reset();
  }

  /** Tokens lapse when they are not used, and with a restart of the member: then once more, with a new one. */
  async #asUser<T>(act: (metadata: Record<string, string>) => Promise<T>): Promise<T> {
    if (!this.#auth) return act(REQUIRE_LEADER);
    const token = this.#authenticated();
    try {
      return await act({ ...REQUIRE_LEADER, token: await token });
    } catch (error) {
      if (!isStaleToken(error as GrpcError)) throw error;
      if (this.#token === token) this.#token = undefined;
      return act({ ...REQUIRE_LEADER, token: await this.#authenticated() });
    }
  }

  #authenticated(): Promise<string> {
    if (this.#token) return this.#token;
    const { username, password } = this.#auth!;
    const token = this.#channel
      .unary(AUTHENTICATE, { name: username, password }, REQUIRE_LEADER, this.#requestMs)
      .then((answer) => answer.token);
    token.catch(() => {
      if (this.#token === token) this.#token = undefined;
    });
    this.#token = token;
    return token;
  }
}

const isStaleToken = ({ message }: GrpcError): boolean =>
  /invalid auth token|revision of auth store is old/.test(message);

interface Renewing {
  lease: string;
  renewed(ttlSeconds: number): void;
  failed(error: Error): void;
}

/** The stream of a connection on which leases are renewed. */
class Renewals {
  readonly #channel: GrpcChannel;
  #stream: Call<{ ID: string }> | undefined;
  /** In the order in which they were sent, which is that of the answers to each lease: those given up stay in it, or their answer would be taken for that of the next. */
  #sent: Renewing[] = [];

  constructor(channel: GrpcChannel) {
    this.#channel = channel;
  }

  renew(lease: string, metadata: Record<string, string>, timeoutMs: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('the lease was not renewed in time')), timeoutMs);
      const settle =
        <Value>(act: (value: Value) => void) =>
        (value: Value) => {
          clearTimeout(timer);
          act(value);
        };
      this.#sent.push({ lease, renewed: settle(resolve), failed: settle(reject) });
      this.#stream ??= this.#open(metadata);
      this.#stream.write({ ID: lease });
    });
  }

  #open(metadata: Record<string, string>): Call<{ ID: string }> {
    return this.#channel.open(LEASE_KEEP_ALIVE, metadata, {
      message: ({ ID, TTL }) => {
        const index = this.#sent.findIndex(({ lease }) => lease === ID);
        this.#sent.splice(index, index === -1 ? 0 : 1)[0]?.renewed(Number(TTL));
      },
      ended: (error) => {
        this.#stream = undefined;
        for (const { failed } of this.#sent.splice(0)) failed(error ?? new Error('the stream of renewals ended'));
      },
    });
  }
}
