import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { Refused, Unusable } from '../../backend.ts';
import { printable } from '../../text.ts';
import { endInHandshake } from '../handshake.ts';
import type { Cluster } from './cluster.ts';
import type { Lease } from './record.ts';

/** Somebody else wrote first: read again. */
export class Conflict extends Error {
  override name = 'Conflict';
}

/** A `Status` as the API server answers instead of an object. */
interface Status {
  kind?: string;
  reason?: string;
  message?: string;
  details?: { kind?: string };
}

interface Answer {
  code: number;
  body: unknown;
}

/** Of a plugin, a token or a certificate that is not where the kubeconfig says, or not for us. */
const MISSING = ['ENOENT', 'ENOTDIR', 'EISDIR', 'EACCES', 'EPERM', 'ELOOP', 'ENAMETOOLONG'];

/** Far more than a Lease can hold. */
const LONGEST_ANSWER = 8 << 20;

/** One Lease of one namespace, over plain HTTP requests: its fields stay as the server sent them. Every call ends with its signal. */
export class LeaseApi {
  readonly #cluster: Cluster;
  readonly #namespace: string;
  readonly #name: string;
  readonly #granted = new Set<string>();
  #answeredAt = Date.now();

  constructor(cluster: Cluster, namespace: string, name: string) {
    this.#cluster = cluster;
    this.#namespace = namespace;
    this.#name = name;
  }

  /** When the last answer was given, in ms since 1970 by the API server's clock, which tells whole seconds; by ours where something on the way takes it out. */
  get answeredAt(): number {
    return this.#answeredAt;
  }

  /** The newest state (a read without resourceVersion is linearizable); undefined: there is no such Lease. */
  async read(signal: AbortSignal): Promise<Lease | undefined> {
    return this.#leaseOf('GET', await this.#send('GET', this.#name, undefined, signal));
  }

  /** Throws Conflict when it exists. */
  async create(lease: Lease, signal: AbortSignal): Promise<Lease> {
    const created = this.#leaseOf('POST', await this.#send('POST', '', lease, signal));
    if (!created) throw new Unusable(`kubernetes: there is no namespace ${this.#namespace}`);
    return created;
  }

  /** Throws Conflict when it is not any more as it was read; undefined: there is no such Lease. */
  async replace(lease: Lease, signal: AbortSignal): Promise<Lease | undefined> {
    return this.#leaseOf('PUT', await this.#send('PUT', this.#name, lease, signal));
  }

  /** Shows each change after that version (undefined: deleted) until `isEnough`. Rejects when the watch ends before, and when aborted. */
  async watch(
    fromVersion: string,
    isEnough: (lease: Lease | undefined) => boolean,
    signal: AbortSignal,
  ): Promise<void> {
    const query = new URLSearchParams({
      watch: '1',
      allowWatchBookmarks: 'true',
      fieldSelector: `metadata.name=${this.#name}`,
      resourceVersion: fromVersion,
    });
    const response = await this.#open('GET', `?${query}`, undefined, signal);
    const stop = () => response.destroy(signal.reason);
    signal.addEventListener('abort', stop);
    try {
      if (response.statusCode !== 200)
        throw this.#explain('WATCH', { code: response.statusCode!, body: await parsed(response) });
      let rest = '';
      for await (const chunk of response.setEncoding('utf8')) {
        const lines = (rest + chunk).split('\n');
        rest = lines.pop()!;
        for (const line of lines) {
          const { type, object } = JSON.parse(line) as { type: string; object: Lease & Status };
          if (type === 'BOOKMARK') continue;
          if (type === 'ERROR') throw new Error(`kubernetes: the watch ended: ${printable(object.message ?? '')}`);
          if (isEnough(type === 'DELETED' ? undefined : object)) return;
        }
      }
      throw new Error('kubernetes: the watch ended');
    } finally {
      signal.removeEventListener('abort', stop);
      response.destroy();
    }
  }

