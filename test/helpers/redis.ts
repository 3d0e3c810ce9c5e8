import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Certificates, makeCertificates } from './certificates.ts';
import { newFolder } from './folders.ts';
import { freePort, until } from './procs.ts';
import { type Host, hostOf, Server, started, stopped } from './servers.ts';

export interface RedisOptions {
  /** A master, a replica and three Sentinels. */
  sentinels?: boolean;
  /** User app:apppw, who may touch /jobs/ only, and no more than is needed; the default user's password is rootpw. */
  auth?: boolean;
  /** TLS, and only clients with a certificate. */
  tls?: boolean;
  /** Where the members run, in turn, and the Sentinels beside them. */
  hosts?: Host[];
}

const MASTER = 'mymaster';
const RIGHTS = '~/jobs/* ~{/jobs/*}:* +eval +get +set +del +pttl +pexpire +time +rpush +blpop';

/** Real Redis servers. They keep nothing on disk, except for `durable` ones. */
export class Redis {
  readonly folder: string;
  /** The master, then its replica. */
  readonly members: Server[] = [];
  readonly sentinels: Server[] = [];
  /** `host:port` of the members, in their order. */
  readonly endpoints: string[] = [];
  readonly #sentinelEndpoints: string[] = [];
  readonly certificates: Certificates | undefined;
  readonly #options: RedisOptions;

  private constructor(options: RedisOptions, folder: string, certificates: Certificates | undefined) {
    this.folder = folder;
    this.#options = options;
    this.certificates = certificates;
  }

  static async start(options: RedisOptions = {}): Promise<Redis> {
    const folder = newFolder('redis');
    const certificates = options.tls ? await makeCertificates(folder, '127.0.0.1') : undefined;
    const redis = new Redis(options, folder, certificates);
    started(redis);
    await redis.#startMember();
    if (options.sentinels) await redis.#startSentinels();
    return redis;
  }

