import { setMaxListeners } from 'node:events';
import { fstatSync } from 'node:fs';
import { OneRun } from './agenda.ts';
import { openBackend } from './backends/index.ts';
import { readCommandLine, readFence, readSubcommand, type Shell, SUBCOMMANDS, type Subcommand } from './cli.ts';
import { LONGEST_TIMER_MS } from './clock.ts';
import { type Config, LOG_FORMATS, oneOf, readConfig } from './config.ts';
import type { Report } from './events.ts';
import { lookUpCommand } from './lookup.ts';
import { EXIT, Failure, signalNumber, signalStatus } from './outcome.ts';
import { logReporter } from './report/log.ts';
import { run } from './run.ts';
import { endsCampaign, isStop, Signals } from './signals.ts';

/** Of package.json: the build puts it in. */
declare const ELECT_RUN_VERSION: string;

/** The only place that reads argv and the environment, and that sets the exit code. */
async function main(): Promise<number> {
  // Node's advice to programmers, on a stderr that is the user's. Requests that fail at once leave their limits behind for as long as those last.
  process.noDeprecation = true;
  setMaxListeners(0);
  const signals = new Signals();
  let report = logReporter('plain', { quiet: false, verbose: 0 });
  try {
    const subcommand = SUBCOMMANDS.find((name) => name === process.argv[2]);
    if (subcommand === 'fence') {
      const fencing = readFence(process.argv.slice(3), process.env);
      if (!fencing) return 0;
      const { logFormat, verbose } = fencing.options;
      // As silent as flock(1), unless it is asked.
      report = await reporter(oneOf('--log-format', logFormat, LOG_FORMATS), verbose === 0, verbose - 1);
      hideSecrets();
      return await (await import('./cli/fence.ts')).fence(fencing, process.env, report, signals);
    }
    if (subcommand) return await runSubcommand(subcommand, signals);
    const invocation = readCommandLine(process.argv.slice(2), process.env, ELECT_RUN_VERSION);
    if (!invocation) return 0;
    const { options, command, args } = invocation;
    report = await reporter(
      oneOf('--log-format', options.logFormat, LOG_FORMATS),
      options.quiet ?? false,
      options.verbose,
    );
    hideSecrets();
    const config = readConfig(options, command, args, process.env);
    report = await withSystemd(report, config, process.env);
    lookUpCommand(command);
    const candidate = {
      election: config.election,
      id: config.id,
      ttlMs: config.timing.ttlMs,
      requestMs: config.timing.requestMs,
    };
    const timetable = config.timetable && (await import('./timetable.ts')).readTimetable(config.timetable);
    const backend = await openBackend(config.backend, candidate);
    if (options.dryRun) {
      endOnSignal(signals);
      return await (await import('./cli/dry-run.ts')).dryRun(config, backend, timetable?.text);
    }
    report = await withMonitor(report, config);
    const agenda = timetable?.agenda(backend, candidate.requestMs, report) ?? new OneRun();
    return await run(config, backend, candidate, agenda, report, signals);
  } catch (error) {
    const { message, stack } = error as Error;
    if (message)
      report({
        type: 'failed',
        message: error instanceof Failure ? message : `a fault of elect-run: ${message}`,
        stack,
      });
    return error instanceof Failure ? error.code : EXIT.software;
  }
}

/** What does not run a command. */
async function runSubcommand(name: Exclude<Subcommand, 'fence'>, signals: Signals): Promise<number> {
  endOnSignal(signals);
  const read = readSubcommand(name, process.argv.slice(3), process.env);
  if (!read) return 0;
  const { options, args } = read;
  hideSecrets();
  process.stdout.on('error', () => process.exit(0)); // whoever reads through head(1) has seen enough
  switch (name) {
    case 'status':
      return (await import('./cli/status.ts')).status(options, process.env);
    case 'watch':
      return (await import('./cli/watch.ts')).watch(options, process.env);
    case 'check':
      return (await import('./cli/check.ts')).check(options, process.env);
    case 'resign':
      return (await import('./cli/resign.ts')).resign(options, process.env, signals);
    case 'doctor':
      return (await import('./cli/doctor.ts')).doctor(options, process.env, signals);
    case 'completion':
      process.stdout.write((await import('./cli/completion.ts')).completionScript(args[0] as Shell));
      return 0;
  }
}

