// `npm test`: installs what is missing, gets real servers and tools by apt on Debian, builds, and runs every test.
// Where a server or a tool cannot be had, its tests are reported as skipped, by name and cause; REQUIRE_SERVERS=1 makes that a failure.
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { join } from 'node:path';
import { prepare } from './prepare.mjs';

/** Debian package → what it brings: a program in PATH, or a file. */
const NEEDED = {
  'etcd-server': 'etcd',
  'etcd-client': 'etcdctl',
  'redis-server': 'redis-server',
  'libzookeeper-java': '/usr/share/java/zookeeper.jar',
  'libcurator-recipes-java': '/usr/share/java/curator-recipes.jar',
  'default-jre-headless': 'java',
  'default-jdk-headless': 'javac',
  'python3-kazoo': '/usr/lib/python3/dist-packages/kazoo/__init__.py',
  python3: 'python3',
  'util-linux': 'flock',
  tmux: 'tmux',
  sqlite3: 'sqlite3',
  postgresql: 'pg_createcluster',
  curl: 'curl',
  'bash-completion': '/usr/share/bash-completion/bash_completion',
  busybox: 'busybox',
  zsh: 'zsh',
  fish: 'fish',
  jq: 'jq',
  less: 'less',
  openssl: 'openssl',
  prometheus: 'promtool',
  chromium: 'chromium',
  iproute2: 'ip',
  nftables: 'nft',
  libfaketime: '/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1',
  'man-db': 'man',
  systemd: '/lib/systemd/systemd',
};

const path = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'];
process.env.PATH = [...new Set(path)].join(':');

function isThere(thing) {
  if (thing.startsWith('/')) return existsSync(thing);
  return path.some((folder) => {
    try {
      accessSync(join(folder, thing), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function getServers() {
  const missing = Object.keys(NEEDED).filter((name) => !isThere(NEEDED[name]));
  if (missing.length === 0 || !isThere('apt-get') || process.getuid() !== 0) return;
  console.error(`getting ${missing.join(', ')} by apt …`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const apt = (...args) =>
    spawnSync('apt-get', ['-o', 'DPkg::Lock::Timeout=300', '-qq', ...args], { env, stdio: ['ignore', 'ignore', 2] });
  apt('update');
  // Nothing of it is started: tests run servers of their own.
  if (apt('install', '-y', '--no-install-recommends', ...missing).status !== 0)
    console.error('apt could not install everything');
}

/** All of the tests, or those that need it by name. Without it they are skipped. */
function getKubeApiserver() {
  const files = process.argv.slice(2).filter((arg) => !arg.startsWith('-'));
  if (files.length > 0 && !files.some((file) => /kubernetes|contract|containers-guide|doctor/.test(file))) return;
  spawnSync('scripts/kube-apiserver.sh', ['build'], { stdio: ['ignore', 'ignore', 2] });
}

prepare();
getServers();
getKubeApiserver();
const { status } = spawnSync(process.execPath, ['node_modules/vitest/vitest.mjs', 'run', ...process.argv.slice(2)], {
  stdio: 'inherit',
});
process.exit(status ?? 1);
