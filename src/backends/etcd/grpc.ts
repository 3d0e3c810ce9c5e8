import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type IncomingHttpHeaders,
} from 'node:http2';
import type { Tls } from '../connection.ts';

/** A method of a service, and the codecs of its messages. */
export interface Method<Request, Answer> {
  /** `/package.Service/Method` */
  path: string;
  requestSerialize(request: Request): Buffer;
  responseDeserialize(bytes: Buffer): Answer;
}

/** A call that did not end with the status OK. Its text is the one that grpc-js would give it. */
export class GrpcError extends Error {
  override name = 'GrpcError';
  readonly code: number;
  /** The server has not begun with it, so it may be made again (RFC 9113, 8.7). */
  readonly isUnprocessed: boolean;

  constructor(code: number, details: string, { cause, isUnprocessed = false }: GrpcErrorOptions = {}) {
    super(`${code} ${STATUS[code] ?? 'UNKNOWN'}: ${details}`, { cause });
    this.code = code;
    this.isUnprocessed = isUnprocessed;
  }
}

interface GrpcErrorOptions {
  cause?: Error;
  isUnprocessed?: boolean;
}

/** https://github.com/grpc/grpc/blob/master/doc/statuscodes.md */
const STATUS = [
  'OK',
  'CANCELLED',
  'UNKNOWN',
  'INVALID_ARGUMENT',
  'DEADLINE_EXCEEDED',
  'NOT_FOUND',
  'ALREADY_EXISTS',
  'PERMISSION_DENIED',
  'RESOURCE_EXHAUSTED',
  'FAILED_PRECONDITION',
  'ABORTED',
  'OUT_OF_RANGE',
  'UNIMPLEMENTED',
  'INTERNAL',
  'UNAVAILABLE',
  'DATA_LOSS',
  'UNAUTHENTICATED',
];
const codeOf = (name: string): number => STATUS.indexOf(name);

/** What a call hears. Nothing comes after `ended`, which comes once, unless the call was cancelled. */
export interface Listener<Answer> {
  message(answer: Answer): void;
  /** Undefined: with the status OK. */
  ended(error: GrpcError | undefined): void;
}

/** A call under way. */
export interface Call<Request> {
  write(request: Request): void;
  /** Nothing more will be written. */
  end(last?: Request): void;
  /** Nothing more will be heard, either. */
  cancel(): void;
}

/**
 * gRPC over one HTTP/2 connection to one server (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md), which is opened by the first call, and anew by the next one
 * when it was lost. There are no retries but that of a call which the server says that it has not begun with, no back-off, no balancing.
 */
export class GrpcChannel {
  readonly #authority: string;
  readonly #tls: Tls | undefined;
  #session: ClientHttp2Session | undefined;
  /** Those whose other end has said that it speaks HTTP/2 (RFC 9113, 3.4). */
  readonly #agreed = new WeakSet<ClientHttp2Session>();

  /** `endpoint`: host:port. */
  constructor(endpoint: string, tls: Tls | undefined) {
    this.#authority = `${tls ? 'https' : 'http'}://${endpoint}`;
    this.#tls = tls;
  }

  /** One request, one answer, within the time. Rejects with a GrpcError. */
  async unary<Request, Answer>(
    method: Method<Request, Answer>,
    request: Request,
    metadata: Record<string, string>,
    timeoutMs: number,
  ): Promise<Answer> {
    const sentAt = performance.now();
    try {
      return await this.#unary(method, request, metadata, timeoutMs);
    } catch (error) {
      const leftMs = timeoutMs - (performance.now() - sentAt);
      if (!(error as GrpcError).isUnprocessed || leftMs < 1) throw error;
      return this.#unary(method, request, metadata, leftMs);
    }
  }