  /** `replicaOf`: `host port`. */
  async #startMember(replicaOf?: string): Promise<void> {
    const port = await freePort();
    const { certificates, folder } = this;
    const name = `r${this.members.length + 1}`;
    const { address, prefix } = hostOf(this.#options.hosts, this.members.length);
    // Whose replica it is Sentinels change, also in this file, for the time after a restart.
    const config = join(folder, `${name}.conf`);
    writeFileSync(config, replicaOf === undefined ? '' : `replicaof ${replicaOf}\n`);
    const command = [
      ...prefix,
      ...[
        'redis-server',
        ...(this.#options.sentinels ? [config] : []),
        '--port',
        certificates ? '0' : String(port),
        '--bind',
        address,
        '--dir',
        folder,
      ],
      ...['--protected-mode', 'no'], // only here and in namespaces of the tests' own can it be reached
      // What it holds survives a kill.
      ...['--save', '', '--appendonly', 'yes', '--appendfsync', 'always', '--appenddirname', name],
      ...['--repl-diskless-sync-delay', '0', '--repl-timeout', '60'],
      ...(certificates
        ? [
            ...['--tls-port', String(port), '--tls-cert-file', certificates.server.cert],
            ...['--tls-key-file', certificates.server.key, '--tls-ca-cert-file', certificates.ca],
          ]
        : []),
      ...(this.#options.auth ? ['--requirepass', 'rootpw', '--user', 'app', 'on', '>apppw', ...RIGHTS.split(' ')] : []),
    ];
    this.endpoints.push(`${address}:${port}`);
    this.members.push(new Server(name, command, join(folder, `${name}.log`)));
    await this.#memberReady(this.members.length - 1);
  }

  async #startSentinels(): Promise<void> {
    const [host, port] = this.endpoints[0]!.split(':');
    await this.#startMember(`${host} ${port}`);
    await until(async () => /master_link_status:up/.test(await this.cliOf(1, 'info', 'replication')), 'replication');
    for (let index = 1; index <= 3; index++) {
      const own = await freePort();
      const { address, prefix } = hostOf(this.#options.hosts, index - 1);
      const config = join(this.folder, `s${index}.conf`);
      const lines = [
        `port ${own}`,
        `bind ${address}`,
        'protected-mode no',
        `dir ${this.folder}`,
        `sentinel monitor ${MASTER} ${host} ${port} 2`,
        `sentinel down-after-milliseconds ${MASTER} 1000`,
        `sentinel failover-timeout ${MASTER} 3000`,
      ];
      writeFileSync(config, `${lines.join('\n')}\n`);
      this.#sentinelEndpoints.push(`${address}:${own}`);
      this.sentinels.push(
        new Server(`s${index}`, [...prefix, 'redis-server', config, '--sentinel'], join(this.folder, `s${index}.log`)),
      );
    }
    await until(async () => {
      const views = await Promise.all(
        this.#sentinelEndpoints.map((endpoint) => this.#cli(endpoint, ['sentinel', 'master', MASTER]).catch(() => '')),
      );
      return views.every((view) => /num-slaves\n1\n/.test(view) && /num-other-sentinels\n2\n/.test(view));
    }, 'three Sentinels that know each other and the replica');
  }

  /** As elect-run's --backend takes it. */
  get url(): string {
    if (this.#options.sentinels) return `redis+sentinel://${this.#sentinelEndpoints.join(',')}/${MASTER}`;
    return this.urlThrough(this.endpoints[0]!);
  }

  urlThrough(endpoint: string): string {
    return `${this.#options.tls ? 'rediss' : 'redis'}://${this.#options.auth ? 'app:apppw@' : ''}${endpoint}`;
  }

  get sentinelEndpoints(): string[] {
    return this.#sentinelEndpoints;
  }

  /** Runs redis-cli against the first member, as its administrator, and returns its stdout. */
  cli(...args: string[]): Promise<string> {
    return this.cliOf(0, ...args);
  }

  cliOf(member: number, ...args: string[]): Promise<string> {
    return this.#cli(this.endpoints[member]!, args);
  }

  #cli(endpoint: string, args: string[]): Promise<string> {
    const { certificates } = this;
    const [host, port] = endpoint.split(':');
    const flags = [
      ...['-h', host!, '-p', port!, '-e'],
      ...(this.#options.auth ? ['-a', 'rootpw', '--no-auth-warning'] : []),
      ...(certificates
        ? ['--tls', '--cacert', certificates.ca, '--cert', certificates.client.cert, '--key', certificates.client.key]
        : []),
    ];
    return new Promise((resolve, reject) => {
      execFile('redis-cli', [...flags, ...args], { timeout: 5000 }, (error, stdout, stderr) => {
        if (error) reject(new Error(`redis-cli ${args.join(' ')}: ${stderr.trim() || stdout.trim() || error.message}`));
        else resolve(stdout);
      });
    });
  }

  /** Which member is the master now, as the Sentinels say. */
  master(): Promise<number> {
    return this.masterSeenBy(0);
  }

  async masterSeenBy(sentinel: number): Promise<number> {
    const [host, port] = (
      await this.#cli(this.#sentinelEndpoints[sentinel]!, ['sentinel', 'get-master-addr-by-name', MASTER])
    ).split('\n');
    return this.endpoints.indexOf(`${host}:${port}`);
  }

  async #memberReady(index: number): Promise<void> {
    const member = this.members[index]!;
    await until(async () => {
      if (!member.isRunning) throw new Error(`${member.name} ended:\n${member.log}`);
      return /PONG/.test(await this.cliOf(index, 'ping').catch(() => ''));
    }, `${member.name} answers`);
  }

  /** Everything as at the beginning: nobody frozen, all running. */
  async heal(): Promise<void> {
    for (const member of [...this.members, ...this.sentinels]) {
      if (member.isRunning) member.thaw();
      else member.start();
    }
    await Promise.all(this.members.map((_, index) => this.#memberReady(index)));
  }

  async stop(): Promise<void> {
    await Promise.all([...this.members, ...this.sentinels].map((server) => server.kill()));
    stopped(this);
  }
}
