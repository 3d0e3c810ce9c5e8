import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { now } from '../../clock.ts';
import type { Event } from '../../events.ts';
import type { Timing } from '../../timing.ts';
import type { History } from './history.ts';

const RENEWAL_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const CAMPAIGN_BUCKETS = [0.01, 0.1, 1, 10, 60, 600, 3600, 86_400];

/** What Prometheus is told. What the history knows already is read from it when it is asked for. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #history: History;
  readonly #renewal: Histogram;
  readonly #campaign: Histogram;
  readonly #election: string;
  #campaignSince = now();

  constructor(history: History, election: string, { ttlMs, requestMs }: Timing) {
    this.#history = history;
    this.#election = election;
    const registers = [this.#registry];
    const gauge = (name: string, help: string, read: () => number) =>
      new Gauge({
        name,
        help,
        registers,
        collect() {
          this.set(read());
        },
      });
    const counter = (name: string, help: string, read: () => number) =>
      new Counter({
        name,
        help,
        registers,
        collect() {
          this.reset();
          this.inc(read());
        },
      });

    gauge('elect_run_leader', '1 while this candidate leads, else 0', () => (history.leads ? 1 : 0));
    gauge(
      'elect_run_token',
      'Fencing token of this candidate while it leads, else 0; exact up to 2^53, see elect_run_leader_info',
      () => Number(history.token),
    );
    new Gauge({
      name: 'elect_run_leader_info',
      help: 'Who leads as this candidate sees it, and, while that is itself, with which token; absent when nobody is known',
      labelNames: ['leader', 'token'],
      registers,
      collect() {
        this.reset();
        const { leader } = history;
        if (leader) this.set({ leader: leader.leader!, token: leader.token ?? '' }, 1);
      },
    });
    counter(
      'elect_run_transitions_total',
      'Changes of leadership that this candidate has seen, its own elections among them',
      () => history.transitions,
    );
    counter(
      'elect_run_leaderless_seconds_total',
      'For how long this candidate has seen the election without a leader',
      () => history.leaderlessMs / 1000,
    );
    this.#renewal = new Histogram({
      name: 'elect_run_renewal_duration_seconds',
      help: 'How long confirmed renewals of the leadership took',
      buckets: RENEWAL_BUCKETS,
      registers,
    });
    gauge(
      'elect_run_renewal_budget_seconds',
      'How long a renewal may take before it counts as unanswered',
      () => requestMs / 1000,
    );
    gauge('elect_run_ttl_seconds', 'Length of the lease that is asked for', () => ttlMs / 1000);
    gauge(
      'elect_run_last_renewal_age_seconds',
      'Since the last confirmed renewal of the leadership was sent; 0 while not leading',
      () => (history.unconfirmedMs ?? 0) / 1000,
    );
    counter(
      'elect_run_suspensions_total',
      'How often leadership was in doubt because a renewal went unanswered',
      () => history.suspensions,
    );
    this.#campaign = new Histogram({
      name: 'elect_run_campaign_duration_seconds',
      help: 'From the beginning of a campaign to being elected',
      buckets: CAMPAIGN_BUCKETS,
      registers,
    });
    counter('elect_run_child_starts_total', 'Starts of the command', () => history.childStarts);
    new Counter({
      name: 'elect_run_child_exits_total',
      help: 'Ends of the command: success and failure by its own status, signal, lost (leadership was, and it was stopped), stop-timeout',
      labelNames: ['cause'],
      registers,
      collect() {
        this.reset();
        for (const [cause, count] of Object.entries(history.childExits)) this.inc({ cause }, count);
      },
    });
    counter(
      'elect_run_leftover_processes_total',
      'Processes that the command left behind and elect-run ended',
      () => history.leftovers,
    );
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  take(event: Event): void {
    switch (event.type) {
      case 'campaigning':
        this.#campaignSince = now();
        return;
      case 'elected':
        this.#campaign.observe((now() - this.#campaignSince) / 1000);
        return;
      case 'renewed':
        this.#renewal.observe(event.tookMs / 1000);
        return;
      case 'deposed':
      case 'resigned':
      case 'left-to-expire':
        this.#campaignSince = now();
        return;
    }
  }

  text(): Promise<string> {
    this.#registry.setDefaultLabels({ election: this.#election, backend: this.#history.backend });
    return this.#registry.metrics();
  }
}
