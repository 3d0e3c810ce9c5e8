import { readFileSync } from 'node:fs';

/** Where version 2 of the cgroups is mounted, beside version 1 or alone. */
export const CGROUP2 = readFileSync('/proc/mounts', 'utf8')
  .split('\n')
  .find((line) => line.split(' ')[2] === 'cgroup2')
  ?.split(' ')[1];
