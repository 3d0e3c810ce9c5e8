// Does one thing again and again, in a Node that collects garbage when told to.
import { setMaxListeners } from 'node:events';
import { soakGuard } from './guard.ts';
import { soakRenewals } from './renewals.ts';
import { soakSlots } from './slots.ts';
import { soakStandby } from './standby.ts';
import type { Task } from './task.ts';

const SOAKS = { renewals: soakRenewals, standby: soakStandby, slots: soakSlots, guard: soakGuard };

const task = JSON.parse(process.argv[2]!) as Task;
setMaxListeners(0); // as main.ts does
await SOAKS[task.what](task);
process.exit();
