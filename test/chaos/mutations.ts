import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SUSPEND } from './site.ts';

/** elect-run with one rule of docs/safety.md less: whoever does not find it does not look. */
export interface Mutation {
  name: string;
  /** Where its absence shows soonest. */
  store: string;
  /** Only these faults, where few others could show it. */
  faults?: string[];
  /** Each of these texts is in its file exactly once. */
  patches: { file: string; from: string; to: string }[];
}

export const MUTATIONS: Mutation[] = [
  {
    name: 'send-time stamp',
    store: 'redis',
    faults: ['late answers and then none'],
    patches: [
      {
        file: 'src/renewal.ts',
        from: 'this.#confirm(sentAt, this.#place.ttlMs === undefined ? undefined : ttlMs);',
        to: 'this.#confirm(now(), this.#place.ttlMs === undefined ? undefined : ttlMs);',
      },
    ],
  },
  {
    name: 'guard',
    store: 'redis',
    faults: ['kill -9 of elect-run', 'SIGSTOP of elect-run'],
    patches: [
      { file: 'src/guard.sh', from: `signal_job() { [ -z "$job" ] ||`, to: `signal_job() { [ -z '' ] ||` },
      { file: 'src/guard.sh', from: `clean_up() { printf`, to: `clean_up() { [ -n '' ] && printf` },
      { file: 'src/guard.sh', from: `[ -n "$ready" ] && return`, to: 'return' },
      { file: 'src/guard.sh', from: `kill -s "$1" "\${stray%:*}"`, to: `kill -s 0 "\${stray%:*}"` },
    ],
  },
  {
    name: 'tree kill',
    store: 'redis',
    patches: [
      {
        file: 'src/tree.ts',
        from: 'return { tree: [...tree.values()], isSure, isWhole };',
        to: 'return { tree: [...tree.values()].filter(({ pid }) => pid === marks.root?.pid), isSure, isWhole };',
      },
      {
        file: 'src/job.ts',
        from: 'if (!this.#adoption?.hasOrphans()) return true;',
        to: 'if (this.isAlive) return true;',
      },
    ],
  },
  {
    name: 'confirm before spawn',
    store: 'zookeeper',
    faults: ['turn lost while the answer is under way'],
    patches: [
      {
        file: 'src/backends/zookeeper.ts',
        from: 'async confirm(place: ZooKeeperPlace, signal: AbortSignal): Promise<bigint> {',
        to: 'async confirm(place: ZooKeeperPlace, signal: AbortSignal): Promise<bigint> { if (place.path) return BigInt(place.path.slice(-10)) + 1n;',
      },
    ],
  },
  {
    name: 'release after death',
    store: 'redis',
    faults: ['elect-run resign', 'link cut both ways'],
    patches: [
      {
        file: 'src/run.ts',
        from: 'const isDead = await this.#stop(loss, elected);',
        to: 'await this.#backend.release(elected.place, AbortSignal.timeout(1000)).catch(() => {}); const isDead = await this.#stop(loss, elected);',
      },
    ],
  },
  {
    name: 'BOOTTIME',
    store: 'redis',
    faults: [SUSPEND],
    patches: [
      {
        file: 'src/clock.ts',
        from: 'return Math.max(origin + monotonicMs(), uptime() * 1000);',
        to: 'return origin + monotonicMs();',
      },
      {
        // CLOCK_MONOTONIC as libfaketime shows it is the time of day, with another origin in each process: so, what it was put back by is taken off.
        file: 'src/guard.sh',
        from: 'read -r up _ </proc/uptime',
        to: `up=$(awk '{ put_back = $1; getline <"/proc/uptime"; printf "%.2f", $1 + put_back }' "$FAKETIME_TIMESTAMP_FILE")`,
      },
    ],
  },
];

/** The text of a file without the rule. Throws when the rule is not where it was. */
export function mutate(text: string, { from, to }: Mutation['patches'][number]): string {
  const parts = text.split(from);
  if (parts.length !== 2) throw new Error(`${parts.length - 1} times in it, not once: ${from}`);
  return parts.join(to);
}

/** Builds it below `folder`. Returns the path of its bin. */
export function buildMutant({ name, patches }: Mutation, root: string, folder: string): string {
  const there = join(folder, name.replaceAll(' ', '-'));
  rmSync(there, { recursive: true, force: true });
  mkdirSync(there, { recursive: true });
  for (const part of ['src', 'bin', 'scripts', 'docs', 'package.json', 'tsconfig.json'])
    cpSync(join(root, part), join(there, part), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(there, 'node_modules'));
  for (const patch of patches) {
    const file = join(there, patch.file);
    writeFileSync(file, mutate(readFileSync(file, 'utf8'), patch));
  }
  // esbuild works where it was loaded, whatever the current folder is later.
  execFileSync(process.execPath, ['scripts/build.mjs'], { cwd: there, stdio: ['ignore', 'ignore', 'inherit'] });
  return join(there, 'bin/elect-run.js');
}
