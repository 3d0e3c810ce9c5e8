import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, cpSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { lookUpCommand } from '../../src/lookup.ts';
import { CHECKOUT, NODE } from './elect.ts';
import { newFolder } from './folders.ts';

/** A root file system with nothing in it but what it is given: no shell, no tools. */
export class Root {
  readonly folder = newFolder('root');

  constructor() {
    chmodSync(this.folder, 0o755);
    for (const mountPoint of ['proc', 'dev', 'tmp']) mkdirSync(join(this.folder, mountPoint));
  }

  /** Where this path is, seen from outside. */
  at(path: string): string {
    return join(this.folder, path);
  }

  /** With its libraries, which are put where they are here. */
  addProgram(name: string, path: string): void {
    const file = lookUpCommand(name);
    this.#add(file, path);
    const libraries = execFileSync('ldd', [file], { encoding: 'utf8' }).matchAll(/(?:=> )?(\/\S+) \(0x/g);
    for (const [, library] of libraries) if (!existsSync(this.at(library!))) this.#add(library!, library!);
  }

  addFolder(folder: string, path: string): void {
    cpSync(folder, this.at(path), { recursive: true });
  }

  write(path: string, text: string): void {
    mkdirSync(dirname(this.at(path)), { recursive: true });
    writeFileSync(this.at(path), text);
  }

  #add(file: string, path: string): void {
    mkdirSync(dirname(this.at(path)), { recursive: true });
    copyFileSync(file, this.at(path));
  }

  /** To be put before a command that is to run there, with the processes, devices and temporary files of this machine. */
  prefix(): string[] {
    const enter = 'for dir in proc dev tmp; do mount --rbind "/$dir" "$0/$dir"; done; exec chroot "$0" "$@"';
    return ['unshare', '--mount', '--', 'sh', '-ec', enter, this.folder];
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Where the tools of jobs are in `withoutShell`: in no PATH, and not in /bin. */
export const TOOLS = '/opt/tools';

/** Node, this elect-run at the path that it has here, and what a job of the oracle needs; there is no /bin/sh, and nothing that elect-run can find. */
export function withoutShell(): Root {
  const root = new Root();
  root.addProgram(NODE, NODE);
  for (const part of ['bin', 'dist', 'package.json', 'node_modules/koffi', 'node_modules/@koromix'])
    root.addFolder(join(CHECKOUT, part), join(CHECKOUT, part));
  for (const tool of ['sh', 'sleep', 'flock', 'setsid', 'env']) root.addProgram(tool, join(TOOLS, basename(tool)));
  return root;
}
