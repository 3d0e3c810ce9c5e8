import { execFileSync } from 'node:child_process';

/** The kernel does not deny root anything (getrlimit(2), RLIMIT_NPROC): whose processes shall be denied has to be another user. Nobody else's is this one. */
export const COUNTED_UID = process.getuid!() === 0 ? 54_322 : process.getuid!();

const prlimit = (pid: number, ...args: string[]): string =>
  execFileSync('prlimit', ['--pid', String(pid), ...args], { encoding: 'utf8', uid: COUNTED_UID }).trim();

/** From now on this process gets EAGAIN when it starts another one; until the returned function is called. */
export function denyForks(pid: number): () => void {
  const before = prlimit(pid, '--nproc', '--raw', '--noheadings', '--output', 'SOFT');
  prlimit(pid, '--nproc=0:');
  return () => prlimit(pid, `--nproc=${before}:`);
}