/** Nothing of ours is in the store, and there is no child: a signal does what it does to any program. */
function endOnSignal(signals: Signals): void {
  signals.handle((signal) => {
    if (isStop(signal)) signals.default(signal);
    else if (endsCampaign(signal)) process.exit(signalStatus(signalNumber(signal)));
  });
}

/** A password in a URL or in --user is everybody's to read in ps(1) as long as it stands in our arguments. */
function hideSecrets(): void {
  const shown = process.argv.map((arg, index) => {
    const isUser = /^--user(=|$)/.test(arg) ? arg : process.argv[index - 1] === '--user' ? arg : '';
    return isUser.includes(':') ? arg.replace(/:.*$/, '') : arg.replace(/(:\/\/)[^/@]*@/, '$1');
  });
  if (shown.some((arg, index) => arg !== process.argv[index])) process.title = shown.join(' ');
}

const NULL_DEVICE = 0x103; // null(4)

/** Is stderr one? What Node takes to ask is loaded only where it may be: a start elsewhere does not wait 1 ms for its streams. */
function isTerminal(): boolean {
  try {
    const stderr = fstatSync(2);
    return stderr.isCharacterDevice() && stderr.rdev !== NULL_DEVICE && process.stderr.isTTY === true;
  } catch {
    return false;
  }
}

async function reporter(format: (typeof LOG_FORMATS)[number], quiet: boolean, verbose: number): Promise<Report> {
  const isForPeople = format === 'pretty' || (format === 'auto' && isTerminal());
  const lines = logReporter(isForPeople ? 'pretty' : format, { quiet, verbose });
  if (!isForPeople || quiet) return lines;
  const { canSpin, withSpinner } = await import('./report/spinner.ts');
  return canSpin() ? withSpinner(lines) : lines;
}

/** Under systemd it is told as well. What that takes is loaded only there. */
async function withSystemd(lines: Report, config: Config, env: NodeJS.ProcessEnv): Promise<Report> {
  if (!env.NOTIFY_SOCKET) return lines;
  const { readWatchdog, systemdReporter, watchdogProblem } = await import('./report/systemd.ts');
  const watchdogMs = readWatchdog(env);
  const problem =
    watchdogMs === undefined ? undefined : watchdogProblem(watchdogMs, config.timing, config.backend.kind !== 'file');
  if (problem) lines({ type: 'warning', message: problem });
  const systemd = systemdReporter(env.NOTIFY_SOCKET, watchdogMs, config);
  return (event) => {
    systemd(event);
    lines(event);
  };
}

/** With --listen: HTTP, and what it takes. Throws a usage Failure when the address cannot be had. */
async function withMonitor(others: Report, config: Config): Promise<Report> {
  if (!config.listen) return others;
  const { monitorReporter } = await import('./report/monitor.ts');
  const { url, take } = await monitorReporter(config.listen, config);
  others({ type: 'listening', url });
  return (event) => {
    take(event);
    others(event);
  };
}

/** What elect-run is started for: does it, and ends the process. */
export function start(): void {
  // Whatever it is: the guard ends the command as soon as we are gone.
  process.on('uncaughtException', ({ message }) => {
    logReporter('plain', { quiet: false, verbose: 0 })({
      type: 'failed',
      message: `a fault of elect-run: ${message}`,
      stack: undefined,
    });
    process.exit(EXIT.software);
  });
  // Node does not know of our children, and would end when it has nothing else to wait for.
  setInterval(() => {}, LONGEST_TIMER_MS);
  // exit() rather than an empty event loop: a client library may keep a connection open.
  main().then((status) => process.exit(status));
}
