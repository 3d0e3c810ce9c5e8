import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { newFolder } from './folders.ts';
import { until } from './procs.ts';
import { Server, started, stopped } from './servers.ts';

/** Debian's, of which several versions can be there; they are not in PATH. */
const VERSIONS = '/usr/lib/postgresql';

/** The folder with its programs. Undefined: it is not installed. */
export const POSTGRESQL: string | undefined = (existsSync(VERSIONS) ? readdirSync(VERSIONS) : [])
  .map((version) => join(VERSIONS, version, 'bin'))
  .find((bin) => existsSync(join(bin, 'initdb')));

/** It refuses to run as root. What it is killed with is set last: a change of user takes it away (prctl(2)). */
const UNPRIVILEGED =
  process.getuid!() === 0
    ? ['setpriv', '--reuid', 'nobody', '--regid', 'nogroup', '--clear-groups', '--pdeathsig', 'KILL', '--']
    : [];

/** A real server, which listens on a socket in its own folder only. */
export class PostgreSql {
  readonly folder: string;
  readonly #server: Server;

  private constructor(folder: string) {
    const data = join(folder, 'data');
    const command = [join(POSTGRESQL!, 'postgres'), '-D', data, '-F', '-k', folder, '-c', 'listen_addresses='];
    this.folder = folder;
    this.#server = new Server('postgresql', [...UNPRIVILEGED, ...command], join(folder, 'log'));
  }

  static async start(): Promise<PostgreSql> {
    const folder = newFolder('postgresql');
    chmodSync(folder, 0o777);
    const [file, ...args] = [
      ...UNPRIVILEGED,
      join(POSTGRESQL!, 'initdb'),
      '-D',
      join(folder, 'data'),
      '-A',
      'trust',
      '-U',
      'app',
    ];
    execFileSync(file!, [...args, '--no-sync'], { stdio: 'ignore', cwd: folder });
    const server = new PostgreSql(folder);
    started(server);
    await until(
      () => spawnSync(join(POSTGRESQL!, 'pg_isready'), ['-q'], { env: server.env }).status === 0,
      'PostgreSQL is ready',
    );
    return server;
  }

  /** For psql(1) and its like. */
  get env(): NodeJS.ProcessEnv {
    return { PATH: `${POSTGRESQL}:${process.env.PATH}`, PGHOST: this.folder, PGUSER: 'app', PGDATABASE: 'postgres' };
  }

  async stop(): Promise<void> {
    await this.#server.kill();
    stopped(this);
  }
}
