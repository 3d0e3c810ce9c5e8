import type { Oracle } from '../helpers/oracle.ts';
import { until } from '../helpers/procs.ts';

/** Somebody who stands in line: how to enter, and how to end its term once its job has started. */
export interface Contender {
  enter(): Promise<void> | void;
  leave(job: number): Promise<void> | void;
}

/** Each works in its turn, in the order in which they came, and never two. */
export async function takeTurns(
  oracle: Oracle,
  contenders: Contender[],
  entered: (count: number) => Promise<void>,
): Promise<void> {
  for (const [index, contender] of contenders.entries()) {
    await contender.enter();
    if (index === 0) await oracle.started(1);
    await entered(index + 1);
  }
  for (const [index, contender] of contenders.entries()) {
    const { pid } = await oracle.started(index + 1);
    await contender.leave(pid);
  }
  await until(() => oracle.workers().length === 0, 'the end of the last job');
  oracle.verify(contenders.length);
}
