import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { Auth } from '../../src/backends/connection.ts';
import { type Client, CODES, type Done, isAnswer, type Stat } from '../../src/backends/zookeeper/library.ts';
import { Session } from '../../src/backends/zookeeper/session.ts';
import { newFolder } from './folders.ts';
import { freePort, until } from './procs.ts';
import { type Host, hostOf, Server, started, stopped } from './servers.ts';

export interface ZooKeeperOptions {
  members?: 1 | 3;
  /** The election's parent /jobs belongs to app:apppw. */
  auth?: boolean;
  /** Where its members run, in turn. */
  hosts?: Host[];
}

const JAVA = [
  ...['java', '-Xmx128m', '-XX:TieredStopAtLevel=1', '-XX:+UseSerialGC', '-Dzookeeper.admin.enableServer=false'],
  '-Dznode.container.checkIntervalMs=500', // a container that is empty goes soon
  ...['-cp', '/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-nop.jar'],
  'org.apache.zookeeper.server.quorum.QuorumPeerMain',
];

export class ZooKeeper {
  readonly folder: string;
  readonly members: Server[] = [];
  /** `host:port` of each member, in their order. */
  readonly endpoints: string[];
  #session: Session;
  readonly #newSession: () => Session;

  private constructor(folder: string, endpoints: string[], auth: Auth | undefined) {
    this.folder = folder;
    this.endpoints = endpoints;
    const spec = { kind: 'zookeeper', endpoints, chroot: '', flavor: 'kazoo', auth } as const;
    this.#newSession = () => new Session(spec, { election: '', id: 'test', ttlMs: 10_000, requestMs: 3000 });
    this.#session = this.#newSession();
  }

  static async start(options: ZooKeeperOptions = {}): Promise<ZooKeeper> {
    const folder = newFolder('zookeeper');
    const ids = Array.from({ length: options.members ?? 1 }, (_, index) => index + 1);
    const ports = await Promise.all(ids.map(() => Promise.all([freePort(), freePort(), freePort()])));
    const addresses = ids.map((_, index) => hostOf(options.hosts, index).address);
    const store = new ZooKeeper(
      folder,
      ports.map(([client], index) => `${addresses[index]}:${client}`),
      options.auth ? { username: 'app', password: 'apppw' } : undefined,
    );
    const quorum = ids.map((id, index) => `server.${id}=${addresses[index]}:${ports[index]![1]}:${ports[index]![2]}`);
    for (const [index, id] of ids.entries()) {
      const data = store.dataOf(index);
      mkdirSync(data);
      writeFileSync(join(data, 'myid'), String(id));
      const config = join(folder, `z${id}.cfg`);
      const lines = [
        ...[
          'tickTime=500',
          'maxSessionTimeout=240000',
          'initLimit=20',
          'syncLimit=10',
          `dataDir=${data}`,
          `clientPortAddress=${addresses[index]}`,
        ],
        ...[`clientPort=${ports[index]![0]}`, 'maxClientCnxns=0', '4lw.commands.whitelist=*'],
        ...(ids.length > 1 ? quorum : []),
      ];
      writeFileSync(config, `${lines.join('\n')}\n`);
      store.members.push(
        new Server(`z${id}`, [...hostOf(options.hosts, index).prefix, ...JAVA, config], join(folder, `z${id}.log`)),
      );
    }
    started(store);
    await store.ready();
    if (options.auth) await store.#setUpUser();
    return store;
  }

  /** As elect-run's --backend takes it. */
  get url(): string {
    return `zookeeper://${this.endpoints.join(',')}`;
  }

  /** The same, with this endpoint in the place of the only one. */
  urlThrough(endpoint: string): string {
    return `zookeeper://${endpoint}`;
  }

  /** The folder in which this member keeps its snapshots and log. */
  dataOf(member: number): string {
    return join(this.folder, `z${member + 1}`);
  }

  /** For how long a session may last, from the next start of the members on. */
  limitSessions(longestMs: number): void {
    for (const index of this.members.keys()) {
      const config = join(this.folder, `z${index + 1}.cfg`);
      const text = readFileSync(config, 'utf8');
      writeFileSync(config, text.replace(/^maxSessionTimeout=.*$/m, `maxSessionTimeout=${longestMs}`));
    }
  }

  /** Every member that runs serves. */
  async ready(): Promise<void> {
    await until(
      async () => {
        const modes = await Promise.all(
          this.members.map((member, index) => (member.isRunning ? modeOf(this.endpoints[index]!) : 'stopped')),
        );
        return modes.every((mode) => mode !== undefined);
      },
      'ZooKeeper is ready',
      40_000,
    );
  }

  /** The index of the member that leads the ensemble. */
  async leader(): Promise<number> {
    return until(async () => {
      const modes = await Promise.all(this.endpoints.map(modeOf));
      const index = modes.indexOf('leader');
      return index === -1 ? undefined : index;
    }, 'a leader of the ensemble');
  }

