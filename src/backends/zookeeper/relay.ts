import { connect, createServer, type Socket } from 'node:net';
import { NETWORK_TROUBLES, splitEndpoint } from '../connection.ts';

/**
 * The library connects to us, and we to the server. It would resolve names on the thread of our timers, tell nobody of a refused port, and close a
 * connection only by ending the session, standing still for 1.5 s. A relay can be cut at any time, and the session lives on.
 */
export interface Relay {
  /** `127.0.0.1:port`, for one client. */
  address: string;
  /** Once the server hung up, or we. */
  closed: Promise<void>;
  /** Says goodbye for the client: the server ends the session and hangs up. */
  endSession(): void;
  cut(): void;
}

/** Connected to the server when it resolves. Rejects with why it is not, and with the signal's reason. */
export async function openRelay(endpoint: string, signal: AbortSignal): Promise<Relay> {
  signal.throwIfAborted();
  const server = connect(splitEndpoint(endpoint));
  const listener = createServer();
  let client: Socket | undefined;
  const cut = () => {
    server.destroy();
    client?.destroy();
    listener.close();
  };
  const endSession = () => {
    client?.unpipe(server);
    if (client) server.unpipe(client).resume(); // the library aborts the process at an answer to what it has not asked
    server.write(CLOSE_SESSION);
  };
  const closed = new Promise<void>((resolve) => server.once('close', () => resolve()));
  closed.then(cut);
  try {
    await settled(signal, (done, fail) => {
      server.once('connect', done);
      server.on('error', ({ code = '', message }: NodeJS.ErrnoException) =>
        fail(new Error(`zookeeper at ${endpoint}: ${NETWORK_TROUBLES[code] ?? (message || code)}`)),
      );
    });
    await settled(signal, (done, fail) => {
      listener.on('error', fail);
      listener.listen({ host: '127.0.0.1', port: 0, backlog: 1 }, done);
    });
  } catch (error) {
    cut();
    throw error;
  }
  server.setNoDelay(true);
  listener.on('connection', (socket) => {
    if (client) return void socket.destroy();
    client = socket;
    listener.close();
    socket.setNoDelay(true).on('error', cut);
    socket.pipe(server).pipe(socket);
  });
  return { address: `127.0.0.1:${(listener.address() as { port: number }).port}`, closed, cut, endSession };
}

/** A request of ZooKeeper's: its length, a number of its own (xid), and the type closeSession (-11). */
const CLOSE_SESSION = Buffer.from('0000000800000001fffffff5', 'hex');

function settled(signal: AbortSignal, begin: (done: () => void, fail: (error: Error) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    begin(() => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    }, reject);
  });
}
