import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Directions {
  toServer?: boolean;
  fromServer?: boolean;
}

/** How long what is sent is under way: drawn anew for each piece between these two, in ms. */
export interface Delay {
  fromMs: number;
  toMs: number;
}

/**
 * One way of one connection. What is held is kept and delivered later, as a network does that lost packets for a while. What is delayed keeps its order
 * here, as in TCP, while other connections overtake it.
 */
class Pipe {
  readonly #to: Socket;
  #held: Buffer[] | undefined;
  #isEnded = false;
  #underWay = 0;
  #last = Promise.resolve();
  #lastDueAt = 0;

  constructor(from: Socket, to: Socket, isHeld: boolean, delay: () => number) {
    this.#to = to;
    if (isHeld) this.hold();
    from.on('data', (chunk) =>
      this.#after(delay(), () => {
        if (this.#held) this.#held.push(chunk);
        else to.write(chunk);
      }),
    );
    from.on('close', () =>
      this.#after(delay(), () => {
        this.#isEnded = true;
        if (!this.#held) to.end();
      }),
    );
  }

  #after(delayMs: number, act: () => void): void {
    if (delayMs === 0 && this.#underWay === 0) {
      act();
      return;
    }
    this.#underWay++;
    this.#lastDueAt = Math.max(this.#lastDueAt, performance.now() + delayMs);
    const dueAt = this.#lastDueAt;
    this.#last = this.#last
      .then(() => sleep(Math.max(0, dueAt - performance.now()), undefined, { ref: false }))
      .then(() => {
        this.#underWay--;
        act();
      });
  }

  hold(): void {
    this.#held ??= [];
  }

  deliver(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const chunk of held) this.#to.write(chunk);
    if (this.#isEnded) this.#to.end();
  }
}

/** A network link to a server, in the test process, which can fail without a word. */
export class Link {
  readonly #server: Server;
  readonly #target: { host: string; port: number };
  readonly #connections = new Set<{ sockets: Socket[]; toServer: Pipe; fromServer: Pipe }>();
  #holds: Required<Directions> = { toServer: false, fromServer: false };
  readonly #onSent = new Set<(chunk: Buffer) => void>();

  #delays: { toServer: Delay; fromServer: Delay };

  private constructor(target: string, delayMs: number) {
    const delay = { fromMs: delayMs, toMs: delayMs };
    this.#delays = { toServer: delay, fromServer: delay };
    const [, host, port] = /^(.*):(\d+)$/.exec(target)!;
    this.#target = { host: host!, port: Number(port) };
    this.#server = createServer((client) => this.#accept(client));
  }

  /** `delayMs`: how long everything is under way, in each direction. `address`: where it listens. */
  static async start(target: string, delayMs = 0, address = '127.0.0.1'): Promise<Link> {
    const link = new Link(target, delayMs);
    await new Promise<void>((resolve) => link.#server.listen(0, address, resolve));
    links.add(link);
    return link;
  }

  /** `host:port` on which it listens. */
  get endpoint(): string {
    const { address, port } = this.#server.address() as AddressInfo;
    return `${address}:${port}`;
  }

  /** From now on. `fromServer`: where the way back differs. */
  delay(toServer: Delay, fromServer = toServer): void {
    this.#delays = { toServer, fromServer };
  }

  /** Forwards nothing more in these directions. Connections stay open, new ones are accepted and get no answer; nobody is told. */
  hold(directions: Directions = { toServer: true, fromServer: true }): void {
    this.#holds = { ...this.#holds, ...directions };
    for (const { toServer, fromServer } of this.#connections) {
      if (this.#holds.toServer) toServer.hold();
      if (this.#holds.fromServer) fromServer.hold();
    }
  }

  /** Forwards again, first of all what was held, however old it is. */
  heal(): void {
    this.#holds = { toServer: false, fromServer: false };
    for (const { toServer, fromServer } of this.#connections) {
      toServer.deliver();
      fromServer.deliver();
    }
  }

  /** Resolves when a client sends this: it goes on to the server, and what comes back can still be held. */
  sent(text: string): Promise<void> {
    return new Promise((resolve) => {
      const look = (chunk: Buffer) => {
        if (!chunk.includes(text)) return;
        this.#onSent.delete(look);
        resolve();
      };
      this.#onSent.add(look);
    });
  }

  /** Every connection is reset (RST). */
  reset(): void {
    for (const { sockets } of this.#connections) for (const socket of sockets) socket.resetAndDestroy();
  }

  async stop(): Promise<void> {
    links.delete(this);
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const { sockets } of this.#connections) for (const socket of sockets) socket.destroy();
    await closed;
  }

  #accept(client: Socket): void {
    const server = connect(this.#target);
    const draw = ({ fromMs, toMs }: Delay) => fromMs + Math.random() * (toMs - fromMs);
    for (const socket of [client, server]) socket.on('error', () => {}); // told by `close`
    client.on('data', (chunk) => {
      for (const look of this.#onSent) look(chunk);
    });
    const connection = {
      sockets: [client, server],
      toServer: new Pipe(client, server, this.#holds.toServer, () => draw(this.#delays.toServer)),
      fromServer: new Pipe(server, client, this.#holds.fromServer, () => draw(this.#delays.fromServer)),
    };
    this.#connections.add(connection);
    let open = 2;
    for (const socket of connection.sockets)
      socket.on('close', () => --open === 0 && this.#connections.delete(connection));
  }
}

const links = new Set<Link>();

/** For afterEach. */
export async function stopLinks(): Promise<void> {
  await Promise.all([...links].map((link) => link.stop()));
}
