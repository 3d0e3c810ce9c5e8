import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Agent, RequestOptions } from 'node:https';
import { dirname, resolve } from 'node:path';
import { KubeConfig } from '@kubernetes/client-node/dist/config.js';
import { ExecAuth } from '@kubernetes/client-node/dist/exec_auth.js';
import yaml from 'js-yaml';
import { isNodesOwn } from '../../awaited.ts';
import { formatDuration } from '../../durations.ts';
import { usage } from '../../outcome.ts';
import { printable } from '../../text.ts';
import type { KubernetesSpec } from './spec.ts';

/** How a request reaches the API server, and by what it knows us. */
export interface Credentials {
  agent: Agent;
  headers: Record<string, string>;
  /** `user:password`, for basic authentication. */
  auth: string | undefined;
}

/**
 * A cluster as the kubeconfig or the pod describes it. @kubernetes/client-node reads it and knows how to come by credentials: tokens, certificates,
 * exec plugins, proxies. Files are read again as it sees fit, so credentials may rotate.
 */
export class Cluster {
  readonly #spec: KubernetesSpec;
  readonly #plugins = new Set<ChildProcess>();
  #hasServed = false;
  #config: KubeConfig;
  #pending: Promise<Credentials> | undefined;
  #agent: { key: string; agent: Agent } | undefined;

  /** Throws a usage Failure when the kubeconfig cannot be used. */
  constructor(spec: KubernetesSpec) {
    this.#spec = spec;
    this.#config = load(spec, this.#plugins);
  }

  /** As `https://host:port`, with a path where the kubeconfig has one. */
  get server(): string {
    return this.#config.getCurrentCluster()!.server;
  }

  /** The context in use; it stays the same when the kubeconfig's current one is switched. */
  get context(): string {
    return this.#config.getCurrentContext();
  }

  /** Credentials have been had. */
  get hasServed(): boolean {
    return this.#hasServed;
  }

  get namespace(): string | undefined {
    return this.#config.getContextObject(this.context)?.namespace?.trim();
  }

  /** In the clean-up: the context in which the lease was acquired. */
  use(context: string): void {
    this.#config.setCurrentContext(context);
  }

  /** A plugin that is slow is not started again beside itself. */
  credentials(): Promise<Credentials> {
    this.#pending ??= this.#read().finally(() => {
      this.#pending = undefined;
    });
    return this.#pending;
  }

  /** Forgets what was cached: the API server did not know us by it. */
  refresh(): void {
    const { context } = this;
    this.#config = load(this.#spec, this.#plugins, context);
  }

  /** A plugin that hangs is not left behind. */
  close(): void {
    for (const plugin of this.#plugins) plugin.kill();
    this.#agent?.agent.destroy();
  }

  async #read(): Promise<Credentials> {
    const options: RequestOptions = { headers: {} };
    await this.#config.applyToHTTPSOptions(options as Parameters<KubeConfig['applyToHTTPSOptions']>[0]);
    const { ca, cert, key, servername, rejectUnauthorized } = options;
    const material = [ca, cert, key, servername, rejectUnauthorized, this.server].map(String).join('\n');
    const digest = createHash('sha256').update(material).digest('hex');
    if (this.#agent?.key !== digest) {
      const agent = options.agent as Agent & { keepAlive: boolean };
      agent.keepAlive = true;
      if (this.#agent) retire(this.#agent.agent);
      this.#agent = { key: digest, agent };
    }
    this.#hasServed = true;
    return {
      agent: this.#agent.agent,
      headers: options.headers as Record<string, string>,
      auth: options.auth ?? undefined,
    };
  }
}

/** Requests under way end as they would; nothing new goes over its connections. */
function retire(agent: Agent): void {
  (agent as Agent & { keepAlive: boolean }).keepAlive = false;
  for (const socket of Object.values(agent.freeSockets).flat()) socket?.destroy();
}

