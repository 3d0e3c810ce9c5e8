import { lookUpCommand } from '../../src/lookup.ts';
import type { Image } from './dockerfile.ts';
import { type Elect, elect } from './elect.ts';
import { childrenOf, signal, until } from './procs.ts';

/** To be put before a command, which is then pid 1 of a pid namespace of its own, as in a container. It dies with its unshare(1). */
export const AS_PID_1 = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc', '--'];

/** The pid, out here, of elect-run: unshare's only child. */
export const pidOneOf = (box: Elect): Promise<number> => until(() => childrenOf(box.pid)[0], 'pid 1');

export interface ContainerOptions {
  /** All that is in the environment, besides what the image sets. */
  env?: Record<string, string>;
  /** Who it runs as. */
  user?: number;
  /** To be put before it: where its network is. */
  network?: string[];
}

/** The image as a container runtime would run it: pid 1, root read-only, not as root, and nothing of our environment. */
export function runImage(image: Image, { env = {}, user = image.user, network = [] }: ContainerOptions = {}): Elect {
  const { folder } = image.root;
  const mounts = [
    'mount --bind "$0" "$0"',
    'mount -t proc proc "$0/proc"',
    'mount --rbind /dev "$0/dev"',
    'mount -o remount,bind,ro "$0"',
  ];
  const environment = Object.entries({ ...image.env, ELECT_RUN_LOG_FORMAT: 'json', ...env });
  const prefix = [
    ...[...network, 'unshare', '--mount', '--pid', '--fork', '--kill-child', '--'],
    ...['sh', '-ec', `${mounts.join('; ')}; exec "$@"`, folder],
    ...[lookUpCommand('env'), '-i', ...environment.map(([name, value]) => `${name}=${value}`)],
    ...[lookUpCommand('unshare'), `--root=${folder}`, `--wd=${image.workdir}`],
    ...[`--setgid=${user}`, `--setuid=${user}`, '--'],
  ];
  const box = elect(image.cmd, { prefix, program: image.entrypoint });
  boxes.add(box);
  return box;
}

const boxes = new Set<Elect>();

/** For afterEach, before `endAll`: a process that has changed its user outlives its unshare(1) (prctl(2), PR_SET_PDEATHSIG). */
export async function endContainers(): Promise<void> {
  for (const box of boxes) {
    for (const pid of childrenOf(box.pid)) signal(pid, 'SIGKILL');
    await box.ended;
  }
  boxes.clear();
}
