import { slotsHoldWith } from './cases.ts';
import { CRON_STORES } from './stores.ts';

slotsHoldWith(CRON_STORES.kubernetes);
