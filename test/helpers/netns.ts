import { execFileSync, spawnSync } from 'node:child_process';
import { alive } from './procs.ts';
import type { Host } from './servers.ts';

const PREFIX = 'elect';

/** Seen from a host: what it sends, what it is sent. */
export interface Ways {
  out: boolean;
  in: boolean;
}

const BOTH: Ways = { out: true, in: true };

/** Of the packets of a bad link, in each direction. */
export const LOSS_PERCENT = 30;

/**
 * Hosts on a switch, each a network namespace of its own, with links that can be cut or lose packets: they are dropped silently, no reset, no
 * ICMP, and ARP is still answered. Nothing is added to the machine's own network.
 */
export class Network {
  /** With `attach` another process can get hold of it. */
  readonly id: string;
  readonly #switch: string;
  readonly #hosts: number;

  private constructor(id: string, hosts = 0) {
    this.id = id;
    this.#switch = `${id}-sw`;
    this.#hosts = hosts;
  }

  /** Hosts 1 to n. They go with this process. */
  static create(hosts: number): Network {
    removeAbandoned();
    const network = new Network(`${PREFIX}${process.pid}-${++count}`, hosts);
    networks.add(network);
    network.#build();
    return network;
  }

  /** That of another process. */
  static attach(id: string): Network {
    return new Network(id);
  }

  #build(): void {
    ip('netns', 'add', this.#switch);
    this.#onSwitch('ip', 'link', 'set', 'lo', 'up');
    this.#onSwitch('ip', 'link', 'add', 'br0', 'type', 'bridge');
    this.#onSwitch('ip', 'link', 'set', 'br0', 'up');
    for (let host = 1; host <= this.#hosts; host++) this.#plugIn(host);
    this.#onSwitch('nft', RULES);
  }

  address(host: number): string {
    return `10.77.0.${host}`;
  }

  /** To be put before a command that is to run there. */
  prefix(host: number): string[] {
    return ['ip', 'netns', 'exec', this.#namespace(host)];
  }

  host(host: number): Host {
    return { address: this.address(host), prefix: this.prefix(host) };
  }

  /** Between this host and everybody else nothing arrives any more, or only one way. */
  cut(host: number, ways: Ways = BOTH): void {
    if (ways.out) this.#onSwitch('nft', `add ${this.#element('cut_out', host)}`);
    if (ways.in) this.#onSwitch('nft', `add ${this.#element('cut_in', host)}`);
  }

  /** Of what this host sends and is sent, every third packet or so is lost. */
  spoil(host: number): void {
    this.#onSwitch('nft', `add ${this.#element('lossy', host)}`);
  }

  /** Everybody's links are good again, or this host's. */
  heal(host?: number): void {
    const forget = (set: string) => `add ${this.#element(set, host!)}; delete ${this.#element(set, host!)}`; // of one that is not there nft complains
    const healing = SETS.map((set) => (host === undefined ? `flush set bridge links ${set}` : forget(set)));
    this.#onSwitch('nft', healing.join('; '));
  }

  remove(): void {
    networks.delete(this);
    for (let host = 1; host <= this.#hosts; host++) spawnSync('ip', ['netns', 'del', this.#namespace(host)]);
    spawnSync('ip', ['netns', 'del', this.#switch]);
  }

  #plugIn(host: number): void {
    const there = this.#namespace(host);
    ip('netns', 'add', there);
    ip('link', 'add', this.#link(host), 'netns', this.#switch, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', there);
    this.#onSwitch('ip', 'link', 'set', this.#link(host), 'master', 'br0', 'up');
    for (const command of ['link set lo up', `addr add ${this.address(host)}/24 dev eth0`, 'link set eth0 up'])
      ip('-n', there, ...command.split(' '));
  }

  #namespace(host: number): string {
    return `${this.id}-h${host}`;
  }

  /** At most 15 characters (IFNAMSIZ). */
  #link(host: number): string {
    return `v${host}`;
  }

  #element(set: string, host: number): string {
    return `element bridge links ${set} { ${this.#link(host)} }`;
  }

  #onSwitch(file: string, ...args: string[]): void {
    ip('netns', 'exec', this.#switch, file, ...args);
  }
}

const SETS = ['cut_out', 'cut_in', 'lossy'];
const LOSE = `numgen random mod 100 < ${LOSS_PERCENT} drop`;

const RULES = `table bridge links {
${SETS.map((set) => `  set ${set} { type ifname; }`).join('\n')}
  chain forward {
    type filter hook forward priority 0; policy accept;
    ether type arp accept
    iifname @cut_out drop
    oifname @cut_in drop
    iifname @lossy ${LOSE}
    oifname @lossy ${LOSE}
  }
}`;

const ip = (...args: string[]) => execFileSync('ip', args, { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' });

/** What a test process left that was itself killed. */
function removeAbandoned(): void {
  for (const line of ip('netns', 'list').split('\n')) {
    const name = line.split(' ')[0]!;
    const owner = new RegExp(`^${PREFIX}(\\d+)-`).exec(name)?.[1];
    if (owner && !alive(Number(owner))) spawnSync('ip', ['netns', 'del', name]);
  }
}

let count = 0;
const networks = new Set<Network>();
process.on('exit', () => {
  for (const network of networks) network.remove();
});
