import { now } from '../../clock.ts';
import type { Answer, Examiner } from '../../doctor/examiner.ts';
import { validityOf } from '../certificate.ts';
import { EtcdMembers } from './members.ts';
import { BOOKS, type EtcdSpec } from './spec.ts';

export interface EtcdMember extends Answer {
  /** What it says of itself; undefined where it does not answer. */
  status:
    | {
        cluster: string;
        /** '0': it knows none. */
        leader: string;
        version: string;
        databaseBytes: number;
        isLearner: boolean;
        /** Alarms (NOSPACE, CORRUPT), and that there is no leader. etcd 3.4 and later. */
        errors: string[];
      }
    | undefined;
}

export interface EtcdHealth {
  kind: 'etcd';
  members: EtcdMember[];
  /** How many the cluster has; undefined where it does not tell us. */
  size: number | undefined;
}

export class EtcdExaminer implements Examiner {
  readonly #spec: EtcdSpec;
  readonly #requestMs: number;
  readonly #members: EtcdMembers;

  constructor(spec: EtcdSpec, election: string, requestMs: number) {
    this.#spec = spec;
    this.#requestMs = requestMs;
    this.#members = new EtcdMembers(spec, requestMs, `readwrite on the prefix ${election}/`);
  }

  async health(_election: string, signal: AbortSignal): Promise<EtcdHealth> {
    const [members, size] = await Promise.all([
      Promise.all(this.#spec.endpoints.map((endpoint) => this.#memberAt(endpoint, signal))),
      this.#members
        .call(signal, ({ cluster }) => cluster.memberList({ linearizable: false }))
        .then(
          ({ members }) => members.length,
          () => undefined,
        ),
    ]);
    return { kind: 'etcd', members, size };
  }

  async #memberAt(endpoint: string, signal: AbortSignal): Promise<EtcdMember> {
    const alone = new EtcdMembers({ ...this.#spec, endpoints: [endpoint] }, this.#requestMs, '');
    const { tls } = this.#spec;
    const validUntil = tls && (await validityOf(endpoint, tls, signal));
    try {
      await alone.call(signal, ({ maintenance }) => maintenance.status()); // connects
      const sentAt = now();
      const told = await alone.call(signal, ({ maintenance }) => maintenance.status());
      const { header, leader, version, isLearner, errors } = told;
      const status = {
        cluster: header.cluster_id,
        leader,
        version,
        databaseBytes: Number(told.dbSize),
        isLearner,
        errors,
      };
      return { endpoint, tookMs: now() - sentAt, problem: undefined, validUntil, status };
    } catch (error) {
      return { endpoint, tookMs: undefined, problem: (error as Error).message, validUntil, status: undefined };
    } finally {
      alone.close();
    }
  }

  /** A transaction whose condition no key meets: etcd asks for the rights to both of its branches all the same (etcdserver/apply_auth.go, checkTxnAuth). */
  async enter(election: string, signal: AbortSignal): Promise<true> {
    const key = Buffer.from(`${election}/0`);
    await this.#members.call(signal, ({ kv }) =>
      kv.txn({
        compare: [{ key, target: 'Version', result: 'Less', version: '0' }],
        success: [{ request_put: { key, value: Buffer.alloc(0) } }],
        failure: [{ request_range: { key } }],
      }),
    );
    return true;
  }

  async prepare(): Promise<void> {}

  async sweep(election: string, signal: AbortSignal): Promise<void> {
    const key = Buffer.from(`${BOOKS}/${election}`);
    await this.#members.call(signal, ({ kv }) => kv.deleteRange({ key }));
  }

  async close(): Promise<void> {
    this.#members.close();
  }
}