  #unary<Request, Answer>(
    method: Method<Request, Answer>,
    request: Request,
    metadata: Record<string, string>,
    timeoutMs: number,
  ): Promise<Answer> {
    return new Promise((resolve, reject) => {
      let answer: Answer | undefined;
      let timer: NodeJS.Timeout;
      const headers = { ...metadata, 'grpc-timeout': `${Math.min(Math.ceil(timeoutMs), LARGEST_TIMEOUT)}m` };
      const call = this.open(method, headers, {
        message: (message) => {
          answer = message;
        },
        ended: (error) => {
          clearTimeout(timer);
          if (error) reject(error);
          else if (answer === undefined) reject(new GrpcError(codeOf('INTERNAL'), 'an answer without a message'));
          else resolve(answer);
        },
      });
      // Only where there is a call: it may be that none can be made, and then the executor has thrown.
      timer = setTimeout(() => {
        call.cancel();
        reject(new GrpcError(codeOf('DEADLINE_EXCEEDED'), 'Deadline exceeded'));
      }, timeoutMs);
      call.end(request);
    });
  }

  /** A call that goes on until its listener is told that it ended, or until it is cancelled. */
  open<Request, Answer>(
    { path, requestSerialize, responseDeserialize }: Method<Request, Answer>,
    metadata: Record<string, string>,
    listener: Listener<Answer>,
  ): Call<Request> {
    const session = this.#connected();
    const stream = session.request({
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_PATH]: path,
      [constants.HTTP2_HEADER_CONTENT_TYPE]: 'application/grpc',
      [constants.HTTP2_HEADER_TE]: 'trailers',
      ...metadata,
    });
    let isOver = false;
    const frames = new Frames();
    const finish = (error: GrpcError | undefined) => {
      if (isOver) return;
      isOver = true;
      if (error) stream.close(constants.NGHTTP2_CANCEL);
      listener.ended(error);
    };
    let status: GrpcError | undefined | 'unknown' = 'unknown';
    stream.on('response', (headers) => {
      if (headers['grpc-status'] !== undefined)
        finish(statusOf(headers)); // "trailers only"
      else if (!isGrpc(headers)) finish(notGrpc(headers));
    });
    stream.on('data', (chunk: Buffer) => {
      try {
        for (const message of frames.add(chunk)) {
          const answer = responseDeserialize(message);
          if (!isOver) listener.message(answer);
        }
      } catch (error) {
        finish(error instanceof GrpcError ? error : new GrpcError(codeOf('INTERNAL'), (error as Error).message));
      }
    });
    stream.on('trailers', (headers) => {
      status = statusOf(headers);
      if (status || stream.readableLength === 0) finish(status);
    });
    stream.on('end', () => {
      if (status !== 'unknown') finish(status);
    });
    let broken: Error | undefined;
    stream.on('error', (error) => {
      broken = error;
    });
    stream.on('close', () => {
      if (status !== 'unknown') return finish(status);
      finish(this.#agreed.has(session) ? lost(stream, session, broken) : notAgreed(stream, session, broken));
    });
    return {
      write: (request) => void (stream.writable && stream.write(framed(requestSerialize(request)))),
      end: (last) => {
        if (last === undefined) stream.end();
        else stream.end(framed(requestSerialize(last)));
      },
      cancel: () => {
        isOver = true;
        stream.close(constants.NGHTTP2_CANCEL);
      },
    };
  }

  /** Ends the connection with all its calls. The next call opens another one. */
  reset(): void {
    this.#session?.destroy();
    this.#session = undefined;
  }

  /** A session that was told to go away ends the calls that it has, and takes no more. */
  #connected(): ClientHttp2Session {
    if (this.#session && !this.#session.closed && !this.#session.destroyed) return this.#session;
    const session = connect(this.#authority, { ...this.#tls, settings: { enablePush: false } });
    session.on('error', () => {}); // each of its calls hears of it
    session.once('remoteSettings', () => this.#agreed.add(session));
    this.#session = session;
    return session;
  }
}

export const NOT_AGREED = 'the connection ended before HTTP/2 was agreed on';

/** Of a grpc-timeout: eight digits. */
const LARGEST_TIMEOUT = 99_999_999;
/** As gRPC's own default. */
const LARGEST_MESSAGE = 4 * 1024 * 1024;
const PREFIX_BYTES = 5;

/** "Not compressed", the length, the message. */
function framed(message: Buffer): Buffer {
  const frame = Buffer.allocUnsafe(PREFIX_BYTES + message.length);
  frame.writeUInt8(0, 0);
  frame.writeUInt32BE(message.length, 1);
  message.copy(frame, PREFIX_BYTES);
  return frame;
}

/** Cuts what arrives in chunks into messages. */
class Frames {
  #held: Buffer = Buffer.alloc(0);

  *add(chunk: Buffer): Generator<Buffer> {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    while (this.#held.length >= PREFIX_BYTES) {
      if (this.#held.readUInt8(0) !== 0) throw new GrpcError(codeOf('INTERNAL'), 'a compressed message');
      const length = this.#held.readUInt32BE(1);
      if (length > LARGEST_MESSAGE)
        throw new GrpcError(codeOf('RESOURCE_EXHAUSTED'), `a message of ${length} bytes is larger than 4 MiB`);
      const end = PREFIX_BYTES + length;
      if (this.#held.length < end) return;
      const message = this.#held.subarray(PREFIX_BYTES, end);
      this.#held = this.#held.subarray(end);
      yield message;
    }
  }
}

const isGrpc = (headers: IncomingHttpHeaders): boolean =>
  headers[constants.HTTP2_HEADER_STATUS as ':status'] === (200 as unknown) &&
  /^application\/grpc(\+|;|$)/.test(headers['content-type'] ?? '');

/** What a proxy or another server answered (doc/http-grpc-status-mapping.md). */
function notGrpc(headers: IncomingHttpHeaders): GrpcError {
  const status = Number(headers[constants.HTTP2_HEADER_STATUS as ':status']);
  const code = HTTP_STATUS[status] ?? 'UNKNOWN';
  return new GrpcError(
    codeOf(code),
    status === 200
      ? `not gRPC but ${headers['content-type'] ?? 'something else'}`
      : `Received HTTP status code ${status}`,
  );
}

const HTTP_STATUS: Record<number, string> = {
  400: 'INTERNAL',
  401: 'UNAUTHENTICATED',
  403: 'PERMISSION_DENIED',
  404: 'UNIMPLEMENTED',
  429: 'UNAVAILABLE',
  502: 'UNAVAILABLE',
  503: 'UNAVAILABLE',
  504: 'UNAVAILABLE',
};

function statusOf(headers: IncomingHttpHeaders): GrpcError | undefined {
  const code = headers['grpc-status'];
  if (code === '0') return undefined;
  const number = /^\d+$/.test(String(code)) ? Number(code) : codeOf('UNKNOWN');
  return new GrpcError(number, unescapeMessage(String(headers['grpc-message'] ?? '')));
}

/** What is not escaped as it should be stays as it is: a status must not be lost to that. */
const unescapeMessage = (message: string): string =>
  message.replace(/(?:%[0-9a-f]{2})+/gi, (escaped) => Buffer.from(escaped.replaceAll('%', ''), 'hex').toString());

/** The same on a connection whose other end has not said yet that it speaks HTTP/2. Whether it closes it or resets it is chance, where it speaks another protocol. */
function notAgreed(...how: Parameters<typeof lost>): GrpcError {
  const error = lost(...how);
  const isAbrupt = /Connection dropped|ECONNRESET|EPIPE|ERR_HTTP2_ERROR/.test(error.message);
  return isAbrupt ? new GrpcError(error.code, NOT_AGREED, { cause: error }) : error;
}

/** Why a call ended without a status. */
function lost(stream: ClientHttp2Stream, session: ClientHttp2Session, broken: Error | undefined): GrpcError {
  const cause = (broken?.cause ?? broken) as NodeJS.ErrnoException | undefined;
  if (cause && cause.code !== 'ERR_HTTP2_STREAM_ERROR') {
    const reason = cause.message.includes(cause.code ?? '') ? cause.message : `${cause.code} ${cause.message}`;
    return new GrpcError(codeOf('UNAVAILABLE'), reason.trim(), { cause });
  }
  const { rstCode } = stream;
  if (rstCode === constants.NGHTTP2_REFUSED_STREAM)
    return new GrpcError(codeOf('UNAVAILABLE'), 'the stream was refused', { isUnprocessed: true });
  if (session.destroyed || rstCode === constants.NGHTTP2_NO_ERROR)
    return new GrpcError(codeOf('UNAVAILABLE'), 'Connection dropped');
  if (rstCode === constants.NGHTTP2_CANCEL) return new GrpcError(codeOf('CANCELLED'), 'Call cancelled');
  if (rstCode === constants.NGHTTP2_ENHANCE_YOUR_CALM)
    return new GrpcError(codeOf('RESOURCE_EXHAUSTED'), 'Bandwidth exhausted');
  return new GrpcError(codeOf('INTERNAL'), `Received RST_STREAM with code ${rstCode}`);
}
