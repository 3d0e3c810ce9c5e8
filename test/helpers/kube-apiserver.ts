import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Where it is; undefined: there is none. */
export const KUBE_APISERVER = findKubeApiserver();

function findKubeApiserver(): string | undefined {
  const script = fileURLToPath(new URL('../../scripts/kube-apiserver.sh', import.meta.url));
  try {
    return execFileSync(script, ['find'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return undefined;
  }
}