  /** For looking, and for an operator's deeds. */
  call<Values extends unknown[]>(send: (client: Client, done: Done<Values>) => number): Promise<Values> {
    return this.#session.call(AbortSignal.timeout(10_000), send);
  }

  async children(path: string): Promise<string[]> {
    try {
      const [names] = await this.call<[string[]]>((client, done) => client.a_get_children(path, false, done));
      return names;
    } catch (error) {
      if (isAnswer(error, CODES.noNode)) return [];
      throw error;
    }
  }

  /** The paths of an election's znodes, in their order. */
  async line(name: string): Promise<string[]> {
    const number = (child: string) => child.slice(-10);
    const inOrder = (await this.children(`/${name}`)).sort((a, b) => (number(a) < number(b) ? -1 : 1));
    return inOrder.map((child) => `/${name}/${child}`);
  }

  async dataAt(path: string): Promise<string> {
    const [, data] = await this.call<[Stat, Buffer | null]>((client, done) => client.a_get(path, false, done));
    return String(data ?? '');
  }

  async delete(path: string): Promise<void> {
    await this.call<[]>((client, done) => client.a_delete_(path, -1, done));
  }

  async create(path: string, data = ''): Promise<void> {
    await this.call<[string]>((client, done) => client.a_create(path, Buffer.from(data), 0, done));
  }

  /** Takes the znode of this candidate away, as an operator would. */
  async depose(handle: unknown, election: string): Promise<void> {
    const { seat } = handle as { seat: string };
    const parent = `/${election.replace(/^\//, '')}`;
    const name = (await this.children(parent)).find((child) => child.startsWith(seat));
    await this.delete(`${parent}/${name}`);
  }

  /** Until so many stand in the line, the leader included. */
  async inLine(name: string, count: number): Promise<void> {
    await until(async () => (await this.children(`/${name}`)).length === count, `${count} in the line of ${name}`);
  }

  /** Until so many sessions with the first member watch this znode. */
  async watched(path: string, count: number): Promise<void> {
    const watchers = async () => {
      // A line for each path, and below it one for each session, with a tab.
      const [, ofPath = ''] = `\n${await tell(this.endpoints[0]!, 'wchp')}`.split(`\n${path}\n`);
      return /^(\t.*\n)*/.exec(ofPath)![0].split('\n').length - 1;
    };
    await until(async () => (await watchers()) === count, `${count} watching ${path}`);
  }

  /** The session that this znode lives with, and the transaction that created it. */
  async stat(path: string): Promise<Stat> {
    const [stat] = await this.call<[Stat]>((client, done) => client.a_exists(path, false, done));
    return stat;
  }

  /** Packets that the first member has got from this session, on its connection of now. */
  async packetsFrom(session: string): Promise<number> {
    const line = new RegExp(`recved=(\\d+),.*sid=0x0*${session},`).exec(await tell(this.endpoints[0]!, 'cons'));
    return Number(line![1]);
  }

  /** Until this znode is not there (any more). */
  async vanished(path: string): Promise<void> {
    const isThere = () => this.stat(path).catch((error) => !isAnswer(error, CODES.noNode));
    await until(async () => (await isThere()) === false, `no ${path}`);
  }

  async #setUpUser(): Promise<void> {
    await this.create('/jobs');
    const acl = [{ perms: 31, scheme: 'auth', auth: '' }];
    await this.call<[]>((client, done) => client.a_set_acl('/jobs', -1, acl, done));
  }

  /** Requests and pings that the first member has received, this question included. */
  async received(): Promise<number> {
    return Number(/^Received: (\d+)/m.exec(await tell(this.endpoints[0]!, 'srvr'))![1]);
  }

  /** Everything as at the beginning: nobody frozen, all running, and we have a session that lives. */
  async heal(): Promise<void> {
    for (const member of this.members) {
      if (member.isRunning) member.thaw();
      else member.start();
    }
    await this.ready();
    this.#session.cut();
    this.#session = this.#newSession();
  }

  async stop(): Promise<void> {
    this.#session.cut();
    await Promise.all(this.members.map((member) => member.kill()));
    stopped(this);
  }
}

/** `leader`, `follower` or `standalone`; undefined: it does not serve. */
const modeOf = async (endpoint: string): Promise<string | undefined> =>
  /^Mode: (\w+)/m.exec(await tell(endpoint, 'srvr'))?.[1];

/** What a server answers to one of ZooKeeper's words of four letters; nothing, if it does not answer. */
function tell(endpoint: string, word: string): Promise<string> {
  return new Promise((resolve) => {
    const [host, port] = endpoint.split(':');
    const socket = connect({ host: host!, port: Number(port), timeout: 1000 });
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk;
    });
    socket.on('connect', () => socket.write(word));
    socket.on('timeout', () => socket.destroy());
    socket.on('error', () => {});
    socket.on('close', () => resolve(text));
  });
}
