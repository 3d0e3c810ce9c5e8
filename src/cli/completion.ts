import type { Shell } from '../cli.ts';
import { bashScript } from './completion/bash.ts';
import { fishScript } from './completion/fish.ts';
import { readGrammar } from './completion/grammar.ts';
import { zshScript } from './completion/zsh.ts';

const SCRIPTS = { bash: bashScript, zsh: zshScript, fish: fishScript };

/** `elect-run completion SHELL`, from which the build makes dist/completions/ as well. The script never starts elect-run. */
export const completionScript = (shell: Shell): string => SCRIPTS[shell](readGrammar());
