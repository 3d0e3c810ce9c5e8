import { createHash } from 'node:crypto';
import { formatDuration } from '../../durations.ts';
import type { Snapshot } from './history.ts';
import template from './page.html';

/** What the script of the page is given as JSON. */
export type Shown = Snapshot & { election: string; budgetMs: number; ttlMs: number };

/** Only our own script and style, by their hash: whatever text another candidate has for a name, nothing of it runs. */
export const PAGE_POLICY = [
  "default-src 'none'",
  `script-src ${hashOf('script')}`,
  `style-src ${hashOf('style')}`,
  "connect-src 'self'",
  'img-src data:',
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

function hashOf(element: 'script' | 'style'): string {
  const [, text] = new RegExp(`<${element}>(.*?)</${element}>`, 's').exec(template)!;
  return `'sha256-${createHash('sha256').update(text!).digest('base64')}'`;
}

/** The page as it is without its script: the same in words. */
export function renderPage(shown: Shown): string {
  const { election, backend, id, spans } = shown;
  const rows = spans
    .toReversed()
    .map((span) => [
      span.kind === 'leader' ? nameOf(span.leader) : span.kind === 'nobody' ? 'nobody' : 'not known',
      `${formatDuration(span.fromMs)} ago`,
      formatDuration(span.fromMs - span.toMs),
    ])
    .map((cells) => `<tr>${cells.map((cell) => `<td>${escaped(cell)}</td>`).join('')}</tr>`);
  const values: Record<string, string> = {
    TITLE: escaped(`${headline(shown)} · ${election}`),
    HEADLINE: escaped(headline(shown)),
    ELECTION: escaped(election),
    BACKEND: escaped(backend),
    ID: escaped(id),
    ROWS: rows.join(''),
  };
  return template.replace(/\{\{(\w+)\}\}/g, (_, key: string) => values[key]!);
}

function headline({ state, leads, leader }: Shown): string {
  if (leads) return 'This candidate leads';
  if (leader !== null) return `${nameOf(leader)} leads`;
  return state === 'unreachable' ? 'The store cannot be reached' : 'Nobody is known to lead';
}

const nameOf = (leader: string | null): string => leader || 'somebody whose name the store does not tell';

const escaped = (text: string): string => text.replace(/[&<>"'{}]/g, (character) => `&#${character.charCodeAt(0)};`);
