import { homedir } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';
import { usage } from '../../outcome.ts';
import { printable } from '../../text.ts';
import type { SpecReader } from '../spec.ts';

export interface FileSpec {
  kind: 'file';
  dir: string;
}

export const fileReader: SpecReader<FileSpec> = {
  schemes: ['file'],
  form: 'file[:DIR]',
  options: [],

  read({ rest }, _options, env) {
    if (rest !== '' && (!rest.startsWith(':') || rest === ':'))
      throw usage(`--backend "file${printable(rest)}": write file or file:DIR`);
    if (rest.includes('\0')) throw usage('--backend file: a directory cannot have a NUL in its name');
    const given = rest.slice(1).replace(/^\/\/(?=\/)/, '');
    return { kind: 'file', dir: given === '' ? defaultDirectory(env) : resolve(given) };
  },

  checkElection(election, shown) {
    if (election.includes('/'))
      throw usage(`--name "${shown}": with --backend file it is a file's name and cannot contain "/"`);
    if (election === '.' || election === '..') throw usage(`--name "${shown}" cannot be a file's name`);
    if (Buffer.byteLength(election) > 200)
      throw usage(`--name "${shown}…" is longer than 200 bytes, too long for a file's name`);
  },
};

/** It has to outlive a restart of the machine, with the fencing counter in it. A relative one would be another in each working directory, and elect two: the XDG Base Directory Specification has it ignored. */
function defaultDirectory(env: NodeJS.ProcessEnv): string {
  if (process.getuid?.() === 0) return '/var/lib/elect-run';
  const { XDG_STATE_HOME: given = '' } = env;
  return join(isAbsolute(given) ? given : join(home(), '.local', 'state'), 'elect-run');
}

function home(): string {
  let found: string;
  try {
    found = homedir();
  } catch {
    throw usage('--backend file: there is no HOME, and no user of our number: write file:DIR');
  }
  if (!isAbsolute(found))
    throw usage(`--backend file: HOME is "${printable(found)}", no absolute path: write file:DIR`);
  return found;
}
