import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { GrpcChannel, type GrpcError, type Method } from '../../src/backends/etcd/grpc.ts';
import { frame, GrpcServer, type ServerCall } from '../helpers/grpc-server.ts';

/** Its messages are texts. */
const ECHO: Method<string, string> = {
  path: '/test.Echo/Say',
  requestSerialize: (text) => Buffer.from(text),
  responseDeserialize: (bytes) => {
    if (bytes.toString() === 'unreadable') throw new Error('not a message');
    return bytes.toString();
  },
};

const LONG_MS = 20_000;

async function connect(serve: (call: ServerCall) => void) {
  const server = await GrpcServer.start(serve);
  const channel = new GrpcChannel(server.endpoint, undefined);
  onTestFinished(() => {
    channel.reset();
    server.stop();
  });
  const say = (text = 'hello', timeoutMs = LONG_MS) => channel.unary(ECHO, text, { hasleader: 'true' }, timeoutMs);
  return { server, channel, say };
}

/** What a call without a good end rejects with. */
const failure = (answer: Promise<unknown>): Promise<GrpcError> =>
  answer.then(
    (value) => Promise.reject(new Error(`it was answered: ${value}`)),
    (error) => error,
  );

test('a call is answered, with its metadata and its deadline in the headers; the connection serves the next as well', async () => {
  const seen: ServerCall[] = [];
  const received: Buffer[] = [];
  const { server, say } = await connect((call) => {
    seen.push(call);
    call.stream.on('data', (chunk: Buffer) => received.push(chunk));
    call.stream.on('end', () => call.answer('world'));
  });
  expect(await say()).toBe('world');
  expect(await say()).toBe('world');
  expect(seen[0]!.headers).toMatchObject({
    ':method': 'POST',
    ':path': '/test.Echo/Say',
    'content-type': 'application/grpc',
    te: 'trailers',
    hasleader: 'true',
    'grpc-timeout': '20000m',
  });
  expect(Buffer.concat(received)).toEqual(Buffer.concat([frame('hello'), frame('hello')]));
  expect(server.sessions).toHaveLength(1);
});

test('messages are cut rightly, however the chunks are', async () => {
  const texts = ['', 'a', 'b'.repeat(300), 'c'.repeat(70_000), 'd'];
  const bytes = Buffer.concat(texts.map(frame));
  for (const size of [1, 4, 5, 6, 7, 999, bytes.length]) {
    const { channel } = await connect(async (call) => {
      call.begin();
      const step = size < 7 ? Math.min(400, bytes.length) : bytes.length;
      // The first 400 bytes in small chunks, each in a write of its own; the rest as it comes.
      for (let at = 0; at < step; at += size) {
        await new Promise((sent) => call.stream.write(bytes.subarray(at, Math.min(at + size, step)), sent));
      }
      call.stream.write(bytes.subarray(step));
      call.end({ 'grpc-status': '0' });
    });
    const messages: string[] = [];
    const error = await new Promise((ended) => {
      channel.open(ECHO, {}, { message: (message) => messages.push(message), ended }).end('');
    });
    expect(error).toBeUndefined();
    expect(messages).toEqual(texts);
  }
});

test.each([
  [
    'after a message',
    (call: ServerCall) => {
      call.begin();
      call.stream.write(frame('half an answer'));
      call.end({ 'grpc-status': '5', 'grpc-message': 'etcdserver: requested lease not found' });
    },
  ],
  [
    'instead of one',
    (call: ServerCall) => {
      call.begin();
      call.end({ 'grpc-status': '5', 'grpc-message': 'etcdserver: requested lease not found' });
    },
  ],
  ['in the only headers', (call: ServerCall) => call.refuse('5', 'etcdserver: requested lease not found')],
])('a status that is not OK is the error, %s', async (_, serve) => {
  const { say } = await connect(serve);
  const error = await failure(say());
  expect(error.code).toBe(5);
  expect(error.message).toBe('5 NOT_FOUND: etcdserver: requested lease not found');
});

test.each([
  ['100%25 of caf%C3%A9%0Aclosed', '100% of café\nclosed'],
  ['an odd 100% and %zz stay, %e2%82%ac does not', 'an odd 100% and %zz stay, € does not'],
  ['%ff is no UTF-8', '\ufffd is no UTF-8'],
])('the message of a status is unescaped: %s', async (escaped, text) => {
  const { say } = await connect((call) => call.refuse('2', escaped));
  expect((await failure(say())).message).toBe(`2 UNKNOWN: ${text}`);
});

