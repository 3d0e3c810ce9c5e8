import { now } from '../clock.ts';
import type { Config } from '../config.ts';
import { type Send, senderTo } from '../datagrams.ts';
import { formatDuration } from '../durations.ts';
import type { Event, Report } from '../events.ts';
import { printable } from '../text.ts';
import type { Timing } from '../timing.ts';
import { DEATH_MS } from '../tree.ts';
import { describe } from './log.ts';

/** Tells the service manager what happens, by sd_notify(3): a datagram from this very process, which is what NotifyAccess=main asks for. */
export function systemdReporter(socket: string, watchdogMs: number | undefined, config: Config): Report {
  const systemd = new Systemd(senderTo(socket), config);
  if (watchdogMs !== undefined) systemd.watch(watchdogMs);
  return (event) => systemd.take(event);
}

/** The manager's WatchdogSec, as sd_watchdog_enabled(3) reads it: undefined where there is none, or it is meant for another process. */
export function readWatchdog(env: NodeJS.ProcessEnv): number | undefined {
  const { WATCHDOG_PID: pid, WATCHDOG_USEC: usec = '' } = env;
  const isOurs = pid === undefined || pid === String(process.pid);
  return isOurs && /^[1-9]\d{0,14}$/.test(usec) ? Number(usec) / 1000 : undefined;
}

/** What is wrong with a watchdog of this length. `runsOut`: does the store have a lease at all? */
export function watchdogProblem(watchdogMs: number, { ttlMs, renewEveryMs }: Timing, runsOut: boolean) {
  const [watchdog, every, ttl] = [watchdogMs, renewEveryMs, ttlMs].map(formatDuration);
  if (watchdogMs < 2 * renewEveryMs)
    return `WatchdogSec ${watchdog} is shorter than two renewals (--renew-every ${every}): one that is late would end a healthy leader`;
  if (runsOut && watchdogMs >= ttlMs)
    return `WatchdogSec ${watchdog} is not below --ttl ${ttl}: it would come too late to guard anything`;
  return undefined;
}

const EXTEND_EVERY_MS = 5000;
const TRY_AGAIN_MS = 100;
const MOST_WAITING = 100;
/** systemd ignores a datagram of more than 4096 bytes; a character may have four. */
const LONGEST_STATUS = 900;

/** What of the child's own words is passed on. Not WATCHDOG: that is ours to say. Not MAINPID, nor descriptors: the service is elect-run. */
const PASSED_ON = /^(READY=1|RELOADING=1|STOPPING=1|(MONOTONIC_USEC|EXTEND_TIMEOUT_USEC|ERRNO)=\d{1,20})$/;
const STATUS = 'STATUS=';

class Systemd {
  readonly #send: Send;
  readonly #config: Config;
  /** What systemd had no room for yet. */
  readonly #waiting: string[] = [];
  #tryAgain: NodeJS.Timeout | undefined;
  #isReady = false;
  #isStopping = false;
  #isSteppingDown = false;
  /** From winning to having given the lease back. */
  #leads = false;
  #leading = '';
  /** What else there is to say of it: the next slot, or the child's own words. */
  #then = '';
  /** As a standby: our place in line stands until then; Infinity where we have none that runs out. */
  #placeUntilAt = Number.POSITIVE_INFINITY;
  #stoppedBy = 0;
  #extending: NodeJS.Timeout | undefined;
  #isWatched = false;

  constructor(send: Send, config: Config) {
    this.#send = send;
    this.#config = config;
  }