  async #send(method: string, path: string, body: Lease | undefined, signal: AbortSignal): Promise<Answer> {
    for (let isSecondTry = false; ; isSecondTry = true) {
      const response = await this.#open(method, path, body, signal);
      this.#answeredAt = Date.parse(response.headers.date ?? '') || Date.now();
      const answer = { code: response.statusCode!, body: await abortable(parsed(response), signal, response) };
      // A credential may have expired or been replaced before its time.
      if (answer.code !== 401 || isSecondTry) return answer;
      this.#cluster.refresh();
    }
  }

  /** Until the head of the answer is there. */
  async #open(method: string, path: string, body: Lease | undefined, signal: AbortSignal): Promise<IncomingMessage> {
    signal.throwIfAborted();
    const { agent, headers, auth } = await abortable(this.#credentials(), signal);
    const slash = path === '' || path.startsWith('?') ? '' : '/';
    const url = `${this.#cluster.server}/apis/coordination.k8s.io/v1/namespaces/${this.#namespace}/leases${slash}${path}`;
    const text = body && JSON.stringify(body);
    const request = (url.startsWith('https:') ? httpsRequest : httpRequest)(url, {
      method,
      agent,
      ...(auth ? { auth } : {}),
      headers: {
        Accept: 'application/json',
        'User-Agent': 'elect-run',
        ...(text ? { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) } : {}),
        ...headers,
      },
    });
    const answered = new Promise<IncomingMessage>((resolve, reject) => {
      request.on('response', resolve);
      // What we ended ourselves ends with our reason, which is not the network's.
      request.on('error', (error) => reject(signal.aborted ? signal.reason : this.#unreachable(error, request)));
    });
    request.end(text);
    return abortable(answered, signal, request);
  }

  async #credentials() {
    try {
      return await this.#cluster.credentials();
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      // Its message shows how the text begins, which may be a token.
      if (error instanceof SyntaxError)
        throw new Error('kubernetes: no credentials: what the exec plugin printed is not JSON');
      const text = `kubernetes: no credentials: ${printable((message.trim().split('\n')[0] || code) ?? 'the exec plugin failed')}`;
      const isMissing = MISSING.includes(code!) || /HTTP protocol is not allowed/.test(message);
      // A plugin or a file that has served is put in place anew, as in an upgrade.
      if (isMissing && !this.#cluster.hasServed) throw new Unusable(text);
      throw new Error(text, { cause: error });
    }
  }

  #leaseOf(method: string, answer: Answer): Lease | undefined {
    const { kind, reason } = (answer.body ?? {}) as Status;
    // A proxy on the way may say 404, too: only the API server's own word counts.
    const isAbsent = answer.code === 404 && kind === 'Status' && reason === 'NotFound';
    if (!isAbsent && answer.code !== 200 && answer.code !== 201) throw this.#explain(method, answer);
    if (!isAbsent && !isLease(answer.body)) throw new Error(`kubernetes at ${this.#cluster.server}: this is no Lease`);
    this.#granted.add(method);
    return isAbsent ? undefined : (answer.body as Lease);
  }

  #explain(method: string, { code, body }: Answer): Error {
    const { message = '', reason } = (body ?? {}) as Status;
    const said = printable(message || `HTTP ${code}`).slice(0, 500);
    if (code === 401 || code === 403) {
      const text = `kubernetes: ${code === 401 ? this.#unknown() : this.#missingRight(said)}`;
      // An API server that has just started knows no Role yet, and says so even to those whom it had granted the same before.
      return this.#granted.has(method) ? new Error(text) : new Refused(text);
    }
    if (code === 409 && (reason === 'Conflict' || reason === 'AlreadyExists')) return new Conflict(said);
    if (code === 422 || code === 400) return new Unusable(`kubernetes: ${said}`);
    return new Error(`kubernetes at ${this.#cluster.server}: ${said}`);
  }

  #unknown(): string {
    const { server, context } = this.#cluster;
    return `${server} does not know us (401): check the credentials of context ${printable(context)}`;
  }

  /** The Role that would grant it, as a command. */
  #missingRight(said: string): string {
    const [, user, verb] = /User "([^"]*)" cannot (\w+) resource "leases"/.exec(said) ?? [];
    if (user === undefined) return said;
    const [, account] = /^system:serviceaccount:([^:]+:[^:]+)$/.exec(user) ?? [];
    const subject = account ? `--serviceaccount=${account}` : `--user=${user}`;
    return (
      `user ${user} may not ${verb} leases in namespace ${this.#namespace}; ` +
      `grant: kubectl create role elect-run -n ${this.#namespace} --verb=get,create,update,watch --resource=leases.coordination.k8s.io` +
      ` && kubectl create rolebinding elect-run -n ${this.#namespace} --role=elect-run ${subject}`
    );
  }

  #unreachable(error: NodeJS.ErrnoException, { socket }: ClientRequest): Error {
    const { server } = this.#cluster;
    const { code = '', message } = error;
    if (code === 'EPROTO' || /CERT|SIGNATURE|ERR_TLS_|ERR_SSL_WRONG_VERSION/.test(code)) {
      const problem = code === 'EPROTO' ? 'it does not speak TLS, or refuses ours' : message;
      return new Refused(
        `kubernetes: TLS with ${server} failed: ${printable(problem)} (certificate-authority, tls-server-name)`,
      );
    }
    const said = endInHandshake(error, socket) ?? printable(message || code);
    return new Error(`kubernetes at ${server}: ${said}`, { cause: error });
  }
}

async function parsed(response: IncomingMessage): Promise<unknown> {
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) {
    text += chunk;
    if (text.length > LONGEST_ANSWER) throw new Error('kubernetes: the answer is too long');
  }
  try {
    return JSON.parse(text) as unknown;
  } catch {
    if (response.statusCode === 200) throw new Error('kubernetes: the answer is not JSON');
    return { message: text.split('\n')[0] };
  }
}

/** So far as we use it. What is between us and the API server may answer anything. */
function isLease(body: unknown): boolean {
  const { kind, metadata, spec } = (body ?? {}) as Partial<Lease> & Status;
  const holder = spec?.holderIdentity ?? '';
  return kind === 'Lease' && /^\d+$/.test(metadata?.resourceVersion ?? '') && typeof holder === 'string';
}

/** Settles as the promise does, or rejects with the signal's reason; `what` is ended then. */
function abortable<T>(promise: Promise<T>, signal: AbortSignal, what?: ClientRequest | IncomingMessage): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      reject(signal.reason);
      what?.destroy();
    };
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort);
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
