import type { Config } from '../config.ts';
import type { Report } from '../events.ts';
import type { ListenAddress } from '../listen.ts';
import { type Health, liveness, readiness } from './monitor/health.ts';
import { History } from './monitor/history.ts';
import { Metrics } from './monitor/metrics.ts';
import { PAGE_POLICY, renderPage, type Shown } from './monitor/page.ts';
import { json, plain, serve } from './monitor/server.ts';

/** What `--listen` serves, made from events. Whoever asks is answered from memory: no request of theirs becomes one to the store. */
export async function monitorReporter(address: ListenAddress, config: Config): Promise<{ url: string; take: Report }> {
  const { election, id, timing, readyOn } = config;
  const history = new History(id);
  const metrics = new Metrics(history, election, timing);
  const shown = (): Shown => ({ ...history.snapshot(), election, budgetMs: timing.requestMs, ttlMs: timing.ttlMs });
  const health = ({ ok, text }: Health) => plain(ok ? 200 : 503, text);
  const url = await serve(address, {
    '/': () => ({ type: 'text/html; charset=utf-8', body: renderPage(shown()), policy: PAGE_POLICY }),
    '/state.json': () => json(shown()),
    '/leader': () => json(leaderOf(history, id)),
    '/livez': () => health(liveness(history)),
    '/readyz': () => health(readiness(history, readyOn)),
    '/metrics': async () => ({ type: metrics.contentType, body: await metrics.text() }),
  });
  return {
    url,
    take: (event) => {
      history.take(event);
      metrics.take(event);
    },
  };
}

/** `name`: what the leader-elector sidecar of Kubernetes answered. */
function leaderOf({ leader, leads, token, since }: History, id: string) {
  return { name: leader?.leader ?? '', id, leading: leads, token: token || null, since: (leader && since) ?? null };
}
