import { connect } from 'node:tls';
import { Refused, Unusable } from '../../backend.ts';
import { printable } from '../../text.ts';
import { NETWORK_TROUBLES, splitEndpoint } from '../connection.ts';
import { endInHandshake } from '../handshake.ts';
import { NOT_AGREED } from './grpc.ts';
import type { EtcdSpec } from './spec.ts';

/** Says what the user can mend. `right`: what a user has to be granted. Certificate errors may reach us as a broken connection: only a handshake of our own tells. */
export async function explain(
  error: Error,
  endpoint: string,
  { auth, tls }: EtcdSpec,
  right: string,
  requestMs: number,
): Promise<Error> {
  const text = `${error.name} ${error.message}`;
  if (/PermissionDenied|permission denied/i.test(text)) {
    const user = auth ? `user ${auth.username}` : 'we';
    return new Refused(`etcd: ${user} may not do this; grant the role ${right}`);
  }
  if (/authentication failed|invalid user ID or password/i.test(text))
    return new Refused('etcd: wrong user or password (--user, --password-file)');
  if (/user name is empty/i.test(text))
    return new Refused('etcd: authentication is on: give --user and --password-file');
  if (/authentication is not enabled/i.test(text))
    return new Refused('etcd: authentication is off on this server, but --user was given');
  if (/too large lease TTL/i.test(text)) return new Unusable('--ttl: longer than etcd allows');
  if (tls && /UNAVAILABLE|GRPCUnavailable/i.test(text)) {
    const problem = await tlsProblem(endpoint, tls, requestMs);
    if (problem) return problem;
  }
  return new Error(`etcd at ${endpoint}: ${printable(plainMessage(error, tls !== undefined))}`, { cause: error });
}

/** Of one member: the certificate of another one may be in order. */
class NotTrusted extends Refused {}

/** The cluster's answer: no other member would say otherwise. */
export const isFinal = (error: Error): boolean =>
  (error instanceof Refused && !(error instanceof NotTrusted)) || error instanceof Unusable || isNotFound(error);

/** What to say when each member has failed. We are refused where all of them refuse us: of one that is away nobody knows. */
export function inSum(problems: Error[]): Error {
  const last = problems.at(-1)!;
  const refusals = problems.filter((problem) => problem instanceof Refused);
  if (refusals.length === 0 || refusals.length === problems.length) return last;
  return new Error(problems.map(({ message }) => message).join('; '), { cause: last });
}

export const isNotFound = (error: Error): boolean => /lease not found/.test(error.message);

function plainMessage(error: Error, isTls: boolean): string {
  if (error.message.endsWith(NOT_AGREED))
    return isTls ? NOT_AGREED : `${NOT_AGREED}; does it speak TLS only (etcds://)?`;
  if (/Name resolution failed/.test(error.message)) return 'no such host';
  if (/DEADLINE_EXCEEDED|Deadline exceeded/.test(error.message)) return 'no answer in time';
  const reason = /ECONNREFUSED|ECONNRESET|ENOTFOUND|EHOSTUNREACH|ENETUNREACH|EAI_AGAIN|ETIMEDOUT/.exec(
    error.message,
  )?.[0];
  return (
    (reason && (NETWORK_TROUBLES[reason] ?? reason)) ||
    error.message.replace(/ Last error:.*$/s, '').replace(/\s+/g, ' ')
  );
}

/** What the slowest of servers has to tell that our certificate will not do: until then the next attempt waits. */
const LONGEST_ALERT_MS = 500;

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
    // A server that wants a certificate says so only after the handshake, in TLS 1.3 with the first read. One that is content greets us (RFC 9113, 3.4); a proxy may wait to be greeted.
    socket.on('secureConnect', () => setTimeout(() => finish(undefined), LONGEST_ALERT_MS).unref());
    socket.on('data', () => finish(undefined));
    socket.on('close', () => finish(undefined));
    socket.on('error', (error: NodeJS.ErrnoException) => {
      const ended = endInHandshake(error, socket);
      if (ended) return finish(new Error(`etcd at ${endpoint}: ${ended}`, { cause: error }));
      if (/^E(CONN|HOST|NET|PIPE|TIMEDOUT|AI_|NOTFOUND)/.test(error.code ?? '')) return finish(undefined);
      const reason = (/SSL routines:[^:]*:([^:]+)/.exec(error.message)?.[1] ?? error.message).trim();
      finish(new NotTrusted(`etcd: TLS with ${endpoint} failed: ${reason} (--cacert, --cert, --key)`));
    });
  });
}
