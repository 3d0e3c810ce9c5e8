import { generateKeyPairSync } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Certificates, makeCertificates } from './certificates.ts';
import { Etcd } from './etcd.ts';
import { newFolder } from './folders.ts';
import { KUBE_APISERVER } from './kube-apiserver.ts';
import { freePort, until } from './procs.ts';
import { type Host, hostOf, Server, started, stopped } from './servers.ts';

/**
 * `admin` may do everything, `app` has the Role of docs/guides/containers.md, `unwatching` lacks the right to watch, `nobody` has no right at all.
 * Each has its name as its token.
 */
const USERS = ['admin', 'app', 'unwatching', 'nobody'] as const;
export type User = (typeof USERS)[number];

/** `certificate`: a client certificate with the rights of `app`. */
export type Identity = { token: string } | { certificate: true } | { exec: object } | { tokenFile: string };

export interface LeaseObject {
  metadata: { name: string; resourceVersion: string; annotations?: Record<string, string>; [field: string]: unknown };
  spec: { holderIdentity?: string; leaseDurationSeconds?: number; renewTime?: string; [field: string]: unknown };
}

const VERBS = ['get', 'create', 'update'];
const LEASES = '/apis/coordination.k8s.io/v1/namespaces/default/leases';
const RBAC = '/apis/rbac.authorization.k8s.io/v1/namespaces/default';

/** A real kube-apiserver with RBAC and an etcd of its own, and nothing else: no kubelet, no controllers. */
export class Kubernetes {
  readonly folder: string;
  /** The API server. Its etcd is `etcd`. */
  readonly members: [Server];
  readonly etcd: Etcd;
  /** `host:port` of the API server. */
  readonly endpoints: [string];
  readonly certificates: Certificates;
  #kubeconfigs = 0;

  private constructor(folder: string, server: Server, etcd: Etcd, endpoint: string, certificates: Certificates) {
    this.folder = folder;
    this.members = [server];
    this.etcd = etcd;
    this.endpoints = [endpoint];
    this.certificates = certificates;
  }

  /** `host`: where both run. */
  static async start(host?: Host): Promise<Kubernetes> {
    const folder = newFolder('kubernetes');
    const { address, prefix } = hostOf(host && [host], 0);
    const [etcd, certificates, port] = await Promise.all([
      Etcd.start(host ? { hosts: [host] } : {}),
      makeCertificates(folder, address),
      freePort(),
    ]);
    const at = (name: string) => join(folder, name);
    writeFileSync(
      at('tokens.csv'),
      USERS.map((user) => `${user},${user},${user},"${user === 'admin' ? 'system:masters' : 'users'}"\n`).join(''),
    );
    const { server: serving } = certificates;
    // Signs the tokens of service accounts. Of the formats of private keys kube-apiserver knows only the old ones.
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    writeFileSync(at('accounts.key'), privateKey.export({ type: 'sec1', format: 'pem' }));
    const command = [
      ...prefix,
      ...[KUBE_APISERVER!, '--etcd-servers', `http://${etcd.endpoints[0]}`, '--bind-address', address],
      ...['--secure-port', String(port), '--tls-cert-file', serving.cert, '--tls-private-key-file', serving.key],
      ...['--client-ca-file', certificates.ca, '--token-auth-file', at('tokens.csv'), '--authorization-mode', 'RBAC'],
      ...[
        '--service-account-issuer',
        'https://kubernetes.default.svc',
        '--service-account-key-file',
        at('accounts.key'),
      ],
      ...['--service-account-signing-key-file', at('accounts.key'), '--service-cluster-ip-range', '10.96.0.0/16'],
      ...['--endpoint-reconciler-type', 'none', '--advertise-address', '192.0.2.10', '--cert-dir', at('generated')],
      ...['--disable-admission-plugins', 'ServiceAccount', '--enable-priority-and-fairness=false'],
    ];
    const server = new Server('kube-apiserver', command, at('kube-apiserver.log'));
    const kubernetes = new Kubernetes(folder, server, etcd, `${address}:${port}`, certificates);
    started(kubernetes);
    await kubernetes.ready();
    await kubernetes.#grant();
    return kubernetes;
  }

  /** As elect-run's --backend takes it. */
  get url(): string {
    return 'kubernetes://default';
  }

  /** For elect-run as `app`. */
  get env(): NodeJS.ProcessEnv {
    return { KUBECONFIG: this.kubeconfig('app') };
  }

