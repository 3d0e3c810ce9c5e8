import type { Network, Ways } from '../helpers/netns.ts';
import { type Delay, Link } from '../helpers/proxy.ts';
import type { Host } from '../helpers/servers.ts';

/** Where everybody is. With a network each candidate and each server has a namespace of its own, and we have one, too; without, all is on loopback. */
export class World {
  readonly #network: Network | undefined;
  readonly candidates: number;

  constructor(network: Network | undefined, candidates: number) {
    this.#network = network;
    this.candidates = candidates;
  }

  /** Candidates 1 to n, then ourselves, then servers. */
  static hostsNeeded(candidates: number, servers: number): number {
    return candidates + 1 + servers;
  }

  static ourHost(candidates: number): number {
    return candidates + 1;
  }

  get network(): Network | undefined {
    return this.#network;
  }

  /** For so many servers. */
  serverHosts(count: number): Host[] | undefined {
    const network = this.#network;
    return network && Array.from({ length: count }, (_, index) => network.host(this.#serverHost(index)));
  }

  #serverHost(index: number): number {
    return World.ourHost(this.candidates) + 1 + index;
  }

  prefix(candidate: number): string[] {
    return this.#network?.prefix(candidate) ?? [];
  }

  /** Nothing reaches or leaves the host of this server; of the others it is not cut off by what befalls the candidates. */
  cutServer(index: number): void {
    this.#network!.cut(this.#serverHost(index));
  }

  healServer(index: number): void {
    this.#network!.heal(this.#serverHost(index));
  }

  heal(): void {
    this.#network?.heal();
  }
}

/** What lies between a candidate and its store: the packets of its host, and, where there is one, a proxy for each server, which runs in this process. */
export class Wire {
  readonly endpoints: string[];
  readonly #world: World;
  readonly #host: number;
  readonly #links: Link[];

  private constructor(world: World, host: number, endpoints: string[], links: Link[]) {
    this.#world = world;
    this.#host = host;
    this.endpoints = endpoints;
    this.#links = links;
  }

  static async open(world: World, host: number, endpoints: string[], isProxied: boolean): Promise<Wire> {
    if (!isProxied) return new Wire(world, host, endpoints, []);
    const here = world.network?.address(World.ourHost(world.candidates));
    const links = await Promise.all(endpoints.map((endpoint) => Link.start(endpoint, 0, here)));
    return new Wire(
      world,
      host,
      links.map((link) => link.endpoint),
      links,
    );
  }

  get isProxied(): boolean {
    return this.#links.length > 0;
  }

  get canBeCut(): boolean {
    return this.#world.network !== undefined || this.isProxied;
  }

  /** Packets where there are any, else what the proxy forwards. */
  cut(ways: Ways): void {
    if (this.#world.network) this.#world.network.cut(this.#host, ways);
    else for (const link of this.#links) link.hold({ toServer: ways.out, fromServer: ways.in });
  }

  lose(): void {
    this.#world.network!.spoil(this.#host);
  }

  /** `back`: where the way back differs. */
  delay(there: Delay, back = there): void {
    for (const link of this.#links) link.delay(there, back);
  }

  /** Kept back, to be delivered later. */
  hold(ways: Ways): void {
    for (const link of this.#links) link.hold({ toServer: ways.out, fromServer: ways.in });
  }

  reset(): void {
    for (const link of this.#links) link.reset();
  }

  heal(): void {
    this.#world.network?.heal(this.#host);
    for (const link of this.#links) {
      link.delay({ fromMs: 0, toMs: 0 });
      link.heal();
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#links.map((link) => link.stop()));
  }
}