function load({ kubeconfig }: KubernetesSpec, plugins: Set<ChildProcess>, context?: string): KubeConfig {
  const config = new KubeConfig();
  if (kubeconfig.length === 0) config.loadFromCluster();
  else config.loadFromOptions(merged(kubeconfig));
  for (const authenticator of (config as unknown as { authenticators: unknown[] }).authenticators) {
    if (authenticator instanceof ExecAuth) letNodeWait(authenticator, plugins);
  }
  if (context !== undefined) config.setCurrentContext(context);
  const where = `--backend kubernetes: ${printable(kubeconfig.join(', ')) || 'the service account'}`;
  if (!config.getCurrentContext())
    throw usage(`${where}: no current-context; choose one with kubectl config use-context`);
  if (!config.getContextObject(config.getCurrentContext()))
    throw usage(`${where}: there is no context ${printable(config.getCurrentContext())}`);
  if (!config.getCurrentCluster())
    throw usage(`${where}: the context ${printable(config.getCurrentContext())} has no cluster`);
  return config;
}

/** As kubectl merges: of two with the same name the first one counts. */
function merged(files: string[]) {
  const all = files.map((file) => {
    const config = new KubeConfig();
    try {
      config.loadFromFile(file);
      readTokenFiles(config, file);
    } catch (error) {
      const problem = (error as NodeJS.ErrnoException).code ?? (error as Error).message.split('\n')[0]!;
      throw usage(`--backend kubernetes: ${printable(file)} cannot be used as kubeconfig: ${printable(problem)}`);
    }
    return config;
  });
  return {
    clusters: firstOfEach(all.flatMap(({ clusters }) => clusters)),
    users: firstOfEach(all.flatMap(({ users }) => users)),
    contexts: firstOfEach(all.flatMap(({ contexts }) => contexts)),
    currentContext: all.map((config) => config.getCurrentContext()).find(Boolean),
  };
}

/** client-node passes over a user's `tokenFile`, but knows how to read one again and again. */
function readTokenFiles(config: KubeConfig, file: string): void {
  const { users } = yaml.load(readFileSync(file, 'utf8')) as { users?: { user?: { tokenFile?: string } }[] };
  config.users = config.users.map((user, index) => {
    const tokenFile = users?.[index]?.user?.tokenFile;
    if (!tokenFile || user.token) return user;
    return { ...user, authProvider: { name: 'tokenFile', config: { tokenFile: resolve(dirname(file), tokenFile) } } };
  });
}

const firstOfEach = <T extends { name: string }>(list: T[]): T[] =>
  list.filter((one, index) => list.findIndex(({ name }) => name === one.name) === index);

/** As pid 1 or subreaper we reap the dead, and must leave those to Node that Node has started. */
function letNodeWait(authenticator: ExecAuth, plugins: Set<ChildProcess>): void {
  const startPlugin: typeof spawn = ((...args: Parameters<typeof spawn>) => {
    const plugin = spawn(...args);
    // Then it has no pipes, and tells its error before anybody can listen (child_process.js, EMFILE).
    plugin.on('error', () => {});
    if (!plugin.stdout) throw new Error(`spawn ${args[0]}: no descriptor is left`);
    isNodesOwn(plugin);
    plugins.add(plugin);
    const patience = setTimeout(() => giveUp(plugin), PATIENCE_MS).unref();
    plugin.once('close', () => {
      clearTimeout(patience);
      plugins.delete(plugin);
    });
    return plugin;
  }) as typeof spawn;
  (authenticator as unknown as { execFn: typeof spawn }).execFn = startPlugin;
}

/** A leader has lost its lease by then, with any common ttl; client-go waits for ever. */
const PATIENCE_MS = 60_000;

/** It is over when its pipes are closed, too, and what it has started may hold them open. */
function giveUp(plugin: ChildProcess): void {
  plugin.emit('error', new Error(`the exec plugin has not answered within ${formatDuration(PATIENCE_MS)}`));
  plugin.kill('SIGKILL');
  plugin.stdout?.destroy();
  plugin.stderr?.destroy();
}
