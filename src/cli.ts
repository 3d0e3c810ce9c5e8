import { Argument, Command, CommanderError, Option } from 'commander';
import type { ConnectionOptions } from './backends/connection.ts';
import { BACKEND_FORMS, BACKEND_SCHEMES } from './backends/spec.ts';
import { FLAVORS } from './backends/zookeeper/spec.ts';
import { LOG_FORMATS, ON_LOST, type Options, READY_ON } from './config.ts';
import { EXIT, Failure } from './outcome.ts';
import { RERUNS } from './runs.ts';
import { PROFILES } from './timing.ts';

export interface Invocation {
  options: Options;
  command: string;
  args: string[];
}

/** Of a subcommand that looks at an election. */
export interface ElectionOptions extends ConnectionOptions {
  backend: string;
  name?: string;
  json?: boolean;
  verbose: number;
}

export interface FenceOptions extends ConnectionOptions {
  backend: string;
  token?: string;
  show?: boolean;
  json?: boolean;
  ttl?: string;
  renewEvery?: string;
  profile?: string;
  grace?: string;
  /** `false` is --no-wait. */
  wait?: string | boolean;
  logFormat: string;
  verbose: number;
}

export interface FenceInvocation {
  target: string;
  options: FenceOptions;
  isBackendGiven: boolean;
  isTokenGiven: boolean;
  /** Empty with --show. */
  command: string;
  args: string[];
}

const EXAMPLES = `
Examples:
  elect-run -- ./job.sh                                       one at a time on this host
  elect-run --backend etcd://e1:2379,e2:2379 -- ./job.sh      one at a time on all hosts
  elect-run -b etcd -n nightly --no-wait -- python3 job.py    run it unless somebody does

Exit status: the command's own; 64 usage, 69 store unreachable, 75 not elected, 76 stale token (fence), 77 refused,
79 leadership lost and the command stopped, 126/127 command not executable/not found, 128+n signal n.`;

/** Whoever reads help through head(1) has seen enough. */
function show(text: string): void {
  process.stdout.on('error', () => {});
  process.stdout.write(text);
}

/** An option that knows values which a shell can offer. It does not check them: config.ts does, with a better message. */
export class OfferingOption extends Option {
  values: readonly string[] = [];
}

/** Every option is a variable, too. */
function option(flags: string, description: string, values: readonly string[] = []): Option {
  const made = new OfferingOption(flags, description);
  made.values = values;
  return made.env(`ELECT_RUN_${made.name().toUpperCase().replaceAll('-', '_')}`);
}

const backendOption = () => option('-b, --backend <name|url>', BACKEND_FORMS, BACKEND_SCHEMES).default('file');

const connectionOptions = () => [
  option('--cacert <file>', 'the CA of the store'),
  option('--cert <file>', 'our certificate'),
  option('--key <file>', "our certificate's key"),
  option('--user <user[:password]>', 'the user of the store'),
  option('--password-file <file>', 'the file with the password'),
  option('--redis-wait-replicas <n>', 'how many replicas have to confirm; default: 0'),
  option('--zk-flavor <flavor>', 'whose line: curator-latch, curator-lock or kazoo; default: curator-latch', FLAVORS),
];

const timingOptions = () => [
  option('--ttl <duration>', "the lease's length (default: 15s)"),
  option('--renew-every <duration>', 'default: a third of the ttl'),
  option('--profile <profile>', 'aggressive 3s/1s, balanced 15s/5s, conservative 45s/10s', Object.keys(PROFILES)),
  option('--grace <duration>', 'on loss, from TERM to KILL; default: a fifth of the ttl'),
];

const waitOptions = () => [
  option('--wait <duration>', 'how long to campaign; default: for ever'),
  new Option('--no-wait', 'one attempt, then exit 75 or 69 (env: ELECT_RUN_NO_WAIT)'),
];

const logFormatOption = () => option('--log-format <format>', LOG_FORMATS.join('|'), LOG_FORMATS).default('auto');

const verboseOption = () =>
  new Option('-v, --verbose', 'renewals and signals, too; -vv: stack traces (env: ELECT_RUN_VERBOSE=1|2)')
    .argParser((_value, before: number) => before + 1)
    .default(0, '');

const withOptions = (command: Command, options: Option[]): Command =>
  options.reduce((built, one) => built.addOption(one), command);

const quietly = (command: Command): Command =>
  command
    .helpOption('-h, --help')
    .exitOverride()
    .configureOutput({ writeOut: show, writeErr: () => {}, outputError: () => {} });

