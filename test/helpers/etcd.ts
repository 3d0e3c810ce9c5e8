import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Certificates, makeCertificates } from './certificates.ts';
import { newFolder } from './folders.ts';
import { freePort, until } from './procs.ts';
import { type Host, hostOf, Server, started, stopped } from './servers.ts';

export interface EtcdOptions {
  members?: 1 | 3;
  /** Users root:rootpw (everything) and app:apppw (reads and writes below /jobs/ only). */
  auth?: boolean;
  /** TLS, and only clients with a certificate. */
  tls?: boolean;
  /** Where its members run, in turn. */
  hosts?: Host[];
  /** How soon a member that hears nothing of the leader stands for election. */
  pace?: { heartbeatMs: number; electionMs: number };
}

export class Etcd {
  readonly folder: string;
  readonly members: Server[] = [];
  /** `host:port` of each member, in their order. */
  readonly endpoints: string[];
  readonly certificates: Certificates | undefined;
  readonly #options: EtcdOptions;
  readonly #clients = new Set<ChildProcess>();

  private constructor(options: EtcdOptions, folder: string, endpoints: string[], certificates?: Certificates) {
    this.#options = options;
    this.folder = folder;
    this.endpoints = endpoints;
    this.certificates = certificates;
  }

  static async start(options: EtcdOptions = {}): Promise<Etcd> {
    const folder = newFolder('etcd');
    const names = Array.from({ length: options.members ?? 1 }, (_, index) => `m${index + 1}`);
    const addresses = names.map((_, index) => hostOf(options.hosts, index).address);
    const clients = await Promise.all(addresses.map(async (address) => `${address}:${await freePort()}`));
    const peers = await Promise.all(addresses.map(async (address) => `http://${address}:${await freePort()}`));
    const certificates = options.tls ? await makeCertificates(folder, addresses[0]!) : undefined;
    const etcd = new Etcd(options, folder, clients, certificates);
    for (const [index, name] of names.entries()) {
      const client = `${options.tls ? 'https' : 'http'}://${clients[index]}`;
      const command = [
        ...hostOf(options.hosts, index).prefix,
        ...['etcd', '--name', name, '--data-dir', join(folder, name), '--log-level', 'error'],
        ...['--listen-client-urls', client, '--advertise-client-urls', client],
        ...['--listen-peer-urls', peers[index]!, '--initial-advertise-peer-urls', peers[index]!],
        ...['--initial-cluster', names.map((other, at) => `${other}=${peers[at]}`).join(',')],
        ...(options.pace ? ['--heartbeat-interval', String(options.pace.heartbeatMs)] : []),
        ...(options.pace ? ['--election-timeout', String(options.pace.electionMs)] : []),
        // By default a look at a password takes 0.1 s of a processor, and elect-run's requests have half a second.
        ...(options.auth ? ['--bcrypt-cost', '4'] : []),
        ...(certificates ? ['--cert-file', certificates.server.cert, '--key-file', certificates.server.key] : []),
        ...(certificates ? ['--trusted-ca-file', certificates.ca, '--client-cert-auth'] : []),
      ];
      etcd.members.push(new Server(name, command, join(folder, `${name}.log`)));
    }
    started(etcd);
    await etcd.ready();
    if (options.auth) await etcd.#setUpUsers();
    return etcd;
  }

  /** As elect-run's --backend takes it. */
  get url(): string {
    return `${this.#options.tls ? 'etcds' : 'etcd'}://${this.endpoints.join(',')}`;
  }