  /**
   * A leader is alive when its renewals are confirmed, and by nothing else. A standby is when its event loop is and, where it has a place in line,
   * that place stands: a store that is away for a while does not make a standby unhealthy, and one that has lost its place enters the line again.
   */
  watch(watchdogMs: number): void {
    this.#isWatched = true;
    const ping = () => {
      if (!this.#leads && now() < this.#placeUntilAt) this.#ping();
    };
    setInterval(ping, watchdogMs / 2).unref();
  }

  take(event: Event): void {
    const lines: string[] = [];
    switch (event.type) {
      case 'standby':
        if (this.#config.readyOn === 'standby' && !this.#config.once) lines.push(...this.#ready());
        break;
      case 'place-renewed':
        this.#placeUntilAt = now() + event.validForMs;
        return;
      case 'place-lost':
        this.#placeUntilAt = Number.POSITIVE_INFINITY;
        return;
      case 'elected':
        this.#leads = true;
        this.#isSteppingDown = false;
        this.#leading = `leading with token ${event.token} since ${new Date().toISOString()}`;
        this.#then = '';
        this.#ping();
        break;
      case 'slot-settled':
        lines.push(...this.#ready());
        break;
      case 'scheduled':
        this.#then = `; ${describe(event)}`;
        lines.push(...this.#ready());
        break;
      case 'started':
        this.#then = '';
        if (this.#config.readyOn === 'standby' || !this.#config.notifyChild) lines.push(...this.#ready());
        break;
      case 'renewed':
        this.#ping();
        return;
      case 'notified':
        lines.push(...this.#passOn(event.lines));
        break;
      case 'signalled':
        if (event.signal === 'SIGHUP' && event.forwarded) this.#reload();
        if (!this.#leads) lines.push(...this.#stopping());
        else if (event.signal === 'SIGTERM') lines.push(...this.#stopping(this.#config.stopTimeoutMs));
        else return;
        break;
      case 'stepping-down':
        this.#isSteppingDown = true;
        if (!this.#config.rejoin) lines.push(...this.#stopping(event.killInMs));
        break;
      case 'ended':
        // Perhaps not the end of us: there are --schedule and --hold.
        if (this.#isStopping) this.#stopping(this.#config.timing.graceMs);
        break;
      case 'deposed':
      case 'resigned':
      case 'left-to-expire':
        this.#leads = false;
        this.#placeUntilAt = Number.POSITIVE_INFINITY;
        break;
    }
    const status = this.#status(event);
    if (status) lines.push(STATUS + printable(status).slice(0, LONGEST_STATUS));
    this.#post(lines);
  }

  #status(event: Event): string | undefined {
    switch (event.type) {
      case 'elected':
      case 'scheduled':
      case 'started':
      case 'resumed':
        return this.#leading + this.#then;
      case 'notified':
        return event.lines.some((line) => line.startsWith(STATUS)) ? this.#leading + this.#then : undefined;
      case 'listening':
      case 'renewed':
      case 'place-renewed':
      case 'place-lost':
      case 'strayed':
      case 'guard-replaced':
      case 'warning':
        return undefined;
      default:
        return describe(event);
    }
  }

  #ready(): string[] {
    if (this.#isReady) return [];
    this.#isReady = true;
    return ['READY=1'];
  }

  /**
   * With `limitMs` systemd is asked for that much time, and what the release may take, again and again as long as our event loop lives. Without a limit of our own the
   * child takes as long as systemd's TimeoutStopSec lets it.
   */
  #stopping(limitMs?: number): string[] {
    const isNews = !this.#isStopping;
    this.#isStopping = true;
    if (limitMs !== undefined) this.#extendFor(limitMs + DEATH_MS + 2 * this.#config.timing.requestMs);
    return isNews ? ['STOPPING=1'] : [];
  }

  #extendFor(durationMs: number): void {
    this.#stoppedBy = Math.max(this.#stoppedBy, now() + durationMs);
    const extend = () => {
      if (now() < this.#stoppedBy) this.#post([`EXTEND_TIMEOUT_USEC=${2 * EXTEND_EVERY_MS * 1000}`]);
      else clearInterval(this.#extending);
    };
    extend();
    clearInterval(this.#extending);
    this.#extending = setInterval(extend, EXTEND_EVERY_MS).unref();
  }

  /** Type=notify-reload waits for both, in this order (systemd.service(5)). The signal is forwarded as soon as this event has been taken, so READY comes after it. */
  #reload(): void {
    if (!this.#isReady || this.#isStopping || this.#config.notifyChild) return; // the child answers for itself
    this.#post(['RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`]);
    setImmediate(() => this.#post(['READY=1']));
  }

  #passOn(lines: string[]): string[] {
    const status = lines.find((line) => line.startsWith(STATUS));
    if (status !== undefined) this.#then = `: ${status.slice(STATUS.length)}`;
    const passed = lines.filter((line) => PASSED_ON.test(line) && !(line === 'STOPPING=1' && this.#outlivesChild()));
    if (passed.includes('READY=1')) this.#isReady = true;
    return passed;
  }

  /** The child stops, and we go on: we stand again, wait for the next slot, or hold the leadership. */
  #outlivesChild(): boolean {
    const { rejoin, timetable, holdMs } = this.#config;
    const goesOn = (this.#isSteppingDown && rejoin) || timetable?.option === '--schedule' || holdMs > 0;
    return goesOn && !this.#isStopping;
  }

  /** Never kept for later: it says that all is well now. */
  #ping(): void {
    if (this.#isWatched && this.#waiting.length === 0) this.#send('WATCHDOG=1');
  }

  #post(lines: string[]): void {
    if (lines.length === 0) return;
    this.#waiting.push(lines.join('\n'));
    if (this.#waiting.length > MOST_WAITING) this.#waiting.shift();
    this.#flush();
  }

  #flush(): void {
    clearTimeout(this.#tryAgain);
    while (this.#waiting.length > 0) {
      if (!this.#send(this.#waiting[0]!)) {
        this.#tryAgain = setTimeout(() => this.#flush(), TRY_AGAIN_MS).unref();
        return;
      }
      this.#waiting.shift();
    }
  }
}