function program(version: string): Command {
  const named = new Command('elect-run')
    .description('Run COMMAND while, and only while, this candidate leads its election.')
    .usage(
      '[options] -- COMMAND [ARG…]\n       elect-run status|watch|check|resign|doctor [options]\n       elect-run fence TARGET [options] -- COMMAND [ARG…]\n       elect-run completion bash|zsh|fish',
    )
    .argument('[command...]', 'the command and its arguments')
    .addOption(backendOption())
    .addOption(option('-n, --name <name>', "the election; default: the command's base name"))
    .addOption(option('--id <label>', 'how others see us; default: the host name'));
  const command = withOptions(named, [...timingOptions(), ...waitOptions()])
    .addOption(option('--on-lost <what>', ON_LOST.join(' or '), ON_LOST).default('exit'))
    .addOption(option('--stop-timeout <duration>', 'KILL so long after a forwarded TERM; default: never'))
    .addOption(option('--once-per <period>', 'run once in each: hour, day, 5m or a cron expression', ['hour', 'day']))
    .addOption(option('--schedule <cron>', 'stay, and run at these times while leading'))
    .addOption(option('--timezone <tz>', "of the cron expression; default: the host's"))
    .addOption(option('--skew <duration>', 'a start so close before a slot counts for it (default: 5s)'))
    .addOption(option('--catch-up <duration>', 'run missed slots up to this age; default: the latest only'))
    .addOption(option('--rerun <when>', 'never, crash or failure: run a slot again (default: crash)', RERUNS))
    .addOption(option('--hold <duration>', 'keep the leadership so long after a start at the least'))
    .addOption(
      option('--ready-on <what>', 'when systemd is told READY=1: standby or leader', READY_ON).default('standby'),
    )
    .addOption(
      new Option('--notify-child', 'the command may use sd_notify, through elect-run (env: ELECT_RUN_NOTIFY_CHILD)'),
    )
    .addOption(option('--exit-code-standby <n>', 'instead of 75'))
    .addOption(option('--exit-code-lost <n>', 'instead of 79'))
    .addOption(logFormatOption())
    .addOption(new Option('-q, --quiet', 'warnings and errors only (env: ELECT_RUN_QUIET)'))
    .addOption(verboseOption())
    .addOption(new Option('--no-remote-resign', 'do not obey elect-run resign (env: ELECT_RUN_NO_REMOTE_RESIGN)'))
    .addOption(
      new Option('--dry-run', 'connect, show what would be done and who leads, run nothing (env: ELECT_RUN_DRY_RUN)'),
    )
    .version(version, '-V, --version')
    .addHelpText('after', EXAMPLES)
    .passThroughOptions();
  return quietly(withOptions(command, connectionOptions()));
}

/** The subcommands, which are what elect-run's first word may be; a command of such a name goes behind `--`. */
export const SUBCOMMANDS = ['status', 'watch', 'check', 'resign', 'fence', 'doctor', 'completion'] as const;
export type Subcommand = (typeof SUBCOMMANDS)[number];

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

const looksAtElection = (command: Command): Command =>
  withOptions(command, connectionOptions())
    .addOption(backendOption())
    .addOption(option('-n, --name <name>', 'the election; inside of a command: its own'))
    .addOption(new Option('--json', 'for programs'))
    .addOption(verboseOption());

/** The summaries are what the shells show on TAB. */
const DEFINITIONS: Record<Subcommand, (command: Command) => Command> = {
  status: (command) =>
    looksAtElection(command)
      .summary('show who leads')
      .description('Show who leads, who stands by, and what was run. Exit status: 0 somebody leads, 75 nobody does.'),
  watch: (command) =>
    looksAtElection(command)
      .summary('show each change of leadership')
      .description(
        'Show each change of leadership as it comes, until interrupted; on a terminal, the state as it is now.',
      ),
  check: (command) =>
    looksAtElection(command)
      .summary('does this command still lead?')
      .description(
        'Inside of a command: does its FENCING_TOKEN still lead? Exit status: 0 yes, 79 no, 69 the store does not answer.',
      ),
  resign: (command) =>
    looksAtElection(command)
      .summary('ask the leader to step down')
      .description(
        'Ask the leader to step down in good order, and wait until it has. Exit status: 0 it has, 75 nobody leads, 69 it has not.',
      )
      .addOption(new Option('--to <id>', 'who shall lead next: an identity or its label'))
      .addOption(new Option('--wait <duration>', 'how long (default: 60s)')),
  fence: (command) =>
    withOptions(command, [
      new Option('--token <n>', 'the token of whoever acts').env('FENCING_TOKEN'),
      new Option('--show', 'show the highest token, and what was refused'),
      new Option('--json', 'with --show: for programs'),
      backendOption(),
      ...waitOptions(),
      ...timingOptions(),
      logFormatOption(),
      verboseOption(),
      ...connectionOptions(),
    ])
      .summary('run a command unless its token is stale')
      .description(
        'Run COMMAND unless TARGET, a file or with --backend a key in the store, has seen a larger token, and keep everybody else from TARGET meanwhile. Exit status: the command’s own, 76 the token is stale.',
      )
      .usage('TARGET [options] -- COMMAND [ARG…]\n       elect-run fence TARGET --show [--json]')
      .addArgument(new Argument('<TARGET>', 'a file; with --backend, and inside of a command that has one, a key')),
  doctor: (command) =>
    withOptions(looksAtElection(command), timingOptions())
      .summary('examine the store and this host')
      .description(
        'Examine the store and this host: servers, rights, round trips, expiry, clocks. Says what is wrong, how to mend it, and which timing fits. Exit status: 0 all is well or there are only warnings.',
      )
      .addOption(option('--for <duration>', 'how long round trips are measured (default: 3s)')),
  completion: (command) =>
    command
      .summary('print what lets a shell complete')
      .description('Print the script by which a shell completes options, their values and the command.')
      .addArgument(new Argument('<shell>', 'whose script').choices(SHELLS)),
};

