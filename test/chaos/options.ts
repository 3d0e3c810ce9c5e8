import { parseArgs } from 'node:util';
import { whatIsMissing } from '../helpers/tools.ts';
import { FAULT_NAMES } from './faults.ts';
import { MUTATIONS } from './mutations.ts';
import { STORES } from './stores.ts';

const names = STORES.map(({ name }) => name);
const mutations = MUTATIONS.map(({ name }) => name);

export const USAGE = `npm run chaos -- [options]
  --store LIST       of ${names.join(', ')}; default: all that can be had here
  --minutes N        how long altogether; default: 5
  --lanes N          so many stores at once; default: 3
  --candidates N     for each election; default: 3
  --seed TEXT        what the nemesis does, and when, is drawn from it; default: a new one
  --episode N        this election of that seed only
  --fault LIST       only these, by the names in the table
  --mutate LIST|all  with one safety rule less at a time, which has to be found: ${mutations.join(', ')}
  --keep-going       a store is not left alone when something was found, for counts over a long time
  --no-namespaces    on loopback with proxies, also as root`;

export interface Chosen {
  stores: string[];
  minutes: number;
  lanes: number;
  candidates: number;
  seed: string;
  episode: number | undefined;
  faults: string[];
  mutations: typeof MUTATIONS;
  keepsGoing: boolean;
  hasNamespaces: boolean;
}

const parse = (args: string[]) =>
  parseArgs({
    args,
    options: {
      store: { type: 'string' },
      minutes: { type: 'string', default: '5' },
      lanes: { type: 'string', default: '3' },
      candidates: { type: 'string', default: '3' },
      seed: { type: 'string', default: Math.random().toString(36).slice(2, 8) },
      episode: { type: 'string' },
      fault: { type: 'string' },
      mutate: { type: 'string' },
      'keep-going': { type: 'boolean', default: false },
      'no-namespaces': { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  }).values;

/** A text says what is wrong with them; an empty one asks for help. */
export function readOptions(args: string[]): Chosen | string {
  let values: ReturnType<typeof parse>;
  try {
    values = parse(args);
  } catch (error) {
    return (error as Error).message;
  }
  if (values.help) return '';
  const [minutes, lanes, candidates] = [values.minutes, values.lanes, values.candidates].map(Number) as [
    number,
    number,
    number,
  ];
  const stores = values.store?.split(',') ?? names;
  const unknown = stores.find((name) => !names.includes(name));
  if (unknown !== undefined) return `there is no store ${unknown}`;
  const wanted = values.mutate === 'all' ? mutations : (values.mutate?.split(',') ?? []);
  const strange = wanted.find((name) => !mutations.includes(name));
  if (strange !== undefined) return `there is no mutation "${strange}"`;
  const faults = values.fault?.split(',') ?? FAULT_NAMES;
  const odd = faults.find((name) => !FAULT_NAMES.includes(name));
  if (odd !== undefined) return `there is no fault "${odd}"`;
  if (values.seed === '') return '--seed is empty';
  if (!(minutes > 0)) return '--minutes is a number above 0';
  if (!(lanes >= 1 && Number.isInteger(lanes))) return '--lanes is a whole number from 1';
  if (!(candidates >= 2 && candidates <= 20 && Number.isInteger(candidates)))
    return '--candidates is a whole number from 2 to 20';
  const episode = values.episode === undefined ? undefined : Number(values.episode);
  if (episode !== undefined && !(episode >= 1 && Number.isInteger(episode)))
    return '--episode is a whole number from 1';
  return {
    stores,
    minutes,
    lanes,
    candidates,
    seed: values.seed,
    episode,
    faults,
    mutations: MUTATIONS.filter(({ name }) => wanted.includes(name)),
    keepsGoing: values['keep-going'],
    hasNamespaces: !values['no-namespaces'] && whatIsMissing(['netns']) === undefined,
  };
}
