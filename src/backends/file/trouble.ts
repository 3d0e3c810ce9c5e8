import { Unusable } from '../../backend.ts';

/** They may pass: it is worthwhile to try again. */
const PASSING = ['ENOSPC', 'EDQUOT', 'EIO', 'ESTALE', 'EAGAIN', 'ENOMEM', 'EMFILE', 'ENFILE'];

/** What an error of a file comes to. `final`: what to say when no other try would have another end. */
export function troubleWith(error: unknown, problem: string, final = problem): Error {
  const { code } = error as NodeJS.ErrnoException;
  return PASSING.includes(code!) ? new Error(problem) : new Unusable(final);
}

/** Of a lock directory. `advice`: what would help for good. */
export const trouble = (error: unknown, problem: string, advice = ''): Error =>
  troubleWith(error, problem, `--backend file: ${problem}${advice}`);
