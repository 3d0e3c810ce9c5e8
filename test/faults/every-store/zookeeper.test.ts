import { holdsWith } from './cases.ts';
import { ZOOKEEPER } from './stores.ts';

holdsWith(ZOOKEEPER);
