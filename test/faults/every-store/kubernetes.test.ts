import { holdsWith } from './cases.ts';
import { KUBERNETES } from './stores.ts';

holdsWith(KUBERNETES);
