import type { Agenda, Due, Leader } from './agenda.ts';
import type { Backend, Place } from './backend.ts';
import { pause } from './clock.ts';
import type { Timetable } from './config.ts';
import { formatDuration } from './durations.ts';
import type { Report } from './events.ts';
import { usage } from './outcome.ts';
import { isSettled, type Rerun, type Run, type RunBook, Runs } from './runs.ts';
import { readSlots, type Slots, shortestPeriod, slotName } from './slots.ts';
import { printable } from './text.ts';

const DEFAULT_SKEW_MS = 5000;

/** What a timetable means for a process that starts now. Throws a usage Failure. `text`: for people. */
export function readTimetable(timetable: Timetable): {
  text: string;
  agenda(backend: Backend, requestMs: number, report: Report): Agenda;
} {
  const { option, text, timezone, rerun, catchUpMs } = timetable;
  const slots = readSlots(option, text, timezone);
  if (option === '--schedule') {
    const next = slots.next(Date.now());
    return {
      text: next === undefined ? 'no slot any more' : `the next slot is ${slotName(next)}`,
      agenda: (backend, requestMs, report) => new Schedule(backend, requestMs, report, { slots, rerun, catchUpMs }),
    };
  }
  const slot = slots.latest(Date.now() + skewFor(timetable, slots));
  if (slot === undefined) throw usage(`--once-per "${text}" has no slot yet`);
  return {
    text: `slot ${slotName(slot)}, if nobody has run it`,
    agenda: (backend, requestMs, report) => new OneSlot(backend, requestMs, report, slot, rerun),
  };
}

/** Half a period is the most: beyond it a start in time would count for the slot after. */
function skewFor({ skewMs, text }: Timetable, slots: Slots): number {
  const mostMs = shortestPeriod(slots, Date.now()) / 2;
  if (skewMs !== undefined && skewMs >= mostMs)
    throw usage(
      `--skew ${formatDuration(skewMs)} is not shorter than half of the time between two slots of --once-per ${text}`,
    );
  return skewMs ?? Math.min(DEFAULT_SKEW_MS, Math.floor(mostMs / 2));
}

/** No two clocks that are looked after differ so much. */
const WRONG_CLOCK_MS = 60_000;

/** What both kinds of schedule share: a run is in the book before its child starts, and again when it has ended. */
abstract class Recorded implements Agenda {
  abstract readonly repeats: boolean;
  protected readonly runs: Runs;
  protected readonly report: Report;
  /** Has ended, but that could not be recorded yet. */
  protected owed: { token: string; due: Due; endedAt: string; status: number | undefined } | undefined;

  constructor(backend: Backend, requestMs: number, report: Report) {
    this.runs = new Runs(backend, requestMs, report);
    this.report = report;
  }

  abstract isSettled(signal: AbortSignal): Promise<boolean>;
  abstract next(leader: Leader, signal: AbortSignal): Promise<Due | undefined>;

  /** Enters a run for the slot that `choose` finds due. Undefined: it finds none. */
  protected async begin(
    { place, id, token }: Leader,
    choose: (book: RunBook) => string | undefined,
    signal: AbortSignal,
  ): Promise<Due | undefined> {
    const startedAt = new Date().toISOString();
    let slot: string | undefined;
    await this.runs.change(
      place,
      (book) => {
        // Our own write, whose answer was lost.
        const [last] = book.runs;
        if (last && last.slot === slot && last.token === token && last.startedAt === startedAt) return undefined;
        slot = choose(book);
        if (slot === undefined) return undefined;
        return { ...book, runs: [{ slot, holder: id, token, startedAt }, ...book.runs] };
      },
      signal,
    );
    return slot === undefined ? undefined : { slot };
  }

  async ended({ place, token }: Leader, due: Due, status: number | undefined, signal: AbortSignal): Promise<void> {
    this.owed = { token, due, endedAt: new Date().toISOString(), status };
    await this.settle(place, signal);
  }

  /** Until that slot has come by our own clock nothing will be run, which somebody should know. */
  protected warnIfAhead({ slot, holder }: Run): void {
    if (Date.parse(slot) - Date.now() <= WRONG_CLOCK_MS) return;
    const message = `slot ${slot} was run by ${printable(holder)} and is yet to come by the clock of this host: one of the two clocks is wrong, and until then no slot is run`;
    this.report({ type: 'warning', message });
  }

  protected async settle(place: Place, signal: AbortSignal): Promise<void> {
    if (!this.owed) return;
    const { token, due, endedAt, status } = this.owed;
    await this.runs.change(
      place,
      ({ runs, ...book }) => {
        const index = runs.findIndex((run) => run.slot === due.slot);
        const run = runs[index];
        // Ended already, or another has run the slot once more.
        if (run?.token !== token || run.endedAt !== undefined) return undefined;
        const others = runs.toSpliced(index, 1);
        return { ...book, runs: status === undefined ? others : runs.with(index, { ...run, endedAt, status }) };
      },
      signal,
    );
    this.owed = undefined;
  }
}