test.each([
  [
    'no status at all',
    (call: ServerCall) => {
      call.begin();
      call.end({ nothing: 'here' });
    },
    /^2 UNKNOWN: /,
  ],
  ['an unknown status', (call: ServerCall) => call.refuse('99', 'what'), /^99 UNKNOWN: what/],
  ['a status that is no number', (call: ServerCall) => call.refuse('ok'), /^2 UNKNOWN: /],
  [
    'no message',
    (call: ServerCall) => {
      call.begin();
      call.end({ 'grpc-status': '0' });
    },
    /^13 INTERNAL: an answer without a message/,
  ],
  ['no message, in the only headers', (call: ServerCall) => call.refuse('0'), /^13 INTERNAL: an answer without/],
  [
    'a compressed message',
    (call: ServerCall) => {
      call.begin();
      call.stream.write(Buffer.from([1, 0, 0, 0, 1, 9]));
    },
    /^13 INTERNAL: a compressed message/,
  ],
  [
    'a message of 2 GiB',
    (call: ServerCall) => {
      call.begin();
      call.stream.write(Buffer.from([0, 128, 0, 0, 0, 9]));
    },
    /^8 RESOURCE_EXHAUSTED: .*larger than 4 MiB/,
  ],
  ['a message that cannot be read', (call: ServerCall) => call.answer('unreadable'), /^13 INTERNAL: not a message/],
  [
    'a page of a proxy',
    (call: ServerCall) => {
      call.stream.respond({ ':status': 503, 'content-type': 'text/html' });
      call.stream.end('<html>');
    },
    /^14 UNAVAILABLE: Received HTTP status code 503/,
  ],
  [
    'a page that is no error',
    (call: ServerCall) => {
      call.stream.respond({ ':status': 200, 'content-type': 'text/html' });
      call.stream.end('<html>');
    },
    /^2 UNKNOWN: not gRPC but text\/html/,
  ],
  ['a stream that is cancelled', (call: ServerCall) => call.stream.close(8), /^1 CANCELLED: /],
  ['a stream that breaks', (call: ServerCall) => call.stream.close(2), /^13 INTERNAL: Received RST_STREAM with code 2/],
  [
    'a stream that breaks half way',
    (call: ServerCall) => {
      call.begin();
      call.stream.write(frame('half'), () => call.stream.close(2));
    },
    /^13 INTERNAL: Received RST_STREAM with code 2/,
  ],
  ['a stream that is too much', (call: ServerCall) => call.stream.close(11), /^8 RESOURCE_EXHAUSTED: /],
  [
    'a connection that is reset',
    (call: ServerCall) => {
      call.stream.session!.destroy();
    },
    /^14 UNAVAILABLE: /,
  ],
] as const)('an answer that is none is an error, never silence: %s', async (_, serve, says) => {
  const { say } = await connect(serve);
  expect((await failure(say())).message).toMatch(says);
});

test('nobody answers: the deadline ends the call, the server hears of it, and what comes late is heard by nobody', async () => {
  let cancelled: Promise<unknown> | undefined;
  const { server, say } = await connect((call) => {
    if (server.calls !== 2) return call.answer('heard');
    cancelled = once(call.stream, 'aborted');
  });
  expect(await say()).toBe('heard'); // so the connection stands
  const startedAt = performance.now();
  expect((await failure(say('x', 100))).message).toBe('4 DEADLINE_EXCEEDED: Deadline exceeded');
  expect(performance.now() - startedAt).toBeLessThan(1000);
  await cancelled;
  expect(await say()).toBe('heard');
});

test('a server that accepts and says nothing does not outlast the deadline', async () => {
  const sockets: Socket[] = [];
  const silent: Server = createServer((socket) => void sockets.push(socket)).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const { port } = silent.address() as { port: number };
  const channel = new GrpcChannel(`127.0.0.1:${port}`, undefined);
  onTestFinished(() => {
    channel.reset();
    for (const socket of sockets) socket.destroy();
    silent.close();
  });
  expect((await failure(channel.unary(ECHO, '', {}, 100))).message).toMatch(/DEADLINE_EXCEEDED/);
});

test('a server of HTTP/1 is an error at once', async () => {
  const old: Server = createServer((socket) => {
    socket.on('error', () => {});
    socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n');
  }).listen(0, '127.0.0.1');
  await once(old, 'listening');
  const { port } = old.address() as { port: number };
  const channel = new GrpcChannel(`127.0.0.1:${port}`, undefined);
  onTestFinished(() => {
    channel.reset();
    old.close();
  });
  expect((await failure(channel.unary(ECHO, '', {}, LONG_MS))).code).toBe(14);
});

