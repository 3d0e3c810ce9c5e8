import { readFileSync } from 'node:fs';

/** The files that a page of the documentation consists of: its fenced blocks that have a name behind the language. */
export function filesOf(page: string): Record<string, string> {
  const text = readFileSync(new URL(`../../docs/${page}`, import.meta.url), 'utf8');
  const blocks = text.matchAll(/^```\w+ (\S+)\n(.*?)^```$/gms);
  return Object.fromEntries([...blocks].map(([, name, content]) => [name!, content!]));
}
