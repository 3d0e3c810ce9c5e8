import { now, untilAborted } from '../../clock.ts';
import type { Answer, Examiner } from '../../doctor/examiner.ts';
import { race } from '../../waiting.ts';
import { validityOf } from '../certificate.ts';
import { clientOf } from './client.ts';
import { explain } from './errors.ts';
import { EtcdMembers } from './members.ts';
import { DELETE_RANGE, TXN } from './methods.ts';
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
      this.#size(signal),
    ]);
    return { kind: 'etcd', members, size };
  }

  async #memberAt(endpoint: string, signal: AbortSignal): Promise<EtcdMember> {
    const { tls } = this.#spec;
    const validUntil = tls && (await validityOf(endpoint, tls, signal));
    const client = clientOf(endpoint, this.#spec, this.#requestMs);
    try {
      await unlessAborted(client.maintenance.status(), signal); // connects
      const sentAt = now();
      const told = await unlessAborted(client.maintenance.status(), signal);
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
      const { message } = await explain(error as Error, endpoint, this.#spec, '', this.#requestMs);
      return { endpoint, tookMs: undefined, problem: message, validUntil, status: undefined };
    } finally {
      client.close();
    }
  }

  /** Undefined where no member tells. */
  async #size(signal: AbortSignal): Promise<number | undefined> {
    const clients = this.#spec.endpoints.map((endpoint) => clientOf(endpoint, this.#spec, this.#requestMs));
    const lists = clients.map(({ cluster }) => cluster.memberList({ linearizable: false }));
    try {
      return (await unlessAborted(Promise.any(lists), signal)).members.length;
    } catch {
      return undefined;
    } finally {
      for (const client of clients) client.close();
    }
  }

  /** A transaction whose condition no key meets: etcd asks for the rights to both of its branches all the same (etcdserver/apply_auth.go, checkTxnAuth). */
  async enter(election: string, signal: AbortSignal): Promise<true> {
    const key = Buffer.from(`${election}/0`);
    await this.#members.ask(
      TXN,
      {
        compare: [{ key, target: 'Version', result: 'Less', version: '0' }],
        success: [{ request_put: { key, value: Buffer.alloc(0) } }],
        failure: [{ request_range: { key } }],
      },
      signal,
    );
    return true;
  }

  async prepare(): Promise<void> {}

  async sweep(election: string, signal: AbortSignal): Promise<void> {
    const key = Buffer.from(`${BOOKS}/${election}`);
    await this.#members.ask(DELETE_RANGE, { key }, signal);
  }

  async close(): Promise<void> {
    this.#members.close();
  }
}

function unlessAborted<T>(answer: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = untilAborted(signal).then(() => {
    throw signal.reason;
  });
  return race([answer, aborted]);
}
