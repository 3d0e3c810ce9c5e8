import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pathWithoutCompilers } from './compilers.ts';
import { newFolder } from './folders.ts';
import { Root } from './root.ts';

/** What an image is, as far as running it goes. */
export class Image {
  readonly root = new Root();
  readonly env: Record<string, string> = {};
  user = 0;
  workdir = '/';
  entrypoint: string[] = [];
  cmd: string[] = [];
}

/**
 * Does what a Dockerfile says, line by line, without an engine. `bases` make what its FROMs name. A RUN gets the tools of this machine, and has
 * to keep to the working directory.
 */
export function buildImage(dockerfile: string, context: string, bases: Record<string, () => Image>): Image {
  const stages = new Map<string, Image>();
  let image: Image | undefined;
  for (const line of dockerfile.split('\n').filter((text) => text !== '' && !text.startsWith('#'))) {
    const [, word, rest] = /^([A-Z]+) (.*)$/.exec(line)!;
    if (word === 'FROM') {
      const [base, , name] = rest!.split(' ');
      image = bases[base!]!();
      if (name) stages.set(name, image);
    } else step(image!, stages, context, word!, rest!);
  }
  for (const stage of stages.values()) stage.root.remove();
  return image!;
}

function step(image: Image, stages: Map<string, Image>, context: string, word: string, rest: string): void {
  const here = image.root.at(image.workdir);
  switch (word) {
    case 'WORKDIR':
      image.workdir = rest;
      mkdirSync(image.root.at(rest), { recursive: true });
      break;
    case 'ENV': {
      const [name, value] = rest.split('=');
      image.env[name!] = value!;
      break;
    }
    case 'RUN':
      shell(rest, here);
      break;
    case 'COPY': {
      const [, stage, sources, target] = /^(?:--from=(\S+) )?(.*) (\S+)$/.exec(rest)!;
      if (target!.startsWith('.')) shell(`cp -r ${sources} '${join(here, target!)}'`, context);
      // A folder's content goes into the folder that is named.
      else {
        mkdirSync(image.root.at(target!), { recursive: true });
        shell(`cp -r .${sources}/. '${image.root.at(target!)}'`, stages.get(stage!)!.root.folder);
      }
      break;
    }
    case 'ENTRYPOINT':
      image.entrypoint = JSON.parse(rest);
      break;
    case 'CMD':
      image.cmd = JSON.parse(rest);
      break;
    default:
      throw new Error(`not known here: ${word} ${rest}`);
  }
}

/** A slim image has no compilers. */
function shell(command: string, cwd: string): void {
  const tools = newFolder('tools');
  const env = { ...process.env, PATH: pathWithoutCompilers(tools), npm_config_prefer_offline: 'true' };
  execFileSync('sh', ['-ec', command], { cwd, env, stdio: 'pipe' });
  rmSync(tools, { recursive: true });
}
