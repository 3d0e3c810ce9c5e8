import { rmSync } from 'node:fs';
import { type BrowserContext, chromium, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, expect, onTestFinished, test } from 'vitest';
import { type Elect, elect, endAll } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { newFolder } from '../helpers/folders.ts';
import { get, urlOf } from '../helpers/http.ts';
import { describeWith } from '../helpers/needs.ts';
import { scratch } from '../helpers/scratch.ts';
import { stopServers } from '../helpers/servers.ts';
import { CHROMIUM } from '../helpers/tools.ts';

const SLEEP = ['sleep', '1000'];
const BROWSER = [
  ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
  ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
];

afterEach(endAll);
afterAll(stopServers);

describeWith(['chromium', 'etcd', 'etcdctl'], 'the page, in Chromium', () => {
  const profile = newFolder('chromium');
  let etcd: Etcd;
  let browser: BrowserContext;
  beforeAll(async () => {
    etcd = await Etcd.start();
    browser = await chromium.launchPersistentContext(profile, { executablePath: CHROMIUM, args: BROWSER });
  });
  afterAll(async () => {
    await browser?.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  });

  const opened: Page[] = [];
  let complaints: string[] = [];
  // Before the candidates end, which a page would complain of.
  afterEach(async () => {
    for (const page of opened.splice(0)) await page.close();
    const all = complaints;
    complaints = [];
    expect(all).toEqual([]);
  });

  /** The page of a candidate. Whatever the browser complains of (a script's fault, a broken policy, a missing file), fails the test. */
  async function open(candidate: Elect): Promise<Page> {
    const page = await browser.newPage();
    opened.push(page);
    page.on('console', (message) => complaints.push(message.text()));
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('dialog', (dialog) => complaints.push(dialog.message()));
    await page.exposeFunction('complain', (violation: string) => complaints.push(violation));
    await page.addInitScript(
      "addEventListener('securitypolicyviolation', (event) => complain(event.violatedDirective + ' ' + event.blockedURI))",
    );
    await page.goto(await urlOf(candidate));
    return page;
  }

  const stand = (name: string, id: string, ...flags: string[]) =>
    elect(['-b', etcd.url, '-n', name, '--id', id, '--listen', '0', ...flags, '--', ...SLEEP]);

  const says = (page: Page, selector: string, text: string | RegExp) =>
    page.locator(selector).filter({ hasText: text }).first().waitFor();

  test('shows who leads, and updates by itself after a hand-over, with the gap', async () => {
    const first = stand('shown', 'first');
    const { id } = await first.event('elected');
    const second = stand('shown', 'second');
    await second.event('standby');
    const page = await open(second);
    await says(page, '#headline', `${id} leads`);
    await says(page, '#role', /this candidate stands by, number 2 in line · second-/);
    expect(await page.title()).toBe(`${id} leads · shown`);

    first.kill('SIGKILL');
    const elected = await second.event('elected');
    await says(page, '#headline', `${elected.id} leads`);
    await says(page, '#role', 'this candidate');
    await says(page, '#facts', `fencing token${elected.token}`);
    expect(await page.title()).toBe(`${elected.id} leads · shown`);
    const names = await page.locator('#spans tr td:first-child').allTextContents();
    expect(names.slice(0, 3)).toEqual([`${elected.id}this candidate`, 'nobody', id]);
    expect(await page.locator('#timeline rect.nobody').count()).toBe(1);
    expect(await page.locator('#timeline text.name').allTextContents()).toEqual([
      id,
      expect.stringMatching(`${elected.id}`),
    ]);
    await says(page, '#summary', '1 change of leader, 1 gap');
  });

  test('shows renewals against their budget, doubt, and the loss', async () => {
    const run = stand('doubt', 'first', '--ttl', '9s', '--renew-every', '500ms', '--on-lost', 'rejoin'); // the page looks every 2 s
    await run.event('started');
    const page = await open(run);
    await says(page, '#slowest', /the slowest \d+ ms of 500 ms/);
    await says(page, '#latency text', 'counts as unanswered after 500 ms');
    await page.locator('#latency rect.fast').first().waitFor();
    await etcd.members[0]!.freeze();
    await says(page, '#headline', 'Leadership is in doubt');
    await page.locator('#latency rect.doubt').first().waitFor();
    await says(page, '#runs', 'stopped: leadership lost');
    await says(page, '#headline', 'The store cannot be reached');
    await etcd.heal();
    await says(page, '#headline', /^first-\S+ leads$/);
    await page.locator('#timeline rect.unknown').nth(1).waitFor();
  });

  test('a name of HTML, control characters and a turned direction is text, and runs nothing', async () => {
    const name = '<img src=x onerror=complain(1)><script>complain(2)</script>';
    await etcd.etcdctl('put', 'evil/1', `${name}\u0007\u001b[31m\n\u202e{{ROWS}}`);
    const run = stand('evil', 'good');
    await run.event('standby');
    const page = await open(run);
    await says(page, '#headline', `${name}??[31m?`);
    await says(page, '#spans', name);
    await says(page, '#timeline', name.slice(0, 20));
    expect(await page.locator('img, script:not(body > script)').count()).toBe(0);
    expect(await page.title()).toContain(name);
  });

  test('without JavaScript the same stands there in words', async () => {
    const first = stand('words', 'first');
    await first.event('started');
    const second = stand('words', '<b>second');
    await second.event('standby');
    const context = await browser.browser()!.newContext({ javaScriptEnabled: false });
    onTestFinished(() => context.close());
    const page = await context.newPage();
    await page.goto(await urlOf(second));
    await says(page, '#headline', /^first-\S+ leads$/);
    await says(page, '#role', /seen by <b>second-/);
    await says(page, '.without-script', /first-\S+/);
    expect(await page.locator('#timeline').isVisible()).toBe(false);
    expect(await page.locator('meta[http-equiv=refresh]').count()).toBe(1);
  });

  test('says so when the candidate is gone', async () => {
    const run = elect(['-b', `file:${scratch()}`, '-n', 'job', '--listen', '0', '--', ...SLEEP]);
    const { id } = await run.event('elected');
    const page = await browser.newPage(); // it will complain of the connection
    onTestFinished(() => page.close());
    await page.goto(await urlOf(run));
    await says(page, '#headline', `${id} leads`); // by its script
    run.kill('SIGTERM');
    await says(page, '#lost', /does not answer any more; what follows was seen at/);
  });

  test.each([
    ['light', 1200],
    ['dark', 390],
  ] as const)(
    'has no control without a name, no text that is hard to read and no sideways scrolling: %s, %i px',
    async (colorScheme, width) => {
      const first = stand(`shape-${width}`, 'a-host-with-a-rather-long-name.internal.example.org');
      await first.event('started');
      const page = await open(first);
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 900 });
      await says(page, '#headline', /^a-host\S+ leads$/); // by its script
      expect(await page.evaluate('document.documentElement.scrollWidth <= innerWidth')).toBe(true);
      expect(await page.evaluate(CONTRASTS)).toEqual([]);
      for (const svg of ['#timeline', '#latency'])
        expect(await page.locator(svg).getAttribute('aria-label')).toMatch(/hour|Renewals/);
      expect(await page.locator('h1').count()).toBe(1);
      expect(await page.locator('html').getAttribute('lang')).toBe('en');
    },
  );

  test('loads nothing from elsewhere', async () => {
    const run = stand('own', 'first');
    await run.event('started');
    expect((await get(run, '/')).text.match(/(?:src|href)="(?!\/|data:)[^"]*"|url\(|@import/g)).toBe(null);
  });
});

/** Texts whose contrast to what is behind them is below 4.5 to 1 (WCAG 2.2, 1.4.3). */
const CONTRASTS = `(() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = numbers(colour).map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (numbers(colour)[3] !== 0) return colour;
    }
  };
  return [...document.querySelectorAll('main *')]
    .filter((node) => node.checkVisibility() && [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
    .flatMap((node) => {
      const style = getComputedStyle(node);
      const [a, b] = [node instanceof SVGElement ? style.fill : style.color, behind(node)].map(luminance).sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05) < 4.5 ? [node.tagName + ' ' + node.textContent] : [];
    });
})()`;
