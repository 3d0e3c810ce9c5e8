import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { load } from 'js-yaml';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { BIN, elect, endAll, NODE } from '../helpers/elect.ts';
import { newFolder } from '../helpers/folders.ts';
import { filesOf } from '../helpers/guide.ts';
import { get } from '../helpers/http.ts';
import { describeWith } from '../helpers/needs.ts';
import { scratch, script } from '../helpers/scratch.ts';

interface Rules {
  groups: { rules: { alert: string; expr: string }[] }[];
}
interface Dashboard {
  panels: {
    title: string;
    targets: { refId: string; expr: string }[];
    gridPos: Record<'x' | 'y' | 'w' | 'h', number>;
  }[];
}

const PAGE = 'guides/monitoring.md';
const RULES = 'elect-run.rules.yml';
const files = filesOf(PAGE);
const rules = (load(files[RULES]!) as Rules).groups.flatMap((group) => group.rules);
const dashboard = JSON.parse(files['dashboard.json']!) as Dashboard;
const targets = dashboard.panels.flatMap((panel) => panel.targets);

const metricsIn = (text: string): string[] => [...new Set(text.match(/\belect_run_\w+/g))].sort();

/** In a folder with the guide's files and this one. */
function promtool(args: string[], more: Record<string, unknown> = {}): string {
  const cwd = scratch();
  for (const [name, text] of Object.entries(files)) writeFileSync(join(cwd, name), text);
  for (const [name, content] of Object.entries(more)) writeFileSync(join(cwd, name), JSON.stringify(content)); // YAML, too
  return execFileSync('promtool', args, { cwd, encoding: 'utf8', stdio: 'pipe' });
}

