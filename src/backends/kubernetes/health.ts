import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { now } from '../../clock.ts';
import type { Examiner } from '../../doctor/examiner.ts';
import { printable } from '../../text.ts';
import { validityOf } from '../certificate.ts';
import { endInHandshake } from '../handshake.ts';
import { LeaseApi } from './api.ts';
import { Cluster } from './cluster.ts';
import { BOOK_SUFFIX, type KubernetesSpec } from './spec.ts';

/** What may be done with Leases. The first three are needed. */
export const VERBS = ['get', 'create', 'update', 'watch', 'delete'] as const;
export type Verb = (typeof VERBS)[number];

export interface KubernetesHealth {
  kind: 'kubernetes';
  server: string;
  namespace: string;
  version: string | undefined;
  tookMs: number | undefined;
  /** Why it does not answer. */
  problem: string | undefined;
  /** By how much its wall clock is ahead of ours, and how sure that is. */
  clock: { aheadMs: number; withinMs: number } | undefined;
  /** With the election's own Lease; undefined where it does not tell. */
  denied: Verb[] | undefined;
  /** With that of its run records. */
  deniedBook: Verb[] | undefined;
  validUntil: number | undefined;
}

interface Answer {
  code: number;
  body: Record<string, unknown>;
  date: number;
  tookMs: number;
}

export class KubernetesExaminer implements Examiner {
  readonly #cluster: Cluster;
  readonly #namespace: string;

  constructor(spec: KubernetesSpec) {
    this.#cluster = new Cluster(spec);
    this.#namespace = spec.namespace ?? this.#cluster.namespace ?? 'default';
  }

  async health(election: string, signal: AbortSignal): Promise<KubernetesHealth> {
    const { server } = this.#cluster;
    const unknown = { version: undefined, tookMs: undefined, clock: undefined, denied: undefined };
    const where = { kind: 'kubernetes' as const, server, namespace: this.#namespace };
    try {
      await this.#ask('GET', '/version', undefined, signal); // connects
      const asked = Date.now();
      const { body, date, tookMs } = await this.#ask('GET', '/version', undefined, signal);
      // The header Date has whole seconds: on the average it is half a second old.
      const aheadMs = date + HALF_A_SECOND_MS - (asked + tookMs / 2);
      const clock = Number.isNaN(date) ? undefined : { aheadMs, withinMs: HALF_A_SECOND_MS + tookMs / 2 };
      const version = typeof body.gitVersion === 'string' ? printable(body.gitVersion) : undefined;
      const denied = await this.#denied(election, signal);
      const deniedBook = await this.#denied(election + BOOK_SUFFIX, signal);
      const validUntil = await this.#validUntil(signal);
      return { ...where, version, tookMs, problem: undefined, clock, denied, deniedBook, validUntil };
    } catch (error) {
      return {
        ...where,
        ...unknown,
        deniedBook: undefined,
        validUntil: undefined,
        problem: printable((error as Error).message),
      };
    }
  }

  async enter(election: string, signal: AbortSignal): Promise<false> {
    await new LeaseApi(this.#cluster, this.#namespace, election).read(signal);
    return false;
  }

  async prepare(): Promise<void> {}

  async sweep(election: string, signal: AbortSignal): Promise<void> {
    for (const name of [election, election + BOOK_SUFFIX]) {
      const path = `/apis/coordination.k8s.io/v1/namespaces/${this.#namespace}/leases/${name}`;
      const { code, body } = await this.#ask('DELETE', path, undefined, signal);
      if (code >= 300 && code !== 404) throw new Error(`kubernetes: ${printable(String(body.message ?? code))}`);
    }
  }

  async close(): Promise<void> {
    this.#cluster.close();
  }

  /** By SelfSubjectAccessReview, which system:basic-user lets everybody ask. */
  async #denied(name: string, signal: AbortSignal): Promise<Verb[] | undefined> {
    const reviews = await Promise.all(
      VERBS.map(async (verb) => {
        const attributes = { namespace: this.#namespace, group: 'coordination.k8s.io', resource: 'leases', verb, name };
        const body = {
          apiVersion: 'authorization.k8s.io/v1',
          kind: 'SelfSubjectAccessReview',
          // What is to be created has no name yet when the right to it is looked up (Kubernetes, "Authorization").
          spec: { resourceAttributes: verb === 'create' ? { ...attributes, name: undefined } : attributes },
        };
        const answer = await this.#ask('POST', '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews', body, signal);
        return (answer.body.status as { allowed?: boolean } | undefined)?.allowed;
      }),
    );
    if (reviews.includes(undefined)) return undefined;
    return VERBS.filter((_, index) => reviews[index] !== true);
  }

  async #validUntil(signal: AbortSignal): Promise<number | undefined> {
    const { protocol, hostname, port } = new URL(this.#cluster.server);
    return protocol === 'https:' ? validityOf(`${hostname}:${port || 443}`, {}, signal) : undefined;
  }

  async #ask(method: string, path: string, body: object | undefined, signal: AbortSignal): Promise<Answer> {
    const { agent, headers, auth } = await this.#cluster.credentials();
    const url = this.#cluster.server + path;
    const sentAt = now();
    return new Promise((resolve, reject) => {
      const request = (url.startsWith('https:') ? httpsRequest : httpRequest)(url, {
        method,
        agent,
        signal,
        ...(auth ? { auth } : {}),
        headers: {
          Accept: 'application/json',
          'User-Agent': 'elect-run',
          ...(body ? { 'Content-Type': 'application/json' } : {}),
          ...headers,
        },
      });
      request.on('error', (error) => {
        const said = endInHandshake(error, request.socket);
        reject(said === undefined ? error : new Error(said, { cause: error }));
      });
      request.on('response', (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk;
        });
        response.on('error', reject);
        response.on('end', () =>
          resolve({
            code: response.statusCode!,
            body: parsed(text),
            date: Date.parse(response.headers.date ?? ''),
            tookMs: now() - sentAt,
          }),
        );
      });
      request.end(body && JSON.stringify(body));
    });
  }
}

const HALF_A_SECOND_MS = 500;

function parsed(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return { message: text.split('\n')[0] };
  }
}
