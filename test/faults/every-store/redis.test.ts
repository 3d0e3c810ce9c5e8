import { holdsWith } from './cases.ts';
import { REDIS } from './stores.ts';

holdsWith(REDIS);
