import { connect } from 'node:net';
import { now, within } from '../../clock.ts';
import type { Answer, Examiner } from '../../doctor/examiner.ts';
import { printable } from '../../text.ts';
import { NETWORK_TROUBLES, splitEndpoint } from '../connection.ts';
import { CODES, type Done, isAnswer } from './library.ts';
import { Session } from './session.ts';
import { BOOKS, type ZooKeeperSpec } from './spec.ts';

export interface ZooKeeperServer extends Answer {
  /** leader, follower, observer, standalone; undefined where it does not tell. */
  mode: string | undefined;
  version: string | undefined;
}

export interface ZooKeeperHealth {
  kind: 'zookeeper';
  servers: ZooKeeperServer[];
  /** The longest session that is granted; undefined where that could not be asked. */
  longestMs: number | undefined;
}

/** Longer than anybody grants. */
const FOR_EVER_MS = 86_400_000;

export class ZooKeeperExaminer implements Examiner {
  readonly #spec: ZooKeeperSpec;
  readonly #requestMs: number;
  readonly #session: Session;
  #wasThere = new Set<string>();

  constructor(spec: ZooKeeperSpec, requestMs: number) {
    this.#spec = spec;
    this.#requestMs = requestMs;
    this.#session = this.#newSession(15_000);
  }

  async health(_election: string, signal: AbortSignal): Promise<ZooKeeperHealth> {
    const [servers, longestMs] = await Promise.all([
      Promise.all(this.#spec.endpoints.map((endpoint) => serverAt(endpoint, signal))),
      this.#longest(signal),
    ]);
    return { kind: 'zookeeper', servers, longestMs };
  }

  async #longest(signal: AbortSignal): Promise<number | undefined> {
    const session = this.#newSession(FOR_EVER_MS);
    try {
      await session.call(signal, (client, done: Done<[string]>) => client.a_sync('/', done));
      await session.end(signal);
      return session.grantedMs;
    } catch {
      session.cut();
      return undefined;
    }
  }

  async enter(_election: string, signal: AbortSignal): Promise<false> {
    await this.#session.call(signal, (client, done: Done<[string]>) => client.a_sync('/', done));
    return false;
  }

  async prepare(election: string, signal: AbortSignal): Promise<void> {
    for (const path of this.#pathsOf(election)) if (await this.#isThere(path, signal)) this.#wasThere.add(path);
  }

  async sweep(election: string, signal: AbortSignal): Promise<void> {
    for (const path of this.#pathsOf(election).filter((one) => !this.#wasThere.has(one))) {
      try {
        await this.#session.call(signal, (client, done: Done<[]>) => client.a_delete_(path, -1, done));
      } catch (error) {
        // Gone as an empty container, or somebody else's by now.
        if (!isAnswer(error, CODES.noNode, CODES.notEmpty, CODES.noAuth)) throw error;
      }
    }
  }

  async close(): Promise<void> {
    await this.#session.end(within(this.#requestMs)).catch(() => this.#session.cut());
  }

  /** All that may be made for its sake, the innermost first. */
  #pathsOf(election: string): string[] {
    const name = election.replace(/^\//, '');
    const { chroot } = this.#spec;
    return [`${chroot}/${name}`, `${chroot}/${BOOKS}/${encodeURIComponent(name)}`].flatMap(lineage);
  }

  async #isThere(path: string, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#session.stat(path, signal);
      return true;
    } catch (error) {
      if (isAnswer(error, CODES.noNode)) return false;
      throw error;
    }
  }

  #newSession(ttlMs: number): Session {
    return new Session(this.#spec, { election: '', id: '', ttlMs, requestMs: this.#requestMs });
  }
}

/** `/a/b` → `/a/b`, `/a`. */
function lineage(path: string): string[] {
  const parts = path.split('/').slice(1);
  return parts.map((_, index) => `/${parts.slice(0, parts.length - index).join('/')}`);
}

/** By the word `srvr`, which every server answers unless that was forbidden (ZooKeeper, "The Four Letter Words"). */
function serverAt(endpoint: string, signal: AbortSignal): Promise<ZooKeeperServer> {
  return new Promise((resolve) => {
    const socket = connect(splitEndpoint(endpoint));
    let sentAt = now();
    let text = '';
    const finish = (problem: string | undefined) => {
      socket.destroy();
      const [, mode] = /^Mode: (\w+)/m.exec(text) ?? [];
      const [, version] = /^Zookeeper version: ([^-,\s]+)/m.exec(text) ?? [];
      const tookMs = problem === undefined ? now() - sentAt : undefined;
      resolve({ endpoint, tookMs, problem, mode, version });
    };
    socket.on('connect', () => {
      sentAt = now();
      socket.write('srvr');
    });
    socket.on('data', (chunk) => {
      text += chunk;
    });
    socket.on('error', ({ code = '', message }: NodeJS.ErrnoException) =>
      finish(NETWORK_TROUBLES[code] ?? (message || code)),
    );
    socket.on('end', () => finish(/not currently serving/.test(text) ? printable(text.trim()) : undefined));
    signal.addEventListener('abort', () => finish('no answer in time'), { once: true });
  });
}
