import { Refused } from '../../backend.ts';
import { now } from '../../clock.ts';
import type { Answer, Examiner } from '../../doctor/examiner.ts';
import { validityOf } from '../certificate.ts';
import { RedisConnection } from './connection.ts';
import deniedScript from './denied.lua';
import { type RedisSpec, rightsFor } from './spec.ts';

export interface Sentinel extends Answer {
  /** `host:port` of whom it takes for the master; undefined: it knows none of that name. */
  master: string | undefined;
}

export interface RedisHealth {
  kind: 'redis';
  /** Undefined where it does not tell. */
  server:
    | {
        version: string;
        role: string;
        /** Keeps every write on disk. */
        isAppendOnly: boolean;
        evictionPolicy: string;
        /** 0: as much as there is. */
        memoryLimit: number;
        replicas: { address: string; isOnline: boolean; lagSeconds: number }[];
      }
    | undefined;
  /** We may not ask how it is (INFO). */
  isForbidden: boolean;
  /** By how much its wall clock is ahead of ours, and how sure that is. */
  clock: { aheadMs: number; withinMs: number } | undefined;
  waitReplicas: number;
  sentinels: Sentinel[] | undefined;
  validUntil: number | undefined;
}

export class RedisExaminer implements Examiner {
  readonly #spec: RedisSpec;
  readonly #requestMs: number;
  readonly #connection: RedisConnection;

  constructor(spec: RedisSpec, election: string, requestMs: number) {
    this.#spec = spec;
    this.#requestMs = requestMs;
    this.#connection = new RedisConnection(spec, requestMs, rightsFor(election, spec));
  }

  async health(_election: string, signal: AbortSignal): Promise<RedisHealth> {
    const { master, endpoints, waitReplicas, tls } = this.#spec;
    const sentinels = master && Promise.all(endpoints.map((endpoint) => this.#sentinelAt(endpoint, master, signal)));
    const validUntil = tls && (await validityOf(endpoints[0]!, tls, signal));
    const [told, clock] = [await this.#info(signal), await this.#clock(signal).catch(() => undefined)];
    return { kind: 'redis', ...told, clock, waitReplicas, sentinels: (await sentinels) || undefined, validUntil };
  }

  async #info(signal: AbortSignal): Promise<Pick<RedisHealth, 'server' | 'isForbidden'>> {
    try {
      return { server: readInfo(await this.#connection.call(signal, (client) => client.info())), isForbidden: false };
    } catch (error) {
      const isForbidden = error instanceof Refused && error.message.includes('may not do this');
      return { server: undefined, isForbidden };
    }
  }

  async #clock(signal: AbortSignal): Promise<RedisHealth['clock']> {
    const [sentAt, asked] = [now(), Date.now()];
    const [seconds, micros] = await this.#connection.call(signal, (client) => client.time());
    const tookMs = now() - sentAt;
    return { aheadMs: Number(seconds) * 1000 + Number(micros) / 1000 - (asked + tookMs / 2), withinMs: tookMs / 2 };
  }

  async #sentinelAt(endpoint: string, name: string, signal: AbortSignal): Promise<Sentinel> {
    const spec = { ...this.#spec, endpoints: [endpoint], master: undefined, database: 0, auth: undefined };
    const connection = new RedisConnection(spec, this.#requestMs, '');
    try {
      await connection.call(signal, (client) => client.ping());
      const sentAt = now();
      const address = await connection.call(signal, (client) =>
        client.call('SENTINEL', 'get-master-addr-by-name', name),
      );
      const master = (address as string[] | null)?.join(':');
      return { endpoint, tookMs: now() - sentAt, problem: undefined, master };
    } catch (error) {
      return { endpoint, tookMs: undefined, problem: (error as Error).message, master: undefined };
    } finally {
      connection.close();
    }
  }

  /** EVAL is refused for keys to which we have no right, whatever the script does with them (Redis, "ACL", key permissions). */
  async enter(election: string, signal: AbortSignal): Promise<boolean> {
    const keys = [election, `{${election}}:token`, `{${election}}:baton`];
    const denied = (await this.#connection.call(signal, (client) => client.eval(deniedScript, keys.length, ...keys))) as
      | string[]
      | null;
    if (denied?.length)
      throw new Refused(`redis: we may not ${denied.join(', ')}; grant ${rightsFor(election, this.#spec)}`);
    return denied !== null;
  }

  async prepare(): Promise<void> {}

  async sweep(election: string, signal: AbortSignal): Promise<void> {
    const keys = ['token', 'baton', 'runs'].map((what) => `{${election}}:${what}`);
    for (const key of keys) await this.#connection.call(signal, (client) => client.del(key)).catch(unlessRefused);
  }

  async close(): Promise<void> {
    this.#connection.close();
  }
}

function readInfo(text: string): NonNullable<RedisHealth['server']> {
  const fields = new Map(text.split(/\r?\n/).map((line) => line.split(/:(.*)/s, 2) as [string, string]));
  const replicas = [...fields]
    .filter(([name]) => /^slave\d+$/.test(name))
    .map(([, value]) => Object.fromEntries(value.split(',').map((part) => part.split('='))))
    .map(({ ip, port, state, lag }) => ({
      address: `${ip}:${port}`,
      isOnline: state === 'online',
      lagSeconds: Number(lag),
    }));
  return {
    version: fields.get('redis_version') ?? 'unknown',
    role: fields.get('role') ?? 'unknown',
    isAppendOnly: fields.get('aof_enabled') === '1',
    evictionPolicy: fields.get('maxmemory_policy') ?? 'noeviction',
    memoryLimit: Number(fields.get('maxmemory') ?? 0),
    replicas,
  };
}

/** Where we have no right we have not written. */
function unlessRefused(error: Error): void {
  if (!(error instanceof Refused)) throw error;
}
