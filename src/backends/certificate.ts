import { X509Certificate } from 'node:crypto';
import { connect } from 'node:tls';
import { splitEndpoint, type Tls } from './connection.ts';

/** Until when the server's certificate is valid, in ms since 1970; undefined where it shows none in time. Whether we trust it is not asked. */
export function validityOf(endpoint: string, tls: Tls, signal: AbortSignal): Promise<number | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ ...splitEndpoint(endpoint), ...tls, rejectUnauthorized: false });
    const finish = (validUntil: number | undefined) => {
      socket.destroy();
      resolve(validUntil);
    };
    socket.on('secureConnect', () => finish(Date.parse(socket.getPeerCertificate().valid_to) || undefined));
    socket.on('error', () => finish(undefined));
    signal.addEventListener('abort', () => finish(undefined), { once: true });
  });
}

/** Of a certificate of our own. */
export const validityOfPem = (pem: string): number => Date.parse(new X509Certificate(pem).validTo);
