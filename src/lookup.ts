import { accessSync, constants, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { EXIT, Failure } from './outcome.ts';

/**
 * Finds COMMAND as execvp(3) would, before campaigning, so that a typing error does not wait in line for hours. Throws a
 * Failure with 127 (not found) or 126 (found, but cannot be executed).
 */
export function lookUpCommand(command: string, path = process.env.PATH): string {
  if (command.includes('/')) {
    const problem = whyNotExecutable(command);
    if (problem) throw new Failure(problem.code, `cannot run ${command}: ${problem.message}`);
    return command;
  }
  let worst: Problem | undefined;
  for (const directory of (path ?? '/usr/local/bin:/bin:/usr/bin').split(':')) {
    const candidate = join(directory || '.', command);
    const problem = whyNotExecutable(candidate);
    if (!problem) return candidate;
    if (problem.code === EXIT.cannotExecute && problem.message !== IS_DIRECTORY) worst = problem;
  }
  if (worst) throw new Failure(worst.code, `cannot run ${command}: ${worst.message}`);
  throw new Failure(EXIT.notFound, `cannot run ${command}: not found in PATH`);
}

export const SHELL = '/bin/sh';

/** In a distroless container there is none. */
export const hasShell = (): boolean => whyNotExecutable(SHELL) === undefined;

/** What guard.sh takes: its alarm naps by sleep(1), and would go round and round without. */
export const canNap = (): boolean => {
  try {
    lookUpCommand('sleep');
    return true;
  } catch {
    return false;
  }
};

/** A setpriv(1) that knows --pdeathsig, or undefined: others, of util-linux before 2.33 or of busybox, would fail in the command's place. To ask it would take a process. */
export function findSetpriv(): string | undefined {
  try {
    const file = lookUpCommand('setpriv');
    return readFileSync(file).includes('pdeathsig') ? file : undefined;
  } catch {
    return undefined;
  }
}

const IS_DIRECTORY = 'it is a directory';

interface Problem {
  code: number;
  message: string;
}

function whyNotExecutable(file: string): Problem | undefined {
  try {
    const found = statSync(file, { throwIfNoEntry: false });
    if (!found) return { code: EXIT.notFound, message: 'no such file' };
    if (found.isDirectory()) return { code: EXIT.cannotExecute, message: IS_DIRECTORY };
    accessSync(file, constants.X_OK);
    return undefined;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return { code: EXIT.notFound, message: 'no such file' };
    return {
      code: EXIT.cannotExecute,
      message: code === 'EACCES' ? 'permission denied (is it executable?)' : String(code),
    };
  }
}
