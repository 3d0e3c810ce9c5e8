import { accessSync, constants, existsSync } from 'node:fs';
import { join } from 'node:path';
import { CGROUP2 } from './cgroups.ts';
import { KUBE_APISERVER } from './kube-apiserver.ts';
import { POSTGRESQL } from './postgresql.ts';

/** What a test may need from the machine. The value: undefined when it is there, else why not and how to get it. */
const NEEDS = {
  etcd: () => program('etcd', 'etcd-server'),
  etcdctl: () => program('etcdctl', 'etcd-client'),
  redis: () => program('redis-server', 'redis-server'),
  zookeeper: () => file('ZooKeeper', '/usr/share/java/zookeeper.jar', 'libzookeeper-java'),
  kubeApiserver: () =>
    KUBE_APISERVER === undefined ? 'there is no kube-apiserver: scripts/kube-apiserver.sh build' : undefined,
  curator: () =>
    file('Curator', '/usr/share/java/curator-recipes.jar', 'libcurator-recipes-java') ??
    program('javac', 'default-jdk-headless'),
  kazoo: () => file('Kazoo', '/usr/lib/python3/dist-packages/kazoo/__init__.py', 'python3-kazoo'),
  sqlite3: () => program('sqlite3', 'sqlite3'),
  postgresql: () => (POSTGRESQL === undefined ? 'PostgreSQL is not installed: apt-get install postgresql' : undefined),
  curl: () => program('curl', 'curl'),
  openssl: () => program('openssl', 'openssl'),
  flock: () => program('flock', 'util-linux'),
  tmux: () => program('tmux', 'tmux'),
  bash: () => program('bash', 'bash'),
  bashCompletion: () => file('bash-completion', '/usr/share/bash-completion/bash_completion', 'bash-completion'),
  dash: () => program('dash', 'dash'),
  busybox: () => program('busybox', 'busybox'),
  zsh: () => program('zsh', 'zsh'),
  fish: () => program('fish', 'fish'),
  jq: () => program('jq', 'jq'),
  python3: () => program('python3', 'python3'),
  perl: () => program('perl', 'perl'),
  promtool: () => program('promtool', 'prometheus'),
  chromium: () => file('Chromium', CHROMIUM, 'chromium'),
  less: () => program('less', 'less'),
  faketime: () => (LIBFAKETIME === undefined ? 'libfaketime is not installed: apt-get install libfaketime' : undefined),
  pidns: () => program('unshare', 'util-linux') ?? (process.getuid!() === 0 ? undefined : 'pid namespaces need root'),
  systemd: () =>
    file('systemd', '/lib/systemd/systemd', 'systemd') ??
    program('unshare', 'util-linux') ??
    (CGROUP2 === undefined ? 'no version 2 of the cgroups is mounted' : undefined) ??
    (canWrite(CGROUP2!) ? undefined : 'a systemd of our own needs root, and cgroups that can be written'),
  netns: () =>
    program('ip', 'iproute2') ??
    program('nft', 'nftables') ??
    (process.getuid!() === 0 ? undefined : 'network namespaces need root'),
} satisfies Record<string, () => string | undefined>;

export const CHROMIUM = '/usr/bin/chromium';

export type Need = keyof typeof NEEDS;

export const LIBFAKETIME = ['x86_64-linux-gnu', 'aarch64-linux-gnu', 'arm-linux-gnueabihf', '.']
  .map((architecture) => join('/usr/lib', architecture, 'faketime/libfaketime.so.1'))
  .find((path) => existsSync(path));

const program = (name: string, debianPackage: string) =>
  hasProgram(name) ? undefined : `${name} is not installed: apt-get install ${debianPackage}`;

const file = (name: string, path: string, debianPackage: string) =>
  existsSync(path) ? undefined : `${name} is not installed: apt-get install ${debianPackage}`;

function hasProgram(name: string): boolean {
  return [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'].some((folder) => {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function canWrite(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** Undefined when everything is there. */
export const whatIsMissing = (needs: Need[]): string | undefined =>
  needs
    .map((need) => NEEDS[need]())
    .filter(Boolean)
    .join('; ') || undefined;
