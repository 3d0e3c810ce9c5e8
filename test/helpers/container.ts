import type { Elect } from './elect.ts';
import { childrenOf, until } from './procs.ts';

/** To be put before a command, which is then pid 1 of a pid namespace of its own, as in a container. It dies with its unshare(1). */
export const AS_PID_1 = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc', '--'];

/** The pid, out here, of elect-run: unshare's only child. */
export const pidOneOf = (box: Elect): Promise<number> => until(() => childrenOf(box.pid)[0], 'pid 1');
