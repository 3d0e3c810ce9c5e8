import type { Command, Option } from 'commander';
import { definitions, OfferingOption } from '../../cli.ts';

/** What may be written on a command line, for the writers of the shells' scripts. */
export interface Grammar {
  program: CommandGrammar;
  subcommands: CommandGrammar[];
}

export interface CommandGrammar {
  /** Empty: elect-run itself. */
  name: string;
  summary: string;
  options: OptionGrammar[];
  /** What its argument may be; of elect-run itself: nothing, since a command follows. */
  words: readonly string[];
}

export interface OptionGrammar {
  /** `-b`, `--backend`: one or both. */
  flags: string[];
  description: string;
  /** Undefined: it is a switch. No words: anything may be written. `store` is a scheme, after which a URL or, after `file:`, a directory goes on. */
  value: { name: string; kind: 'words' | 'store' | 'file'; words: readonly string[] } | undefined;
  repeats: boolean;
  /** These exclude it, and it them; its own flags among them. */
  excludes: string[];
}

export function readGrammar(): Grammar {
  const { program, subcommands } = definitions();
  return {
    program: readCommand('', program),
    subcommands: subcommands.map(([name, definition]) => readCommand(name, definition)),
  };
}

/** The letters of all short options that take a value, or that take none. */
export function shortFlags(commands: CommandGrammar[], withValue: boolean): string {
  const options = commands.flatMap((command) => command.options).filter(({ value }) => !!value === withValue);
  const short = options.flatMap(({ flags }) => flags.filter((flag) => flag.length === 2));
  return [...new Set(short.map((flag) => flag[1]))].join('');
}

function readCommand(name: string, definition: Command): CommandGrammar {
  const options = definition.createHelp().visibleOptions(definition);
  return {
    name,
    summary: definition.summary(),
    options: options.map((option) => readOption(option, options)),
    words: definition.registeredArguments.flatMap(({ argChoices }) => argChoices ?? []),
  };
}

const flagsOf = ({ short, long }: Option): string[] => [short, long].filter((flag) => flag !== undefined);

function readOption(option: Option, all: Option[]): OptionGrammar {
  const [, valueName] = /<(.*)>/.exec(option.flags) ?? [];
  const words = option instanceof OfferingOption ? option.values : [];
  const kind = option.name() === 'backend' ? 'store' : valueName === 'file' ? 'file' : 'words';
  return {
    flags: flagsOf(option),
    description: option.description,
    value: valueName === undefined ? undefined : { name: valueName, kind, words },
    repeats: option.parseArg !== undefined,
    excludes: all.filter((other) => other.attributeName() === option.attributeName()).flatMap(flagsOf),
  };
}