test('a call that cannot even be begun fails once, and nothing is left that fails later', async () => {
  const faults: Error[] = [];
  const note = (error: Error) => faults.push(error);
  process.on('uncaughtException', note);
  onTestFinished(() => void process.off('uncaughtException', note));
  const nowhere = new GrpcChannel('256.1.1.1:2379', undefined); // no URL
  expect(await failure(nowhere.unary(ECHO, '', {}, 1))).toMatchObject({ message: 'Invalid URL' });
  await new Promise((later) => setTimeout(later, 20)); // the call's own time is over before
  expect(faults).toEqual([]);
});

test('nobody listens, then somebody does: each call tries anew', async () => {
  const { server, say } = await connect((call) => call.answer('back'));
  const port = Number(server.endpoint.split(':')[1]);
  server.stop();
  expect((await failure(say())).message).toMatch(/^14 UNAVAILABLE: .*ECONNREFUSED/);
  const back = await GrpcServer.start((call) => call.answer('back'), port);
  onTestFinished(() => back.stop());
  expect(await say()).toBe('back');
});

test('GOAWAY: what the server has begun with ends as it should, what comes later takes another connection', async () => {
  const held: ServerCall[] = [];
  const { server, say } = await connect((call) => {
    if (server.calls === 1) held.push(call);
    else call.answer('second connection');
  });
  const first = say();
  while (held.length === 0) await new Promise(setImmediate);
  const [session] = server.sessions;
  session!.goaway(0);
  await expect.poll(() => say('x')).toBe('second connection');
  expect(server.sessions.length).toBeGreaterThan(1);
  held[0]!.answer('first connection');
  expect(await first).toBe('first connection');
});

test('a call that the server has not begun with is made again, once', async () => {
  const { server, say } = await connect((call) => {
    if (server.calls === 1) call.stream.close(7);
    else call.answer('now');
  });
  expect(await say()).toBe('now');
  expect(server.calls).toBe(2);
  const never = await connect((call) => call.stream.close(7));
  expect((await failure(never.say())).message).toMatch(/^14 UNAVAILABLE: the stream was refused/);
  expect(never.server.calls).toBe(2);
});

test('GOAWAY for an error ends the calls of that connection, and the next one opens another', async () => {
  const { server, say } = await connect((call) => {
    if (server.calls === 1) call.stream.session!.goaway(11);
    else call.answer('again');
  });
  expect((await failure(say())).code).toBe(14);
  expect(await say()).toBe('again');
});

test('a stream of both ways: each message as it comes, and none after it was cancelled', async () => {
  let call!: ServerCall;
  const { channel } = await connect((opened) => {
    call = opened;
    call.begin();
    call.stream.on('data', (chunk) => call.stream.write(chunk));
  });
  const heard: string[] = [];
  let hear!: (text: string) => void;
  const next = () => new Promise<string>((resolve) => (hear = resolve));
  let ended = false;
  const stream = channel.open(
    ECHO,
    {},
    {
      message: (text) => {
        heard.push(text);
        hear(text);
      },
      ended: () => {
        ended = true;
      },
    },
  );
  for (const text of ['one', 'two']) {
    const answer = next();
    stream.write(text);
    expect(await answer).toBe(text);
  }
  const aborted = once(call.stream, 'aborted');
  stream.write('three');
  stream.cancel();
  await aborted;
  await new Promise(setImmediate);
  expect(heard).toEqual(['one', 'two']);
  expect(ended).toBe(false);
});

test('after the first of two messages in one chunk it is cancelled: the second is not heard', async () => {
  const { channel } = await connect((call) => {
    call.begin();
    call.stream.write(Buffer.concat([frame('one'), frame('two')]));
  });
  const heard: string[] = [];
  await new Promise<void>((cancelled) => {
    const stream = channel.open(
      ECHO,
      {},
      {
        message: (text) => {
          heard.push(text);
          stream.cancel();
          setImmediate(cancelled);
        },
        ended: () => {},
      },
    );
  });
  expect(heard).toEqual(['one']);
});

test('a call whose answer is nonsense is cancelled', async () => {
  let aborted: Promise<unknown> | undefined;
  const { say } = await connect((call) => {
    aborted = once(call.stream, 'aborted');
    call.begin();
    call.stream.write(Buffer.from([1, 0, 0, 0, 1, 9]));
  });
  await failure(say());
  await aborted;
});

test('a reset ends all that is under way on the connection', async () => {
  const { server, channel, say } = await connect(() => {});
  const ended = new Promise<GrpcError | undefined>((resolve) => {
    channel.open(ECHO, {}, { message: () => {}, ended: resolve });
  });
  const answer = failure(say());
  while (server.calls < 2) await new Promise(setImmediate);
  channel.reset();
  expect((await answer).code).toBe(14);
  expect((await ended)?.code).toBe(14);
});
