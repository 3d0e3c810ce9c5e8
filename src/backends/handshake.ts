import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';

/**
 * What to say of a connection that ended within the TLS handshake; undefined: that is not what happened. A server that speaks no TLS closes it when it has
 * read the first message of ours, and otherwise the kernel resets it (RFC 9293, 3.10.4: data that nobody will read): chance decides, so both get the same words.
 */
export function endInHandshake(
  { code = '' }: NodeJS.ErrnoException,
  socket: Socket | null | undefined,
): string | undefined {
  const isEnd = code === 'ECONNRESET' || code === 'EPIPE';
  return isEnd && socket instanceof TLSSocket && socket.alpnProtocol === null
    ? 'the connection ended before TLS was agreed on; does it speak TLS at all?'
    : undefined;
}
