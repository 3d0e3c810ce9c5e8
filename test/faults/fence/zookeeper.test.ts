import { CRON_STORES } from '../cron/stores.ts';
import { fencesWith } from './cases.ts';

fencesWith(CRON_STORES.zookeeper);