describe('docs/guides/monitoring.md', () => {
  afterEach(endAll);

  let exposed: string[];
  beforeAll(async () => {
    const run = elect(['-b', `file:${newFolder('monitoring')}`, '-n', 'job', '--listen', '0', '--', 'sleep', '1000']);
    await run.event('started');
    exposed = [...(await get(run, '/metrics')).text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name!).sort();
    await endAll();
  });

  test('names each metric that there is, and no other', () => {
    const table = readFileSync(new URL(`../../docs/${PAGE}`, import.meta.url), 'utf8').matchAll(
      /^\| `(elect_run_\w+)`/gm,
    );
    expect([...table].map(([, name]) => name).sort()).toEqual(exposed);
  });

  test('uses in alerts and dashboard only what there is', () => {
    const used = metricsIn([...rules, ...targets].map(({ expr }) => expr).join('\n'));
    expect(used.length).toBeGreaterThan(8);
    const known = [...exposed, ...metricsIn(files['stale-tokens.sh']!)];
    for (const name of used) expect(known).toContain(name.replace(/_bucket$/, ''));
  });

  test('has a dashboard whose panels do not overlap, and whose targets can be told apart', () => {
    for (const { title, gridPos, targets } of dashboard.panels) {
      expect(new Set(targets.map(({ refId }) => refId)).size, title).toBe(targets.length);
      const overlapping = dashboard.panels.filter(
        ({ gridPos: other }) =>
          gridPos.x < other.x + other.w &&
          other.x < gridPos.x + gridPos.w &&
          gridPos.y < other.y + other.h &&
          other.y < gridPos.y + gridPos.h,
      );
      expect(overlapping.map((panel) => panel.title)).toEqual([title]);
      expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24);
    }
  });

  describeWith(['promtool', 'jq'], 'stale-tokens.sh', () => {
    test('tells how many stale tokens each target has refused, as Prometheus reads it', async () => {
      const dir = scratch();
      script(dir, 'elect-run', `#!/bin/sh\nexec '${NODE}' '${BIN}' "$@"\n`);
      const program = script(dir, 'stale-tokens.sh', files['stale-tokens.sh']!);
      const [refusing, other] = [join(dir, 'refusing'), join(dir, 'an"other')];
      for (const [target, token] of [
        [refusing, 5],
        [refusing, 4],
        [refusing, 3],
        [other, 1],
      ] as const)
        await elect(['fence', target, '--', 'true'], { env: { FENCING_TOKEN: String(token) } }).ended;
      const env = { ...process.env, PATH: `${dir}:${process.env.PATH}` };
      const told = execFileSync(program, [refusing, other], { env, encoding: 'utf8' });
      expect(told.split('\n').filter((line) => !line.startsWith('#'))).toEqual([
        `elect_run_stale_tokens_rejected_total{target="${refusing}"} 2`,
        `elect_run_stale_tokens_rejected_total{target="${other.replace('"', '\\"')}"} 0`,
        '',
      ]);
      expect(execFileSync('promtool', ['check', 'metrics'], { input: told, encoding: 'utf8' })).toBe('');
    });
  });

  describeWith(['promtool'], 'with promtool', () => {
    test('is a configuration and rules that Prometheus takes', () => {
      expect(promtool(['check', 'config', 'prometheus.yml'])).toMatch(/SUCCESS: .*prometheus\.yml/);
      expect(promtool(['check', 'rules', RULES])).toMatch(`SUCCESS: ${rules.length} rules found`);
    });

    test('asks in the dashboard what Prometheus understands', () => {
      const asRules = targets.map(({ expr }, index) => ({
        record: `panel:${index}`,
        expr: expr.replaceAll('$election', '.+'),
      }));
      const group = { groups: [{ name: 'dashboard', rules: asRules }] };
      expect(promtool(['check', 'rules', 'd.yml'], { 'd.yml': group })).toMatch(
        `SUCCESS: ${targets.length} rules found`,
      );
    });

    /** Samples every 15 s, in promtool's shorthand: for so many minutes this value. */
    const stays = (...pieces: [value: number, minutes: number][]) =>
      pieces.map(([value, minutes]) => `${value}+0x${4 * minutes - 1}`).join(' ');
    const grows = (each: number, minutes: number) => `0+${each}x${4 * minutes}`;
    const labels = (instance: string, more = '') =>
      `{election="nightly",backend="etcd://e1:2379",instance="${instance}"${more}}`;
    const a = labels('host-a:9100');
    const b = labels('host-b:9100');

    /** Does it fire at this time? */
    function fires(alert: string, minute: number, series: Record<string, string>): boolean {
      const spec = (firing: object[]) => ({
        rule_files: [RULES],
        evaluation_interval: '15s',
        tests: [
          {
            interval: '15s',
            input_series: Object.entries(series).map(([series, values]) => ({ series, values })),
            alert_rule_test: [{ eval_time: `${minute}m`, alertname: alert, exp_alerts: firing }],
          },
        ],
      });
      try {
        promtool(['test', 'rules', 'test.yml'], { 'test.yml': spec([]) });
        return false;
      } catch (error) {
        const told = String((error as { stderr: unknown }).stderr) + String((error as { stdout: unknown }).stdout);
        expect(told).toMatch(new RegExp(`got:\\[[^]*alertname="${alert}"`));
        return true;
      }
    }

    test('flapping: four changes in an hour, whoever they come from; not three', () => {
      const turns = (count: number, first: number) =>
        stays(...Array.from({ length: count }, (_, n): [number, number] => [n % 2 === first ? n + 5 : 0, 10]));
      expect(
        fires('ElectRunFlapping', 50, { [`elect_run_token${a}`]: turns(5, 0), [`elect_run_token${b}`]: turns(5, 1) }),
      ).toBe(true);
      expect(
        fires('ElectRunFlapping', 40, { [`elect_run_token${a}`]: turns(4, 0), [`elect_run_token${b}`]: turns(4, 1) }),
      ).toBe(false);
      // One candidate that its service manager starts again and again.
      const again = stays([5, 5], [0, 1], [6, 5], [0, 1], [7, 5], [8, 5], [9, 10]);
      expect(fires('ElectRunFlapping', 30, { [`elect_run_token${a}`]: again })).toBe(true);
    });

    test('leaderless: a minute without; not a hand-over, and not one of several that leads', () => {
      const one = stays([1, 10], [0, 10]);
      expect(
        fires('ElectRunLeaderless', 12, { [`elect_run_leader${a}`]: one, [`elect_run_leader${b}`]: stays([0, 20]) }),
      ).toBe(true);
      expect(
        fires('ElectRunLeaderless', 12, {
          [`elect_run_leader${a}`]: one,
          [`elect_run_leader${b}`]: stays([0, 10], [1, 10]),
        }),
      ).toBe(false);
      // Its host is gone: the samples end.
      expect(
        fires('ElectRunLeaderless', 12, {
          [`elect_run_leader${a}`]: `${stays([1, 10])} stale`,
          [`elect_run_leader${b}`]: stays([0, 20]),
        }),
      ).toBe(true);
    });

    test('leaderless in sum: more than a minute of an hour', () => {
      expect(
        fires('ElectRunLeaderlessTooLong', 60, { [`elect_run_leaderless_seconds_total${a}`]: grows(0.3, 60) }),
      ).toBe(true);
      expect(
        fires('ElectRunLeaderlessTooLong', 60, { [`elect_run_leaderless_seconds_total${a}`]: grows(0.2, 60) }),
      ).toBe(false);
    });

    test('two leaders for longer than two scrapes can differ', () => {
      expect(
        fires('ElectRunTwoLeaders', 5, {
          [`elect_run_leader${a}`]: stays([1, 10]),
          [`elect_run_leader${b}`]: stays([1, 10]),
        }),
      ).toBe(true);
      expect(
        fires('ElectRunTwoLeaders', 5, {
          [`elect_run_leader${a}`]: stays([1, 10]),
          [`elect_run_leader${b}`]: stays([0, 10]),
        }),
      ).toBe(false);
    });

    test('slow renewals: the 99th percentile above half of the budget', () => {
      const renewals = (slow: number) => ({
        [`elect_run_renewal_budget_seconds${a}`]: stays([1, 30]),
        [`elect_run_renewal_duration_seconds_bucket${labels('host-a:9100', ',le="0.01"')}`]: grows(3 - slow, 30),
        [`elect_run_renewal_duration_seconds_bucket${labels('host-a:9100', ',le="0.5"')}`]: grows(3 - slow, 30),
        [`elect_run_renewal_duration_seconds_bucket${labels('host-a:9100', ',le="1"')}`]: grows(3, 30),
        [`elect_run_renewal_duration_seconds_bucket${labels('host-a:9100', ',le="+Inf"')}`]: grows(3, 30),
      });
      expect(fires('ElectRunRenewalsSlow', 25, renewals(0.3))).toBe(true);
      expect(fires('ElectRunRenewalsSlow', 25, renewals(0))).toBe(false);
    });

    test('a stale token, also the first one', () => {
      const refused = (series: string) => ({
        'elect_run_stale_tokens_rejected_total{target="/srv/data.fence"}': series,
      });
      expect(fires('ElectRunStaleTokens', 12, refused(stays([0, 10], [1, 5])))).toBe(true);
      expect(fires('ElectRunStaleTokens', 12, refused(stays([7, 15])))).toBe(false);
    });

    test('doubt, and a candidate that is gone', () => {
      expect(
        fires('ElectRunLeadershipInDoubt', 12, { [`elect_run_suspensions_total${a}`]: stays([0, 10], [1, 5]) }),
      ).toBe(true);
      expect(fires('ElectRunLeadershipInDoubt', 12, { [`elect_run_suspensions_total${a}`]: stays([3, 15]) })).toBe(
        false,
      );
      expect(
        fires('ElectRunCandidateDown', 8, { 'up{job="elect-run",instance="host-a:9100"}': stays([1, 1], [0, 10]) }),
      ).toBe(true);
    });
  });
});
