import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';

const TOKEN = 'x-amz-meta-fencing-token';

interface Stored {
  body: string;
  etag: string;
  token: string | undefined;
}

/** What S3 does with HEAD and with PUT, If-Match and If-None-Match (API reference, PutObject). */
export class ObjectStore {
  readonly objects = new Map<string, Stored>();
  /** Called between the request of a write and its check. */
  beforeWrite: () => void = () => {};
  readonly #server: Server;

  private constructor() {
    this.#server = createServer(async (request, response) => {
      const body = await text(request);
      const found = this.objects.get(request.url!);
      if (request.method === 'PUT') {
        this.beforeWrite();
        response.statusCode = this.#put(request, body);
      } else if (found) {
        response.setHeader('ETag', found.etag);
        if (found.token !== undefined) response.setHeader(TOKEN, found.token);
      } else response.statusCode = 404;
      response.end();
    });
  }

  static async start(): Promise<ObjectStore> {
    const store = new ObjectStore();
    await new Promise<void>((resolve) => store.#server.listen(0, '127.0.0.1', resolve));
    return store;
  }

  url = (path: string): string => `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}${path}`;

  write(path: string, body: string, token: string | undefined): void {
    this.objects.set(path, { body, etag: `"${createHash('md5').update(body).digest('hex')}"`, token });
  }

  stop(): void {
    this.#server.close();
  }

  #put({ url, headers }: IncomingMessage, body: string): number {
    const found = this.objects.get(url!);
    if (headers['if-match'] !== undefined && headers['if-match'] !== found?.etag) return found ? 412 : 404;
    if (headers['if-none-match'] === '*' && found) return 412;
    this.write(url!, body, headers[TOKEN] as string | undefined);
    return 200;
  }
}
