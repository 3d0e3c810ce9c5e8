import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, isIP, type Socket } from 'node:net';
import type { ListenAddress } from '../../listen.ts';
import { usage } from '../../outcome.ts';

export interface Page {
  type: string;
  body: string;
  status?: number;
  /** Content-Security-Policy; without one nothing is allowed. */
  policy?: string;
}

export type Pages = Record<string, () => Page | Promise<Page>>;

const MOST_CONNECTIONS = 64;
const LONGEST_REQUEST_MS = 5000;
const LONGEST_HEADER = 8192;
const NOTHING = "default-src 'none'; frame-ancestors 'none'";

/**
 * Answers GET and HEAD for these paths, from memory. No client can hold it up: one request for each connection, short, small, without a body, and
 * where there are too many connections the oldest goes. Resolves with the URL once it listens; throws a usage Failure.
 */
export async function serve(address: ListenAddress, pages: Pages): Promise<string> {
  const server = createServer({
    maxHeaderSize: LONGEST_HEADER,
    headersTimeout: LONGEST_REQUEST_MS,
    requestTimeout: LONGEST_REQUEST_MS,
    connectionsCheckingInterval: 1000,
  });
  server.timeout = 2 * LONGEST_REQUEST_MS; // a client that does not read its answer
  server.on('connection', limited(MOST_CONNECTIONS));
  const isLocal = /^(127\.|::1$|localhost$)/.test(address.host);
  const served = new WeakSet<Socket>();
  server.on('request', (request, response) => {
    if (served.has(request.socket)) return void request.socket.destroy(); // sent in advance: nobody needs that
    served.add(request.socket);
    response.shouldKeepAlive = false;
    answer(request, response, pages, isLocal).catch(() => request.socket.destroy());
  });
  server.listen(address.port, address.host);
  server.unref();
  try {
    await once(server, 'listening');
  } catch (error) {
    throw cannotListen(address, error as NodeJS.ErrnoException);
  }
  server.on('error', () => {}); // of accept(2), when there are no descriptors left: the next one may succeed
  return urlOf(server.address() as AddressInfo);
}

function limited(most: number): (socket: Socket) => void {
  const open = new Set<Socket>();
  return (socket) => {
    open.add(socket);
    socket.unref();
    socket.on('close', () => open.delete(socket));
    const [oldest] = open;
    if (open.size > most) oldest!.destroy();
  };
}

async function answer(
  { method = '', url = '', headers }: IncomingMessage,
  response: ServerResponse,
  pages: Pages,
  isLocal: boolean,
): Promise<void> {
  const page = await choose(method, url.split('?')[0]!, headers.host, pages, isLocal);
  const { type, body, status = 200, policy = NOTHING } = page;
  response.writeHead(status, {
    'Content-Type': type,
    'Content-Length': Buffer.byteLength(body),
    'Content-Security-Policy': policy,
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Cache-Control': 'no-store',
    ...(status === 405 ? { Allow: 'GET, HEAD' } : {}),
  });
  response.end(method === 'HEAD' ? undefined : body);
}

async function choose(
  method: string,
  path: string,
  host: string | undefined,
  pages: Pages,
  isLocal: boolean,
): Promise<Page> {
  if (method !== 'GET' && method !== 'HEAD') return plain(405, `only GET and HEAD`);
  if (isLocal && !isNameOfThisHost(host))
    return plain(403, 'listens on the loopback, and answers by its address or as localhost only');
  if (!Object.hasOwn(pages, path)) return plain(404, `there is ${Object.keys(pages).join(', ')}`);
  return await pages[path]!();
}

/** A web page elsewhere can have a name of its own resolve to the loopback, and its reader's browser ask us under that name. */
function isNameOfThisHost(host = ''): boolean {
  const name = host.replace(/:\d+$/, '');
  return name === '' || name === 'localhost' || isIP(name.replace(/^\[(.*)\]$/, '$1')) !== 0;
}

export const plain = (status: number, text: string): Page => ({
  status,
  type: 'text/plain; charset=utf-8',
  body: `${text}\n`,
});

export const json = (value: unknown): Page => ({ type: 'application/json', body: `${JSON.stringify(value)}\n` });

function cannotListen({ host, port }: ListenAddress, { code, message }: NodeJS.ErrnoException) {
  const shown = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
  switch (code) {
    case 'EADDRINUSE':
      return usage(`--listen ${shown} is in use already; choose another port, or 0 for any that is free`);
    case 'EACCES':
      return usage(`--listen ${shown} is not permitted; choose a port above 1023`);
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return usage(`--listen ${shown}: ${host} is no address of this host`);
    default:
      return usage(`--listen ${shown}: ${message}`);
  }
}

function urlOf({ address, family, port }: AddressInfo): string {
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}/`;
}
