import { execFileSync } from 'node:child_process';
import { readdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Etcd } from '../helpers/etcd.ts';
import { newFolder } from '../helpers/folders.ts';
import { Kubernetes } from '../helpers/kubernetes.ts';
import { Redis } from '../helpers/redis.ts';
import type { Host, Server } from '../helpers/servers.ts';
import type { Need } from '../helpers/tools.ts';
import { ZooKeeper } from '../helpers/zookeeper.ts';

/** What elect-run is told of a store. */
export interface Access {
  backend: string;
  flags?: string[];
  env?: NodeJS.ProcessEnv;
}

/** A real store under attack. */
export interface Store {
  /** All its servers; the n-th runs on the n-th of the hosts that it was given, in turn. */
  servers: Server[];
  /** What a proxy can stand before. Empty: there is no server, or its servers tell clients each other's addresses. */
  endpoints: string[];
  access(endpoints: string[]): Access;
  /** Which of the servers leads the others. */
  leader?(): Promise<number>;
  /**
   * Of a store with a line: who stands first in it, and after how many trips of a message over a slow link whoever is told of its turn believes in it, but has not yet
   * had its confirming read answered.
   */
  line?: { first(name: string): Promise<string | undefined>; believesAfter: number };
  /** Takes the place of the first or the second in line away, as an operator would. Undefined: there is none. */
  depose?(name: string, place: 'first' | 'second'): Promise<Deposed | undefined>;
  /** Nothing more can be written, until it is freed. */
  disk?: { fill(): void; free(): void };
  /** Everything as at the beginning, and answering. */
  heal(): Promise<void>;
  /** What is still there of an election that nobody stands for any more, except for what is documented to stay. */
  leftovers(name: string): Promise<string[]>;
  /** Whom the store had as the leader when this token was given, read from the store's own history. */
  holderOf?(name: string, token: bigint): Promise<string | undefined>;
  stop(): Promise<void>;
}

export interface Deposed {
  id: string;
  /** Where tokens tell the time: that of whoever was confirmed as the leader before is smaller. */
  before?: bigint;
}

export interface StoreKind {
  name: string;
  needs: Need[];
  /** How many hosts its servers need. */
  hosts: number;
  ttlMs: number;
  /** No leader for longer than this, once all trouble is over, is a fault. */
  recoveryMs: number;
  start(hosts: Host[] | undefined): Promise<Store>;
}

const FILE: StoreKind = {
  name: 'file',
  needs: ['flock'],
  hosts: 0,
  ttlMs: 3000,
  recoveryMs: 5000,
  async start(hosts) {
    const folder = newFolder('chaos-file');
    // A disk of its own can be filled. It is seen by this process and what it starts only, and goes with them.
    if (hosts) execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'elect-run-chaos', folder]);
    const filler = join(folder, 'filler');
    const disk = {
      fill: () => writeFileSync(filler, Buffer.alloc(statfsSync(folder).bavail * statfsSync(folder).bsize)),
      free: () => rmSync(filler, { force: true }),
    };
    return {
      servers: [],
      endpoints: [],
      access: () => ({ backend: `file:${folder}` }),
      ...(hosts ? { disk } : {}),
      heal: async () => disk.free(),
      leftovers: async (name) =>
        readdirSync(folder).filter((file) => ![`${name}.lock`, `${name}.token`].includes(file) && file.includes(name)),
      stop: async () => {
        if (hosts) execFileSync('umount', [folder]);
        rmSync(folder, { recursive: true, force: true });
      },
    };
  },
};

const etcd = (name: string, members: 1 | 3): StoreKind => ({
  name,
  needs: ['etcd', 'etcdctl'],
  hosts: members,
  // A leader of an etcd before 3.5 that was cut off may still confirm for the length of its election timeout, which the margin, a tenth of this, has to cover.
  ttlMs: members === 1 ? 3000 : 6000,
  recoveryMs: members === 1 ? 10_000 : 16_000,
  async start(hosts) {
    const pace = { heartbeatMs: 50, electionMs: 500 };
    const store = await Etcd.start({ members, ...(hosts ? { hosts } : {}), ...(members === 1 ? {} : { pace }) });
    const { endpoints, members: servers } = store;
    return {
      servers,
      endpoints,
      access: (endpoints) => ({ backend: `etcd://${endpoints.join(',')}` }),
      ...(members === 1 ? {} : { leader: () => store.leader() }),
      // The watch tells it (1), and its next request is that read (2).
      line: { first: async (name) => (await store.line(name))[0]?.value, believesAfter: 1.5 },
      depose: async (name, place) => {
        const found = (await store.line(name))[place === 'first' ? 0 : 1];
        if (!found) return undefined;
        await store.etcdctl('lease', 'revoke', found.lease);
        const { header } = JSON.parse(await store.etcdctl('get', 'nothing', '-w', 'json')) as {
          header: { revision: number };
        };
        return { id: found.value, before: BigInt(header.revision) };
      },
      heal: () => store.heal(),
      leftovers: async (name) => {
        const keys = (await store.etcdctl('get', '--prefix', '', '--keys-only')).split('\n').filter(Boolean);
        const leases = (await store.etcdctl('lease', 'list')).split('\n').filter((line) => /^[0-9a-f]+$/.test(line));
        return [...keys.filter((key) => key.includes(name)), ...leases.map((lease) => `lease ${lease}`)];
      },
      holderOf: async (name, token) => {
        const answer = await store.etcdctl('get', '--prefix', `${name}/`, `--rev=${token}`, '-w', 'json');
        const { kvs = [] } = JSON.parse(answer) as { kvs?: { create_revision: number; value: string }[] };
        const [first] = kvs.sort((a, b) => a.create_revision - b.create_revision);
        return first && Buffer.from(first.value, 'base64').toString();
      },
      stop: () => store.stop(),
    };
  },
});