  get clientEnv(): NodeJS.ProcessEnv {
    const { certificates } = this;
    return {
      ETCDCTL_API: '3',
      ETCDCTL_ENDPOINTS: this.endpoints.join(','),
      ...(this.#options.auth ? { ETCDCTL_USER: 'root:rootpw' } : {}),
      ...(certificates
        ? {
            ETCDCTL_CACERT: certificates.ca,
            ETCDCTL_CERT: certificates.client.cert,
            ETCDCTL_KEY: certificates.client.key,
          }
        : {}),
    };
  }

  /** Runs etcdctl against the cluster and returns its stdout. */
  async etcdctl(...args: string[]): Promise<string> {
    return this.#run(args, this.clientEnv);
  }

  /** Starts an etcdctl that goes on: lock, elect, watch. It ends with the cluster at the latest. */
  etcdctlProcess(args: string[]): ChildProcess {
    const [file, ...rest] = [...hostOf(this.#options.hosts, 0).prefix, 'etcdctl', ...args];
    const env = { ...process.env, ...this.clientEnv };
    const client = spawn(file!, rest, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#clients.add(client);
    return client;
  }

  #run(args: string[], env: NodeJS.ProcessEnv): Promise<string> {
    const [file, ...rest] = [...hostOf(this.#options.hosts, 0).prefix, 'etcdctl', ...args];
    return new Promise((resolve, reject) => {
      execFile(file!, rest, { env: { ...process.env, ...env } }, (error, stdout, stderr) => {
        if (error) reject(new Error(`etcdctl ${args.join(' ')}: ${stderr.trim() || error.message}`));
        else resolve(stdout);
      });
    });
  }

  /** Every member that runs answers a linearizable read. */
  async ready(): Promise<void> {
    await Promise.all(this.members.map((member, index) => this.#memberReady(member, this.endpoints[index]!)));
  }

  async #memberReady(member: Server, endpoint: string): Promise<void> {
    const giveUpAt = performance.now() + 30_000;
    const env = { ...this.clientEnv, ETCDCTL_ENDPOINTS: endpoint };
    while (member.isRunning) {
      try {
        await this.#run(['get', '--dial-timeout=1s', '--command-timeout=1s', '/jobs/ready'], env);
        return;
      } catch (error) {
        if (/permission denied|user name is empty/.test((error as Error).message)) return;
        if (performance.now() > giveUpAt) throw new Error(`${member.name} is not ready: ${error}\n${member.log}`);
        await sleep(20);
      }
    }
    throw new Error(`${member.name} ended:\n${member.log}`);
  }

  async #setUpUsers(): Promise<void> {
    const asNobody = (...args: string[]) => this.#run(args, { ...this.clientEnv, ETCDCTL_USER: undefined });
    await asNobody('user', 'add', 'root:rootpw');
    await asNobody('user', 'grant-role', 'root', 'root');
    await asNobody('role', 'add', 'app');
    await asNobody('role', 'grant-permission', 'app', 'readwrite', '--prefix=true', '/jobs/');
    await asNobody('role', 'grant-permission', 'app', 'readwrite', '--prefix=true', 'elect-run-runs//jobs/');
    await asNobody('role', 'grant-permission', 'app', 'readwrite', '--prefix=true', 'elect-run-words//jobs/');
    await asNobody('user', 'add', 'app:apppw');
    await asNobody('user', 'grant-role', 'app', 'app');
    await asNobody('auth', 'enable');
  }

  /** The keys below NAME/, in the order of the line. */
  async line(name: string): Promise<{ key: string; value: string; lease: string }[]> {
    const answer = await this.etcdctl('get', '--prefix', `${name}/`, '--sort-by=CREATE', '-w', 'json');
    const { kvs = [] } = JSON.parse(answer.replace(/"lease":(\d+)/g, '"lease":"$1"')) as {
      kvs?: { key: string; value?: string; lease?: string }[];
    };
    const text = (base64 = '') => Buffer.from(base64, 'base64').toString();
    return kvs.map(({ key, value, lease }) => ({
      key: text(key),
      value: text(value),
      lease: BigInt(lease ?? 0).toString(16),
    }));
  }

  /** Until so many stand in the line, the leader included. */
  async inLine(name: string, count: number): Promise<void> {
    await until(async () => (await this.line(name)).length === count, `${count} in the line of ${name}`);
  }

  /** The index of the member that leads the cluster, as the living members say. */
  async leader(): Promise<number> {
    return until(async () => {
      const status = await Promise.all(
        this.endpoints.map((endpoint, index) => (this.members[index]!.isRunning ? this.#status(endpoint) : undefined)),
      );
      const index = status.findIndex((one) => one !== undefined && one.leader === one.id);
      return index === -1 ? undefined : index;
    }, 'a leader of the cluster');
  }

  async #status(endpoint: string): Promise<{ id: string; leader: string } | undefined> {
    try {
      const text = await this.#run(['endpoint', 'status', '--command-timeout=1s', '-w', 'json'], {
        ...this.clientEnv,
        ETCDCTL_ENDPOINTS: endpoint,
      });
      return { id: /"member_id":(\d+)/.exec(text)![1]!, leader: /"leader":(\d+)/.exec(text)![1]! };
    } catch {
      return undefined;
    }
  }

  /** Everything as at the beginning: nobody frozen, all running. */
  async heal(): Promise<void> {
    for (const member of this.members) {
      if (member.isRunning) member.thaw();
      else member.start();
    }
    await this.ready();
  }

  async stop(): Promise<void> {
    for (const client of this.#clients) client.kill('SIGKILL');
    await Promise.all(this.members.map((member) => member.kill()));
    stopped(this);
  }
}
