import { execFileSync, spawnSync } from 'node:child_process';
import { alive } from './procs.ts';

const PREFIX = 'elect';

/**
 * Hosts on a switch, each a network namespace of its own, with links that can be cut: packets are dropped silently, no reset, no ICMP, and
 * ARP is still answered. Nothing is added to the machine's own network.
 */
export class Network {
  readonly #id = `${PREFIX}${process.pid}`;
  readonly #switch = `${this.#id}-sw`;
  readonly #hosts: number;

  /** Hosts 1 to n. */
  constructor(hosts: number) {
    this.#hosts = hosts;
    removeAbandoned();
    networks.add(this);
    ip('netns', 'add', this.#switch);
    this.#onSwitch('ip', 'link', 'set', 'lo', 'up');
    this.#onSwitch('ip', 'link', 'add', 'br0', 'type', 'bridge');
    this.#onSwitch('ip', 'link', 'set', 'br0', 'up');
    for (let host = 1; host <= hosts; host++) this.#plugIn(host);
    this.#onSwitch('nft', RULES);
  }

  address(host: number): string {
    return `10.77.0.${host}`;
  }

  /** To be put before a command that is to run there. */
  prefix(host: number): string[] {
    return ['ip', 'netns', 'exec', this.#namespace(host)];
  }

  /** Between this host and everybody else nothing arrives any more. */
  cut(host: number): void {
    this.#onSwitch('nft', `add element bridge links cut { ${this.#link(host)} }`);
  }

  heal(): void {
    this.#onSwitch('nft', 'flush set bridge links cut');
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
    return `${this.#id}-h${host}`;
  }

  /** At most 15 characters (IFNAMSIZ). */
  #link(host: number): string {
    return `v${host}`;
  }

  #onSwitch(file: string, ...args: string[]): void {
    ip('netns', 'exec', this.#switch, file, ...args);
  }
}

const RULES = `table bridge links {
  set cut { type ifname; }
  chain forward {
    type filter hook forward priority 0; policy accept;
    ether type arp accept
    iifname @cut drop
    oifname @cut drop
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

const networks = new Set<Network>();
process.on('exit', () => {
  for (const network of networks) network.remove();
});