/** --once-per: this process was started for one slot, which one candidate of all runs. */
export class OneSlot extends Recorded {
  readonly repeats = false;
  readonly #rerun: Rerun;
  readonly #slot: string;

  /** `slot`: that for which the process was started, however long it has to wait. */
  constructor(backend: Backend, requestMs: number, report: Report, slot: number, rerun: Rerun) {
    super(backend, requestMs, report);
    this.#slot = slotName(slot);
    this.#rerun = rerun;
  }

  async isSettled(signal: AbortSignal): Promise<boolean> {
    return this.#tell(this.#settledBy(await this.runs.look(signal)));
  }

  async next(leader: Leader, signal: AbortSignal): Promise<Due | undefined> {
    let run: Run | undefined;
    const choose = (book: RunBook) => {
      run = this.#settledBy(book);
      return run ? undefined : this.#slot;
    };
    const due = await this.begin(leader, choose, signal);
    if (!due) this.#tell(run);
    return due;
  }

  /** Later slots settle it as well: the time of this one is over. */
  #settledBy({ runs }: RunBook): Run | undefined {
    return runs.find((run) => run.slot > this.#slot || (run.slot === this.#slot && isSettled(run, this.#rerun)));
  }

  #tell(run: Run | undefined): boolean {
    if (!run) return false;
    this.warnIfAhead(run);
    this.report({ type: 'slot-settled', slot: this.#slot, run });
    return true;
  }
}

export interface SchedulePolicy {
  slots: Slots;
  rerun: Rerun;
  /** How old a slot may be that was missed; undefined: only the latest one is caught up. */
  catchUpMs: number | undefined;
}

/** The wall clock may be stepped, and the machine be asleep: look at it this often. */
const LOOK_AT_CLOCK_MS = 1000;

/** --schedule: the leader runs each slot as it comes, and what was missed while nobody led. */
export class Schedule extends Recorded {
  readonly repeats = true;
  readonly #policy: SchedulePolicy;
  #announced: number | undefined;
  /** Of those that were run, that of the latest slot. */
  #last: Run | undefined;

  constructor(backend: Backend, requestMs: number, report: Report, policy: SchedulePolicy) {
    super(backend, requestMs, report);
    this.#policy = policy;
  }

  async isSettled(): Promise<boolean> {
    return false;
  }

  async next(leader: Leader, signal: AbortSignal): Promise<Due | undefined> {
    await this.#beginBook(leader.place, signal);
    await this.settle(leader.place, signal);
    for (;;) {
      // What is due now is so however long the store takes.
      const at = Date.now();
      const due = await this.begin(leader, (book) => this.#dueIn(book, leader.token, at), signal);
      if (due) return due;
      const nextAt = this.#policy.slots.next(Date.now());
      if (nextAt === undefined) return undefined;
      this.#announce(nextAt);
      while (Date.now() < nextAt) {
        await pause(Math.min(nextAt - Date.now(), LOOK_AT_CLOCK_MS), signal);
        signal.throwIfAborted();
        // Set back so far that another slot comes first.
        if (this.#policy.slots.next(Date.now())! < nextAt) break;
      }
    }
  }

  /** Another's clock may have been ahead of ours. */
  #announce(nextAt: number): void {
    const lastAt = this.#last ? Date.parse(this.#last.slot) : nextAt;
    const at = lastAt < nextAt ? nextAt : (this.#policy.slots.next(lastAt) ?? nextAt);
    if (at === this.#announced) return;
    this.#announced = at;
    if (this.#last) this.warnIfAhead(this.#last);
    this.report({ type: 'scheduled', slot: slotName(at) });
  }

  /** What was scheduled before there was any leader was not missed. */
  async #beginBook(place: Place, signal: AbortSignal): Promise<void> {
    const since = new Date().toISOString();
    await this.runs.change(
      place,
      (book) => (book.since || book.runs.length > 0 ? undefined : { ...book, since }),
      signal,
    );
  }

  #dueIn({ runs, since }: RunBook, token: string, at: number): string | undefined {
    const { slots, rerun, catchUpMs } = this.#policy;
    this.#last = runs.toSorted((one, other) => (one.slot < other.slot ? -1 : 1)).at(-1);
    const last = this.#last?.slot;
    // A run of our own that has failed is for the next leader to repeat.
    const isOpen = !runs.some((run) => run.slot === last && (isSettled(run, rerun) || run.token === token));
    const open = last !== undefined && isOpen ? Date.parse(last) : undefined;
    const after = Date.parse(last ?? since!);
    const latest = slots.latest(at);
    if (catchUpMs === undefined) return named(latest !== undefined && latest > after ? latest : open);
    // One that we have waited for was not missed.
    const oldest = at - Math.max(catchUpMs, LOOK_AT_CLOCK_MS);
    if (open !== undefined && open >= oldest) return named(open);
    const missed = slots.next(Math.max(after, oldest - 1));
    return named(missed !== undefined && missed <= at ? missed : undefined);
  }
}

const named = (slot: number | undefined): string | undefined => (slot === undefined ? undefined : slotName(slot));
