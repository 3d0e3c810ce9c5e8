import { execFileSync } from 'node:child_process';
import { accessSync, chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { load, loadAll } from 'js-yaml';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { parseDuration } from '../../src/durations.ts';
import { leaveNothingBehind, typesOf } from '../faults/candidates.ts';
import { type ContainerOptions, endContainers, pidOneOf, runImage } from '../helpers/container.ts';
import { buildImage, Image } from '../helpers/dockerfile.ts';
import { BIN, type Elect, type LoggedEvent, NODE } from '../helpers/elect.ts';
import { newFolder } from '../helpers/folders.ts';
import { filesOf } from '../helpers/guide.ts';
import { get } from '../helpers/http.ts';
import { Kubernetes } from '../helpers/kubernetes.ts';
import { describeWith } from '../helpers/needs.ts';
import { Network } from '../helpers/netns.ts';
import { commandLine, until } from '../helpers/procs.ts';
import { scratch } from '../helpers/scratch.ts';
import { Server } from '../helpers/servers.ts';

const files = filesOf('guides/containers.md');
const HAND_OVER_MS = 1000;

/** What the two images that the guide names have in them, as far as it matters. */
const bases = {
  'node:20-bookworm-slim': () => new Image(),
  'gcr.io/distroless/nodejs20-debian12:nonroot': () => {
    const image = new Image();
    image.root.addProgram(NODE, '/nodejs/bin/node');
    image.user = 65532;
    image.root.write('/etc/passwd', 'nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n');
    return image;
  },
};

const at = (event: LoggedEvent): number => Date.parse(event.time);

async function stop(pod: Elect, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  process.kill(await pidOneOf(pod), signal);
}

/** Stops whoever leads, as a runtime does, and says who leads next; one job has ended before the other one starts, and soon after. */
async function handOver(old: Elect, others: Elect[]): Promise<Elect> {
  await old.prints('working');
  await stop(old);
  expect((await old.ended).code).toBe(0); // job.js ends cleanly
  const next = await until(() => others.find((one) => typesOf(one).includes('started')), 'the next leader');
  const [ended, started] = [await old.event('ended'), await next.event('started')];
  expect(at(started)).toBeGreaterThanOrEqual(at(ended));
  expect(at(started) - at(ended)).toBeLessThan(HAND_OVER_MS);
  expect(typesOf(old)).toContain('resigned');
  expect(BigInt(String((await next.event('elected')).token))).toBeGreaterThan(
    BigInt(String((await old.event('elected')).token)),
  );
  return next;
}

describeWith(['pidns'], 'docs/guides/containers.md', () => {
  leaveNothingBehind();
  afterEach(endContainers);
  const context = newFolder('context');
  let image: Image;
  beforeAll(() => {
    const pack = ['pack', '--ignore-scripts', '--pack-destination', context]; // what is built is under test, and in use
    execFileSync('npm', pack, { cwd: resolve(BIN, '../..'), stdio: 'pipe' });
    for (const [name, text] of Object.entries(files)) writeFileSync(join(context, name), text);
    image = buildImage(files.Dockerfile!, context, bases);
  }, 180_000);
  afterAll(() => {
    image?.root.remove();
    rmSync(context, { recursive: true });
  });

  const run = (options?: ContainerOptions) => runImage(image, options);

  describe('the image', () => {
    test('has no shell', () => {
      for (const path of ['/bin/sh', '/usr/bin/env', '/bin/busybox'])
        expect(() => accessSync(image.root.at(path))).toThrow('ENOENT');
    });

    test('runs the job as pid 1, with a read-only root, not as root, and without HOME', async () => {
      const volume = mkdtempSync('/dev/shm/elect-run-test-'); // the devices are all that is not the image's
      onTestFinished(() => rmSync(volume, { recursive: true }));
      chmodSync(volume, 0o777);
      const box = run({ env: { ELECT_RUN_BACKEND: `file:${volume}` } });
      await box.prints(/^working with token 1\n/);
      expect(commandLine(await pidOneOf(box))).toEqual([...image.entrypoint, ...image.cmd]);
      await stop(box);
      expect((await box.ended).code).toBe(0);
      expect(typesOf(box)).not.toContain('warning');
    });

    test.each([undefined, 4242])('without HOME, user %s: the file backend asks for a directory, 64', async (user) => {
      const { code, stderr } = await run(user === undefined ? {} : { user }).ended;
      expect(stderr).toMatch(/file:DIR/);
      expect(code).toBe(64);
    });
  });

  describeWith(['etcd', 'netns'], 'compose.yaml', () => {
    interface Service {
      command: string[];
      environment: Record<string, string>;
      read_only: boolean;
      stop_grace_period: string;
      deploy: { replicas: number };
    }

    test('of its replicas one works; when it is stopped the next one takes over, down to the last', async () => {
      const { etcd, nightly } = (load(files['compose.yaml']!) as { services: Record<string, Service> }).services;
      const network = Network.create(1);
      onTestFinished(() => network.remove());
      image.root.write('/etc/hosts', '127.0.0.1 localhost etcd\n');
      const data = scratch();
      const command = [...network.prefix(1), 'env', '-C', data, ...etcd!.command];
      const server = new Server('etcd', command, join(data, 'log'));
      onTestFinished(() => server.kill());
      expect(nightly).toMatchObject({ build: '.', read_only: true });
      expect(parseDuration(nightly!.environment.ELECT_RUN_STOP_TIMEOUT!)).toBeLessThan(
        parseDuration(nightly!.stop_grace_period)!,
      );
      let replicas = Array.from({ length: nightly!.deploy.replicas }, () =>
        run({ env: nightly!.environment, network: network.prefix(1) }),
      );
      let leader = await until(() => replicas.find((one) => typesOf(one).includes('started')), 'a leader', 40_000);
      for (;;) {
        replicas = replicas.filter((one) => one !== leader);
        await Promise.all(replicas.map((one) => one.event('standby')));
        expect(replicas.filter((one) => typesOf(one).includes('started'))).toEqual([]);
        if (replicas.length === 0) break;
        leader = await handOver(leader, replicas);
      }
      await leader.prints('working');
      await stop(leader);
      expect((await leader.ended).code).toBe(0);
    });
  });

  describeWith(['kubeApiserver', 'etcd', 'etcdctl', 'openssl'], 'deployment.yaml', () => {
    interface KubernetesObject {
      apiVersion: string;
      kind: string;
      metadata: { name: string };
    }
    interface Deployment extends KubernetesObject {
      spec: {
        replicas: number;
        template: {
          spec: {
            serviceAccountName: string;
            terminationGracePeriodSeconds: number;
            securityContext: { runAsUser: number };
            containers: {
              env: { name: string; value?: string; valueFrom?: { fieldRef: { fieldPath: string } } }[];
              ports: { name: string; containerPort: number }[];
              readinessProbe: { httpGet: { path: string; port: string } };
              livenessProbe: { httpGet: { path: string; port: string } };
            }[];
          };
        };
      };
    }

    const objects = loadAll(files['deployment.yaml']!) as KubernetesObject[];
    const deployment = objects.find(({ kind }) => kind === 'Deployment') as Deployment;
    const { spec: podSpec } = deployment.spec.template;
    let kubernetes: Kubernetes;

    beforeAll(async () => {
      kubernetes = await Kubernetes.start();
    });

    /** As `kubectl apply`; fails also where the API server does not know a field, which it leaves out. */
    async function apply(object: KubernetesObject): Promise<void> {
      const group = object.apiVersion.includes('/') ? `/apis/${object.apiVersion}` : `/api/${object.apiVersion}`;
      const path = `${group}/namespaces/default/${object.kind.toLowerCase()}s`;
      expect(await kubernetes.api('POST', path, object)).toMatchObject(object);
    }

    /** What the kubelet puts into every pod. */
    async function mountServiceAccount(): Promise<void> {
      const folder = '/var/run/secrets/kubernetes.io/serviceaccount';
      image.root.write(`${folder}/token`, await kubernetes.serviceAccountToken(podSpec.serviceAccountName));
      image.root.write(`${folder}/ca.crt`, readFileSync(kubernetes.certificates.ca, 'utf8'));
      image.root.write(`${folder}/namespace`, 'default');
    }

    function pod(name: string): Elect {
      const [host, port] = kubernetes.endpoints[0].split(':');
      const [{ env }] = podSpec.containers as [(typeof podSpec.containers)[0]];
      const fields: Record<string, string> = { 'metadata.name': name };
      const own = env.map(({ name, value, valueFrom }) => [name, value ?? fields[valueFrom!.fieldRef.fieldPath]!]);
      const cluster = { KUBERNETES_SERVICE_HOST: host!, KUBERNETES_SERVICE_PORT: port! };
      return run({
        env: { ...Object.fromEntries(own), ...cluster, ELECT_RUN_LISTEN: '0' }, // here they share one network
        user: podSpec.securityContext.runAsUser,
      });
    }

    test('a rolling update of its pods: each hand-over within 1 s, never two at work, and the Lease names the pod', async () => {
      for (const object of objects) await apply(object);
      for (const verb of ['get', 'create', 'update', 'watch'])
        await kubernetes.may(`system:serviceaccount:default:${podSpec.serviceAccountName}`, verb);
      await mountServiceAccount();
      const leader = pod('nightly-old-0');
      await leader.event('started');
      const old = [
        leader,
        ...Array.from({ length: deployment.spec.replicas - 1 }, (_, n) => pod(`nightly-old-${n + 1}`)),
      ];
      let working = leader;
      const updated: Elect[] = [];
      // maxSurge 1, maxUnavailable 0: a new one stands by before an old one is stopped.
      for (const [n, one] of old.entries()) {
        updated.push(pod(`nightly-new-${n}`));
        await Promise.all(
          [...old.slice(n), ...updated].filter((pod) => pod !== working).map((pod) => pod.event('standby')),
        );
        if (one === working) working = await handOver(one, [...old.slice(n + 1), ...updated]);
        else {
          await stop(one);
          expect(await one.ended).toMatchObject({ code: 143 });
        }
      }
      expect(updated).toContain(working);
      await kubernetes.heldBy('nightly', 'nightly-new-');
      await Promise.all(updated.map((one) => stop(one)));
      await Promise.all(updated.map((one) => one.ended));
      await kubernetes.heldBy('nightly', '');
    });

    test('the probes find a leader and a standby alive and ready, and a pod that cannot reach the store alive only', async () => {
      const [{ env, ports, readinessProbe, livenessProbe }] = podSpec.containers as [(typeof podSpec.containers)[0]];
      const [monitor] = ports;
      expect(env).toContainEqual({ name: 'ELECT_RUN_LISTEN', value: `0.0.0.0:${monitor!.containerPort}` });
      for (const { httpGet } of [readinessProbe, livenessProbe]) expect(httpGet.port).toBe(monitor!.name);
      await kubernetes.may(`system:serviceaccount:default:${podSpec.serviceAccountName}`, 'get');
      await mountServiceAccount();
      const probe = async (one: Elect) => [
        (await get(one, livenessProbe.httpGet.path)).status,
        (await get(one, readinessProbe.httpGet.path)).status,
      ];
      const leader = pod('nightly-probed-0');
      await leader.event('started');
      const standby = pod('nightly-probed-1');
      await standby.event('standby');
      for (const one of [leader, standby]) expect(await probe(one)).toEqual([200, 200]);
      const lonely = run({ env: { ELECT_RUN_BACKEND: 'etcd://127.0.0.1:1', ELECT_RUN_LISTEN: '0' } });
      await lonely.event('unreachable');
      expect(await probe(lonely)).toEqual([200, 503]);
    });

    test('elect-run gives up before the kubelet does', () => {
      const timeout = podSpec.containers[0]!.env.find(({ name }) => name === 'ELECT_RUN_STOP_TIMEOUT')!.value!;
      expect(parseDuration(timeout)).toBeLessThanOrEqual(1000 * podSpec.terminationGracePeriodSeconds - 10_000);
    });
  });
});
