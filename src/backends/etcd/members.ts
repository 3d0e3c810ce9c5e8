import { explain, inSum, isFinal } from './errors.ts';
import type { Method } from './grpc.ts';
import { Member } from './member.ts';
import type { EtcdSpec } from './spec.ts';

/**
 * The members of a cluster. A request goes to the member that answered last. When that one is silent for a third of the request's time, or fails, the next one is asked as
 * well, and the first answer counts: every request here may safely be made twice.
 */
export class EtcdMembers {
  readonly #spec: EtcdSpec;
  readonly #requestMs: number;
  readonly #right: string;
  readonly #members: Member[];
  #preferred = 0;

  /** `right`: what a user has to be granted, for the message when it is missing. */
  constructor(spec: EtcdSpec, requestMs: number, right: string) {
    this.#spec = spec;
    this.#requestMs = requestMs;
    this.#right = right;
    this.#members = spec.endpoints.map((endpoint) => new Member(endpoint, spec, requestMs));
  }

  ask<Request, Answer>(method: Method<Request, Answer>, request: Request, signal: AbortSignal): Promise<Answer> {
    return this.#first((member) => member.ask(method, request), signal);
  }

  /** Renews the lease once and returns its length in seconds; 0: there is no such lease. */
  keepAlive(lease: string, signal: AbortSignal): Promise<number> {
    return this.#first((member) => member.keepAlive(lease), signal);
  }

  /** Resolves at the deletion of one of the keys at or after that revision, with those deleted; with none when aborted. Rejects when the watch breaks. `changed` hears of new values before. */
  async watchDeletion(
    keys: string[],
    fromRevision: bigint,
    signal: AbortSignal,
    changed?: (key: string, value: string) => void,
  ): Promise<string[]> {
    const member = this.#members[this.#preferred]!;
    try {
      return await member.watchDeletion(keys, fromRevision, signal, changed);
    } catch (error) {
      member.reset();
      throw error;
    }
  }

  close(): void {
    for (const member of this.#members) member.reset();
  }

  async #first<T>(request: (member: Member) => Promise<T>, signal: AbortSignal): Promise<T> {
    signal.throwIfAborted();
    const order = this.#members.map((_, index) => this.#members[(this.#preferred + index) % this.#members.length]!);
    return new Promise<T>((resolve, reject) => {
      const unanswered = new Set<Member>();
      let hedge: NodeJS.Timeout | undefined;
      const problems: Error[] = [];
      const settle = (act: () => void) => {
        clearTimeout(hedge);
        signal.removeEventListener('abort', onAbort);
        // A connection that did not answer may be half open: TCP would wait for minutes.
        for (const member of unanswered) member.reset();
        unanswered.clear();
        act();
      };
      const onAbort = () => settle(() => reject(signal.reason));
      signal.addEventListener('abort', onAbort);
      const askNext = () => {
        clearTimeout(hedge);
        const member = order.shift();
        if (!member) {
          if (unanswered.size === 0) settle(() => reject(inSum(problems)));
          return;
        }
        unanswered.add(member);
        hedge = order.length > 0 ? setTimeout(askNext, this.#requestMs / 3) : undefined;
        request(member).then(
          (answer) => {
            if (!unanswered.delete(member)) return;
            this.#preferred = this.#members.indexOf(member);
            settle(() => resolve(answer));
          },
          async (error: Error) => {
            const plain = await explain(error, member.endpoint, this.#spec, this.#right, this.#requestMs);
            if (!unanswered.delete(member)) return;
            problems.push(plain);
            if (isFinal(plain)) settle(() => reject(plain));
            else {
              member.reset();
              askNext();
            }
          },
        );
      };
      askNext();
    });
  }
}