const subcommand = (name: Subcommand): Command =>
  DEFINITIONS[name](quietly(new Command(`elect-run ${name}`)).allowExcessArguments(false));

/** All that can be written on a command line, as commander knows it. */
export const definitions = (): { program: Command; subcommands: [name: Subcommand, definition: Command][] } => ({
  program: program(''),
  subcommands: SUBCOMMANDS.map((name) => [name, subcommand(name)]),
});

/** Reads what follows a subcommand. Undefined: help was printed. Throws a usage Failure. */
export function readSubcommand(
  name: Subcommand,
  argv: string[],
  env: NodeJS.ProcessEnv,
): { options: ElectionOptions; args: string[] } | undefined {
  const command = parsed(subcommand(name), argv, env);
  return command && { options: command.opts<ElectionOptions>(), args: command.args };
}

/** Undefined: help or the version was printed. */
function parsed(command: Command, argv: string[], env: NodeJS.ProcessEnv): Command | undefined {
  // Set but empty is how compose files and units leave a variable out.
  for (const name of Object.keys(env)) if (name.startsWith('ELECT_RUN_') && env[name] === '') delete env[name];
  try {
    return command.parse(argv, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return undefined;
    throw new Failure(
      EXIT.usage,
      `${error.message.replace(/^error: /, '').replaceAll('\n', ' ')}; see ${command.name()} --help`,
    );
  }
}

/**
 * Reads the command line, with ELECT_RUN_* variables as defaults. Returns undefined when help or the version was printed. Throws a usage Failure.
 */
export function readCommandLine(argv: string[], env: NodeJS.ProcessEnv, version: string): Invocation | undefined {
  const command = parsed(program(version), argv, env);
  if (!command) return undefined;
  const [file, ...args] = command.args;
  if (file === undefined)
    throw new Failure(EXIT.usage, 'no command; write: elect-run [options] -- COMMAND [ARG…]; see elect-run --help');
  const options = command.opts<Options>();
  applyVariables(command, options, argv.slice(0, argv.length - command.args.length), env);
  if (isOn(env.ELECT_RUN_NOTIFY_CHILD)) options.notifyChild = true;
  if (isOn(env.ELECT_RUN_QUIET)) options.quiet = true;
  if (isOn(env.ELECT_RUN_DRY_RUN)) options.dryRun = true;
  if (isOn(env.ELECT_RUN_NO_REMOTE_RESIGN)) options.remoteResign = false;
  return { options, command: file, args };
}

/** What commander cannot: `flags` are the arguments that are ours. */
function applyVariables(
  command: Command,
  options: { wait?: string | boolean; verbose: number },
  flags: string[],
  env: NodeJS.ProcessEnv,
): void {
  // commander takes --wait and --no-wait for one option, of which the last one wins.
  if (flags.includes('--no-wait') && flags.some((flag) => /^--wait(=|$)/.test(flag))) {
    throw new Failure(EXIT.usage, '--wait and --no-wait exclude each other');
  }
  if (command.getOptionValueSource('verbose') === 'default') options.verbose = Number(env.ELECT_RUN_VERBOSE) || 0;
  if (isOn(env.ELECT_RUN_NO_WAIT) && command.getOptionValueSource('wait') !== 'cli') options.wait = false;
}

/** Reads what follows `fence`. Undefined: help was printed. Throws a usage Failure. */
export function readFence(argv: string[], env: NodeJS.ProcessEnv): FenceInvocation | undefined {
  const end = argv.includes('--') ? argv.indexOf('--') : argv.length;
  const flags = argv.slice(0, end);
  const command = parsed(subcommand('fence'), flags, env);
  if (!command) return undefined;
  const options = command.opts<FenceOptions>();
  applyVariables(command, options, flags, env);
  const [file = '', ...args] = argv.slice(end + 1);
  if (file === '' && !options.show)
    throw new Failure(
      EXIT.usage,
      'no command; write: elect-run fence TARGET [options] -- COMMAND [ARG…]; see elect-run fence --help',
    );
  const isGiven = (name: keyof FenceOptions) => command.getOptionValueSource(name) === 'cli';
  return {
    target: command.args[0]!,
    options,
    isBackendGiven: isGiven('backend'),
    isTokenGiven: isGiven('token'),
    command: file,
    args,
  };
}

const isOn = (value: string | undefined): boolean => value !== undefined && !/^(0|false|no|off)$/i.test(value);
