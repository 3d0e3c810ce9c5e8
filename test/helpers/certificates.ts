import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

export interface Certificates {
  ca: string;
  server: { cert: string; key: string };
  client: { cert: string; key: string };
}

const openssl = (args: string[]) => promisify(execFile)('openssl', args);
const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

/** A CA of its own, with a certificate for the server (localhost and this address) and one for a client. Files, PEM. */
export async function makeCertificates(folder: string, address: string): Promise<Certificates> {
  const at = (name: string) => join(folder, name);
  const ca = { cert: at('ca.pem'), key: at('ca.key') };
  await openssl([
    ...['req', '-x509', ...NEW_KEY, '-keyout', ca.key, '-out', ca.cert],
    ...['-days', '30', '-subj', '/CN=test-ca'],
  ]);
  writeFileSync(
    at('extensions'),
    `subjectAltName=DNS:localhost,IP:${address}\nextendedKeyUsage=serverAuth,clientAuth\n`,
  );
  const sign = async (name: string) => {
    const [cert, key, request] = [at(`${name}.pem`), at(`${name}.key`), at(`${name}.csr`)];
    await openssl(['req', ...NEW_KEY, '-keyout', key, '-out', request, '-subj', `/CN=${name}`]);
    await openssl([
      ...['x509', '-req', '-in', request, '-CA', ca.cert, '-CAkey', ca.key, '-CAcreateserial'],
      ...['-out', cert, '-days', '30', '-extfile', at('extensions')],
    ]);
    return { cert, key };
  };
  const server = await sign('server');
  const client = await sign('client');
  return { ca: ca.cert, server, client };
}