  /** A file for this user, by way of this `host:port` and with these other settings of its cluster. */
  kubeconfig(who: User | Identity, options: { endpoint?: string; cluster?: object; namespace?: string } = {}): string {
    const identity = typeof who === 'string' ? { token: who } : who;
    const { client } = this.certificates;
    const user = 'certificate' in identity ? { 'client-certificate': client.cert, 'client-key': client.key } : identity;
    const cluster = {
      server: `https://${options.endpoint ?? this.endpoints[0]}`,
      'certificate-authority': this.certificates.ca,
      ...options.cluster,
    };
    const context = { cluster: 'test', user: 'test', namespace: options.namespace };
    const file = join(this.folder, `kubeconfig-${++this.#kubeconfigs}`);
    writeFileSync(
      file,
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'Config',
        clusters: [{ name: 'test', cluster }],
        users: [{ name: 'test', user }],
        contexts: [{ name: 'test', context }],
        'current-context': 'test',
      }),
    );
    return file;
  }

  /** A request of the administrator's; throws when it is refused. */
  async api<T = unknown>(method: string, path: string, body?: unknown): Promise<T> {
    const { code, text } = await this.#request(method, path, body);
    if (code >= 300) throw new Error(`${method} ${path}: ${code} ${text}`);
    return JSON.parse(text) as T;
  }

  #request(method: string, path: string, body?: unknown): Promise<{ code: number; text: string }> {
    return new Promise((resolve, reject) => {
      const type = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json';
      const headers = { Authorization: 'Bearer admin', 'Content-Type': type };
      const ca = readFileSync(this.certificates.ca);
      const asked = request(`https://${this.endpoints[0]}${path}`, { method, headers, ca, timeout: 5000 }, (answer) => {
        let text = '';
        answer.setEncoding('utf8').on('data', (chunk) => {
          text += chunk;
        });
        answer.on('end', () => resolve({ code: answer.statusCode!, text }));
        answer.on('error', reject);
      });
      asked.on('error', reject);
      asked.on('timeout', () => asked.destroy(new Error('no answer')));
      asked.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  /** How many requests the API server has answered; a watch counts when it ends. */
  async answered(): Promise<number> {
    const { text } = await this.#request('GET', '/metrics');
    return [...text.matchAll(/^apiserver_request_total\{.* (\S+)$/gm)].reduce(
      (sum, [, count]) => sum + Number(count),
      0,
    );
  }

  /** Undefined: there is none. */
  async lease(name: string): Promise<LeaseObject | undefined> {
    const { code, text } = await this.#request('GET', `${LEASES}/${name}`);
    return code === 404 ? undefined : JSON.parse(text);
  }

  /** As `kubectl create`. */
  create(name: string, spec: object): Promise<LeaseObject> {
    const lease = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name }, spec };
    return this.api('POST', LEASES, lease);
  }

  /** As `kubectl patch --type=merge`: null removes a field. */
  edit(name: string, change: object): Promise<LeaseObject> {
    return this.api('PATCH', `${LEASES}/${name}`, change);
  }

  /** As `kubectl delete`. */
  async delete(name: string): Promise<void> {
    await this.api('DELETE', `${LEASES}/${name}`);
  }

  /** Until the holder is one whose id starts so; '' is nobody. */
  async heldBy(name: string, label: string): Promise<LeaseObject> {
    return until(async () => {
      const lease = await this.lease(name);
      const holder = lease?.spec.holderIdentity ?? '';
      return (label === '' ? holder === '' : holder.startsWith(label)) ? lease : undefined;
    }, `${name} is held by "${label}"`);
  }

  /** The API server answers requests that need its etcd. */
  async ready(): Promise<void> {
    const giveUpAt = performance.now() + 60_000;
    const [server] = this.members;
    for (;;) {
      if (!server.isRunning) throw new Error(`kube-apiserver ended:\n${server.log.slice(-4000)}`);
      const answer = await this.#request('GET', '/readyz').catch(() => undefined);
      const found = await this.#request('GET', '/api/v1/namespaces/default').catch(() => undefined);
      if (answer?.text === 'ok' && found?.code === 200) return;
      if (performance.now() > giveUpAt) throw new Error(`kube-apiserver is not ready:\n${server.log.slice(-4000)}`);
      await sleep(50);
    }
  }

  async #grant(): Promise<void> {
    const role = (name: string, verbs: string[], subjects: string[]) => [
      this.api('POST', `${RBAC}/roles`, {
        metadata: { name },
        rules: [{ apiGroups: ['coordination.k8s.io'], resources: ['leases'], verbs }],
      }),
      this.api('POST', `${RBAC}/rolebindings`, {
        metadata: { name },
        roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name },
        subjects: subjects.map((subject) =>
          subject.startsWith('account:')
            ? { kind: 'ServiceAccount', name: subject.slice('account:'.length), namespace: 'default' }
            : { kind: 'User', name: subject, apiGroup: 'rbac.authorization.k8s.io' },
        ),
      }),
    ];
    await Promise.all([
      ...role('app', [...VERBS, 'watch'], ['app', 'client', 'account:runner']),
      ...role('unwatching', VERBS, ['unwatching']),
      this.api('POST', '/api/v1/namespaces/default/serviceaccounts', { metadata: { name: 'runner' } }),
    ]);
    await this.may('app', 'watch');
    await this.may('unwatching', 'update');
  }

  /** Until the authorizer, which learns of rights by a watch of its own, lets this user do so with Leases. */
  async may(user: string, verb: string): Promise<void> {
    const resourceAttributes = { namespace: 'default', verb, group: 'coordination.k8s.io', resource: 'leases' };
    await until(async () => {
      const path = '/apis/authorization.k8s.io/v1/subjectaccessreviews';
      const body = { spec: { user, resourceAttributes } };
      return (await this.api<{ status: { allowed: boolean } }>('POST', path, body)).status.allowed;
    }, `${user} may ${verb} leases`);
  }

  /** What the kubelet would mount into a pod of this service account: a token that runs out. */
  async serviceAccountToken(account = 'runner'): Promise<string> {
    const path = `/api/v1/namespaces/default/serviceaccounts/${account}/token`;
    const { status } = await this.api<{ status: { token: string } }>('POST', path, {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: { expirationSeconds: 600 },
    });
    return status.token;
  }

  /** Everything as at the beginning: nobody frozen, all running. */
  async heal(): Promise<void> {
    await this.etcd.heal();
    const [server] = this.members;
    if (server.isRunning) server.thaw();
    else server.start();
    await this.ready();
  }

  async stop(): Promise<void> {
    await Promise.all([this.members[0].kill(), this.etcd.stop()]);
    stopped(this);
  }
}
