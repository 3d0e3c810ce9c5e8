import { once } from 'node:events';
import { createServer, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';

/** One call, as the server sees it. */
export class ServerCall {
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly stream: ServerHttp2Stream;

  constructor(stream: ServerHttp2Stream, headers: Record<string, string>) {
    this.stream = stream;
    this.headers = headers;
    this.path = headers[':path']!;
  }

  /** The headers that come before the first message. */
  begin(headers: Record<string, string | number> = {}): void {
    this.stream.respond({ ':status': 200, 'content-type': 'application/grpc', ...headers }, { waitForTrailers: true });
  }

  end(trailers: Record<string, string>): void {
    this.stream.on('wantTrailers', () => this.stream.sendTrailers(trailers));
    this.stream.end();
  }

  answer(...messages: (string | Buffer)[]): void {
    this.begin();
    for (const message of messages) this.stream.write(frame(message));
    this.end({ 'grpc-status': '0' });
  }

  /** A status without any message: in the first headers, which are the last. */
  refuse(status: string, message?: string): void {
    const headers = { ':status': 200, 'content-type': 'application/grpc', 'grpc-status': status };
    this.stream.respond(message === undefined ? headers : { ...headers, 'grpc-message': message }, { endStream: true });
  }
}

export function frame(message: string | Buffer): Buffer {
  const body = Buffer.from(message);
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(body.length, 1);
  return Buffer.concat([prefix, body]);
}

/** A server of gRPC in the test process that does as each test says, and wrong things too. */
export class GrpcServer {
  readonly sessions: ServerHttp2Session[] = [];
  /** How many calls have come. */
  calls = 0;
  readonly #server: Http2Server;

  private constructor(server: Http2Server, serve: (call: ServerCall) => void) {
    this.#server = server;
    server.on('session', (session) => {
      this.sessions.push(session);
      session.on('error', () => {}); // what a test breaks
    });
    server.on('stream', (stream, headers) => {
      this.calls++;
      stream.on('error', () => {}); // cancelled by the client
      serve(new ServerCall(stream, headers as Record<string, string>));
    });
  }

  static async start(serve: (call: ServerCall) => void, port = 0): Promise<GrpcServer> {
    const server = createServer();
    const own = new GrpcServer(server, serve);
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    return own;
  }

  get endpoint(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  stop(): void {
    this.#server.close();
    for (const session of this.sessions) session.destroy();
  }
}
