import { once } from 'node:events';
import { expect, onTestFinished, test } from 'vitest';
import { Unusable } from '../../src/backend.ts';
import { definitions } from '../../src/backends/etcd/definitions.ts';
import { explain } from '../../src/backends/etcd/errors.ts';
import { Member } from '../../src/backends/etcd/member.ts';
import { RANGE } from '../../src/backends/etcd/methods.ts';
import { EtcdBackend } from '../../src/backends/etcd.ts';
import { within } from '../../src/clock.ts';
import { frame, GrpcServer, type ServerCall } from '../helpers/grpc-server.ts';

/** The other side of the codecs. */
interface Served {
  path: string;
  requestDeserialize(bytes: Buffer): Record<string, unknown>;
  responseSerialize(answer: object): Buffer;
}
const METHODS = Object.values(definitions).flatMap((service) => Object.values(service) as unknown as Served[]);
const methodOf = ({ path }: ServerCall): Served => METHODS.find((method) => method.path === path)!;

const answer = (call: ServerCall, message: object): void => call.answer(methodOf(call).responseSerialize(message));
const say = (call: ServerCall, message: object): void =>
  void call.stream.write(frame(methodOf(call).responseSerialize(message)));
/** The messages are shorter than a chunk. */
const requestOf = async (call: ServerCall) => {
  const [chunk] = (await once(call.stream, 'data')) as [Buffer];
  return methodOf(call).requestDeserialize(chunk.subarray(5));
};

async function serverThat(serve: (call: ServerCall) => void) {
  const server = await GrpcServer.start(serve);
  const spec = { kind: 'etcd' as const, endpoints: [server.endpoint], tls: undefined, auth: undefined };
  onTestFinished(() => server.stop());
  return { server, spec };
}

test('all renewals go by one stream', async () => {
  const { server, spec } = await serverThat((call) => {
    call.begin();
    call.stream.on('data', (chunk: Buffer) => {
      const { ID } = methodOf(call).requestDeserialize(chunk.subarray(5));
      say(call, { ID, TTL: ID === '7' ? '15' : '0' });
    });
  });
  const member = new Member(server.endpoint, spec, 5000);
  onTestFinished(() => member.reset());
  expect(await member.keepAlive('7')).toBe(15);
  expect(await member.keepAlive('8')).toBe(0);
  expect(await member.keepAlive('7')).toBe(15);
  expect(server.calls).toBe(1);
});

test('the late answer to a renewal that was given up is not taken for that to the next one', async () => {
  let stream!: ServerCall;
  const { server, spec } = await serverThat((call) => {
    stream = call;
    call.begin();
    call.stream.resume();
  });
  const member = new Member(server.endpoint, spec, 1000); // the server has the stream by then
  onTestFinished(() => member.reset());
  await expect(member.keepAlive('7')).rejects.toThrow('the lease was not renewed in time');
  const next = member.keepAlive('7');
  say(stream, { ID: '7', TTL: '15' });
  await expect(next).rejects.toThrow('the lease was not renewed in time');
});

test('a connection that is lost fails the renewals under way, and the next one opens another', async () => {
  const { server, spec } = await serverThat((call) => {
    call.begin();
    call.stream.once('data', () => {
      if (server.calls === 1) call.stream.session!.destroy();
      else say(call, { ID: '7', TTL: '15' });
    });
  });
  const member = new Member(server.endpoint, spec, 5000);
  onTestFinished(() => member.reset());
  await expect(member.keepAlive('7')).rejects.toThrow(/UNAVAILABLE/);
  expect(await member.keepAlive('7')).toBe(15);
});

test('a token that the member has forgotten is asked for anew, once for all', async () => {
  let tokens = 0;
  const { server, spec } = await serverThat((call) => {
    if (call.path.endsWith('Authenticate')) answer(call, { token: `token ${++tokens}` });
    else if (call.headers.token === 'token 2') answer(call, { count: '1' });
    else call.refuse('16', 'etcdserver: invalid auth token');
  });
  const auth = { username: 'app', password: 'secret' };
  const member = new Member(server.endpoint, { ...spec, auth }, 5000);
  onTestFinished(() => member.reset());
  const answers = await Promise.all([1, 2, 3].map(() => member.ask(RANGE, { key: Buffer.from('a') })));
  expect(answers.map(({ count }) => count)).toEqual(['1', '1', '1']);
  expect(tokens).toBe(2);
});

