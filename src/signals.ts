import { constants } from 'node:os';
import { onSignals } from './native.ts';
import { Failure, signalName, signalNumber, signalStatus } from './outcome.ts';

/**
 * Signals that are not passed on: KILL and STOP cannot be caught; CHLD speaks of our own children; PIPE comes from our own writes to a
 * closed stderr or socket; and a real SEGV, BUS, FPE or ILL of ours would return into the faulting instruction for ever.
 */
const NOT_FORWARDED = ['SIGKILL', 'SIGSTOP', 'SIGCHLD', 'SIGPIPE', 'SIGSEGV', 'SIGBUS', 'SIGFPE', 'SIGILL'];

/** These do nothing to a process that does not handle them (signal(7)): they do not end a campaign. */
const HARMLESS = ['SIGWINCH', 'SIGCONT', 'SIGURG'];

const aliases = ['SIGIOT', 'SIGPOLL', 'SIGUNUSED']; // second names of ABRT, IO and SYS

export const FORWARDED: string[] = [
  ...Object.keys(constants.signals).filter((name) => !NOT_FORWARDED.includes(name) && !aliases.includes(name)),
  ...Array.from({ length: 31 }, (_, index) => signalName(34 + index)),
];

/** Node has no names for them, and so no way to listen for them. */
export const isRealtime = (signal: string): boolean => signal.startsWith('SIGRT');

export const endsCampaign = (signal: string): boolean => !HARMLESS.includes(signal) && !isStop(signal);

/** The stops of a terminal's job control, which can be caught. */
export const isStop = (signal: string): signal is 'SIGTSTP' | 'SIGTTIN' | 'SIGTTOU' => STOPS.includes(signal);
const STOPS = ['SIGTSTP', 'SIGTTIN', 'SIGTTOU'];

/** Resolves once all signals that have come by now have been heard: libuv tells of them with what it polls next. */
export const allHeard = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

type Handler = (signal: string) => void;

const statusOf = (signal: string): number => signalStatus(signalNumber(signal));
const exitBy = (signal: string): void => process.exit(statusOf(signal));

/**
 * Catches every signal that can be caught, from the first moment on, and hands it to whoever is in charge now: the campaign, the child,
 * or the release. Signals that come while nobody is in charge wait for the next one.
 */
export class Signals {
  #handler: Handler | undefined;
  #pending: string[] = [];
  readonly #catch = (signal: string) => {
    if (this.#handler) this.#handler(signal);
    else this.#pending.push(signal);
  };

  constructor() {
    for (const signal of FORWARDED) if (!isRealtime(signal)) process.on(signal, this.#catch);
  }

  /** From now on the real-time signals as well: apart from the others, since it takes a library to be loaded. */
  catchRealtime(): void {
    onSignals(FORWARDED.filter(isRealtime).map(signalNumber), (number) =>
      setImmediate(() => this.#catch(signalName(number))),
    );
  }

  /** Until the returned function is called, signals go to this handler. */
  handle(handler: Handler): () => void {
    const before = this.#handler;
    this.#handler = handler;
    for (const signal of this.#pending.splice(0)) handler(signal);
    return () => {
      this.#handler = before;
    };
  }

  /**
   * Until `end` is called: aborted, with a Failure of its status, by the first signal that would end us. Each later one comes from somebody who will not wait for what is
   * put in order then. Stops do what they do to any program.
   */
  interruption(heard: (signal: string) => void = () => {}, insisted = exitBy): { signal: AbortSignal; end(): void } {
    const interrupted = new AbortController();
    const end = this.handle((signal) => {
      if (isStop(signal)) return this.default(signal);
      if (!endsCampaign(signal)) return;
      heard(signal);
      if (interrupted.signal.aborted) insisted(signal);
      interrupted.abort(new Failure(statusOf(signal), ''));
    });
    return { signal: interrupted.signal, end };
  }

  /** Whoever is in charge next gets it, too. */
  again(signal: string): void {
    this.#catch(signal);
  }

  /** Does to this process what the signal would have done, had it not been caught: for the stops of a terminal's job control. */
  default(signal: NodeJS.Signals): void {
    process.off(signal, this.#catch);
    process.kill(process.pid, signal);
    process.on(signal, this.#catch);
  }
}
