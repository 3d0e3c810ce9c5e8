import { request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';
import type { Elect } from './elect.ts';
import { until } from './procs.ts';

/** What `--listen 0` came to. */
export const urlOf = async (candidate: Elect): Promise<string> => String((await candidate.event('listening')).url);

export interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  text: string;
}

export function ask(url: string, path: string, options: { method?: string; host?: string } = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = options.host === undefined ? {} : { host: options.host };
    const { hostname, port } = new URL(url);
    const asked = request(
      { hostname, port, path, headers, method: options.method ?? 'GET', agent: false },
      (answer) => {
        let text = '';
        answer.setEncoding('utf8').on('data', (chunk) => {
          text += chunk;
        });
        answer.on('end', () => resolve({ status: answer.statusCode!, headers: answer.headers, text }));
      },
    );
    asked.on('error', reject);
    asked.end();
  });
}

export const get = async (candidate: Elect, path: string): Promise<Answer> => ask(await urlOf(candidate), path);

export const getJson = async (candidate: Elect, path: string) => JSON.parse((await get(candidate, path)).text);

/** The value of each sample, by its name and the labels that not all have; those of a histogram, too. */
export async function metricsOf(candidate: Elect): Promise<Record<string, number>> {
  const { text } = await get(candidate, '/metrics');
  const samples = [...text.matchAll(/^(\w+)\{(.*)\} (\S+)$/gm)].map(([, name, labels, value]) => {
    const own = labels!.replace(/,?(election|backend)="(\\.|[^"\\])*"/g, '').replace(/^,/, '');
    return [own ? `${name}{${own}}` : name!, Number(value)] as const;
  });
  return Object.fromEntries(samples);
}

export const untilMetric = (candidate: Elect, name: string, fits: (value: number) => boolean) =>
  until(async () => {
    const value = (await metricsOf(candidate))[name];
    return value !== undefined && fits(value);
  }, `${name} is as expected`);

/** A connection of a client that follows no rules. Resolves once it stands. */
export async function rawClient(url: string): Promise<Socket & { heard: string; isOver: boolean }> {
  const { hostname, port } = new URL(url);
  const socket = Object.assign(connect(Number(port), hostname), { heard: '', isOver: false });
  socket.on('data', (chunk) => {
    socket.heard += chunk.toString('latin1');
  });
  socket.on('error', () => {});
  socket.on('close', () => {
    socket.isOver = true;
  });
  onTestFinished(() => void socket.destroy());
  await new Promise<void>((resolve) => {
    socket.once('connect', resolve);
    socket.once('close', () => resolve());
  });
  return socket;
}