test('who may not read words renews all the same, and is not refused again and again', async () => {
  const looks: number[] = [];
  const { spec } = await serverThat(async (call) => {
    if (call.path.endsWith('LeaseKeepAlive')) {
      call.begin();
      call.stream.on('data', () => say(call, { ID: '7', TTL: '15' }));
      return;
    }
    const { success } = (await requestOf(call)) as { success: unknown[] };
    looks.push(success.length);
    if (success.length > 1) call.refuse('7', 'etcdserver: permission denied');
    else
      answer(call, {
        header: { revision: '9' },
        responses: [{ response_range: { kvs: [{ key: Buffer.from('e/7') }] } }],
      });
  });
  const backend = new EtcdBackend(spec, { election: 'e', id: 'me', ttlMs: 15_000, requestMs: 5000 });
  onTestFinished(() => backend[Symbol.asyncDispose]());
  const place = Object.assign(backend.newPlace(), { handle: { key: 'e/7', lease: '7' }, leads: true });
  for (let turn = 0; turn < 3; turn++) expect(await backend.renew(place, within(5000))).toBe(15_000);
  expect(looks).toEqual([2, 1, 1, 1]);
});

test('a lease that may not be revoked is left to run out, without its key', async () => {
  const asked: string[] = [];
  const { spec } = await serverThat(async (call) => {
    asked.push(call.path.split('/').pop()!);
    if (call.path.endsWith('LeaseRevoke')) return call.refuse('7', 'etcdserver: permission denied');
    const { compare, success } = (await requestOf(call)) as Record<string, object[]>;
    expect(compare).toMatchObject([{ key: Buffer.from('e/7'), target: 'Lease', result: 'Equal', lease: '7' }]);
    expect(success).toMatchObject([{ request_delete_range: { key: Buffer.from('e/7') } }]);
    answer(call, { header: { revision: '9' }, succeeded: true });
  });
  const backend = new EtcdBackend(spec, { election: 'e', id: 'me', ttlMs: 15_000, requestMs: 5000 });
  onTestFinished(() => backend[Symbol.asyncDispose]());
  await backend.release(Object.assign(backend.newPlace(), { handle: { key: 'e/7', lease: '7' } }), within(5000));
  expect(asked).toEqual(['LeaseRevoke', 'Txn']);
});

test('whether a name lies inside another election is asked again until it is answered, and nothing is put before', async () => {
  const asked: string[] = [];
  const { spec } = await serverThat((call) => {
    asked.push(call.path.split('/').pop()!);
    if (call.path.endsWith('LeaseGrant')) answer(call, { ID: '7', TTL: '15' });
    else if (asked.filter((method) => method === 'Range').length > 1)
      answer(call, { kvs: [{ key: Buffer.from('jobs/8') }] });
  });
  const backend = new EtcdBackend(spec, { election: 'jobs/a', id: 'me', ttlMs: 15_000, requestMs: 1000 });
  onTestFinished(() => backend[Symbol.asyncDispose]());
  const place = backend.newPlace();
  await expect(backend.acquire(place, within(5000))).rejects.toThrow('no answer in time');
  await expect(backend.acquire(place, within(5000))).rejects.toThrow(Unusable);
  expect(asked).not.toContain('Txn');
});

test('what a server says is shown without its control characters', async () => {
  const error = new Error('14 UNAVAILABLE: a\u001b[31m\u0000b');
  const spec = { kind: 'etcd' as const, endpoints: [], tls: undefined, auth: undefined };
  expect((await explain(error, 'h:1', spec, '', 1)).message).toBe('etcd at h:1: 14 UNAVAILABLE: a?[31m?b');
});