const redis = (name: string, sentinels: boolean): StoreKind => ({
  name,
  needs: ['redis'],
  hosts: sentinels ? 3 : 1,
  ttlMs: 3000,
  recoveryMs: sentinels ? 20_000 : 10_000,
  async start(hosts) {
    const store = await Redis.start({ sentinels, ...(hosts ? { hosts } : {}) });
    const master = () => (sentinels ? store.master() : Promise.resolve(0));
    const ask = async (...words: string[]) => (await store.cliOf(await master(), ...words)).trim();
    return {
      servers: [...store.members, ...store.sentinels],
      endpoints: sentinels ? [] : store.endpoints,
      access: (endpoints) =>
        sentinels
          ? { backend: store.url, flags: ['--redis-wait-replicas', '1'] }
          : { backend: store.urlThrough(endpoints[0]!) },
      ...(sentinels ? { leader: master } : {}),
      depose: async (name, place) => {
        if (place === 'second') return undefined; // there is no line
        const holder = await ask('get', name);
        if (holder) await ask('del', name);
        return holder ? { id: holder } : undefined;
      },
      heal: () => store.heal(),
      leftovers: async (name) =>
        (await ask('keys', '*')).split('\n').filter((key) => key.includes(name) && key !== `{${name}}:token`),
      stop: () => store.stop(),
    };
  },
});

const zookeeper = (name: string, members: 1 | 3): StoreKind => ({
  name,
  needs: ['zookeeper'],
  hosts: members,
  ttlMs: 3000,
  recoveryMs: members === 1 ? 12_000 : 20_000,
  async start(hosts) {
    const store = await ZooKeeper.start({ members, ...(hosts ? { hosts } : {}) });
    return {
      servers: store.members,
      endpoints: store.endpoints,
      access: (endpoints) => ({ backend: `zookeeper://${endpoints.join(',')}` }),
      ...(members === 1 ? {} : { leader: () => store.leader() }),
      // The watch tells it (1), it looks at the line (2, 3), and its next request is that read (4).
      line: {
        first: async (name) => {
          const [path] = await store.line(name);
          return path && store.dataAt(path);
        },
        believesAfter: 2.5,
      },
      depose: async (name, place) => {
        const path = (await store.line(name))[place === 'first' ? 0 : 1];
        if (path === undefined) return undefined;
        const id = await store.dataAt(path);
        await store.delete(path);
        return { id };
      },
      heal: () => store.heal(),
      leftovers: async (name) => {
        const parents = await store.children('/');
        const words = (await store.children('/elect-run-words')).filter((word) => word === name);
        return [...parents.filter((parent) => parent.includes(name)), ...words];
      },
      stop: () => store.stop(),
    };
  },
});

const KUBERNETES: StoreKind = {
  name: 'kubernetes',
  needs: ['kubeApiserver', 'etcd', 'openssl'],
  hosts: 1,
  ttlMs: 3000,
  recoveryMs: 15_000,
  async start(hosts) {
    const store = await Kubernetes.start(hosts?.[0]);
    const [address] = store.endpoints[0].split(':'); // also behind a proxy
    return {
      servers: [...store.members, ...store.etcd.members],
      endpoints: store.endpoints,
      access: ([endpoint]) => ({
        backend: store.url,
        env: { KUBECONFIG: store.kubeconfig('app', { endpoint: endpoint!, cluster: { 'tls-server-name': address } }) },
      }),
      depose: async (name, place) => {
        if (place === 'second') return undefined; // there is no line
        const holder = (await store.lease(name))?.spec.holderIdentity;
        if (holder) await store.delete(name);
        return holder ? { id: holder } : undefined;
      },
      heal: () => store.heal(),
      leftovers: async (name) => {
        const lease = await store.lease(name);
        const { holderIdentity, renewTime, leaseDurationSeconds = 0 } = lease?.spec ?? {};
        const endsAt = Date.parse(renewTime ?? '') + 1000 * leaseDurationSeconds;
        const { 'elect-run/word': word, 'elect-run/word-left': leftAt = '' } = lease?.metadata.annotations ?? {};
        const isForgotten = Date.parse(leftAt.split(' ')[0]!) < Date.now() - 60_000;
        // The object stays; a lease that has run out is nobody's.
        return [endsAt > Date.now() ? holderIdentity : undefined, isForgotten ? undefined : word].filter(
          (text) => text !== undefined && text !== '',
        ) as string[];
      },
      holderOf: async (name, token) => {
        const key = `/registry/leases/default/${name}`;
        const object = await store.etcd.etcdctl('get', key, `--rev=${token}`, '--print-value-only');
        return object.match(/host\d+-\d+-[0-9a-f]{8}/g)?.at(-1); // an annotation may have an earlier one, before spec.holderIdentity
      },
      stop: () => store.stop(),
    };
  },
};

export const STORES: StoreKind[] = [
  FILE,
  etcd('etcd', 1),
  etcd('etcd-cluster', 3),
  redis('redis', false),
  redis('redis-sentinel', true),
  zookeeper('zookeeper', 1),
  zookeeper('zookeeper-cluster', 3),
  KUBERNETES,
];
