import { readFileSync } from 'node:fs';
import { createServer, request, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Kubernetes } from './kubernetes.ts';

/** An HTTPS front of an API server, as a load balancer is one, that loses answers of requests which were carried out. */
export class Front {
  /** How many answers to requests with this method are to be lost yet. */
  readonly toLose: Record<string, number> = {};
  readonly lost: string[] = [];
  readonly #server: Server;

  private constructor(kubernetes: Kubernetes) {
    const { ca, server } = kubernetes.certificates;
    const tls = { cert: readFileSync(server.cert), key: readFileSync(server.key) };
    this.#server = createServer(tls, (asked, answer) => {
      const { method, headers, url } = asked;
      const to = { method, headers, ca: readFileSync(ca) };
      const forwarded = request(`https://${kubernetes.endpoints[0]}${url}`, to, (response) => {
        if ((this.toLose[method!] ?? 0) > 0) {
          this.toLose[method!]! -= 1;
          this.lost.push(`${method} ${response.statusCode}`);
          response.resume();
          return;
        }
        answer.writeHead(response.statusCode!, response.headers);
        answer.flushHeaders();
        response.pipe(answer);
      });
      forwarded.on('error', () => answer.destroy());
      answer.on('close', () => forwarded.destroy());
      asked.pipe(forwarded);
    });
  }

  static async start(kubernetes: Kubernetes): Promise<Front> {
    const front = new Front(kubernetes);
    await new Promise<void>((resolve) => front.#server.listen(0, '127.0.0.1', resolve));
    return front;
  }

  get endpoint(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  stop(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
