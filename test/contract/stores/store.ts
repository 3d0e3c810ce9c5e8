import type { BackendSpec } from '../../../src/backends/spec.ts';
import type { Server } from '../../helpers/servers.ts';
import type { Need } from '../../helpers/tools.ts';

/** A real store, as the contract suite wants it. */
export interface Store {
  spec: BackendSpec;
  /** Whether the store itself tells a leader that it leads no more, or only the next renewal does. */
  tellsAtOnce: boolean;
  /** Takes from the store what makes this candidate the leader, as an operator would. */
  depose(handle: unknown, election: string): Promise<void>;
  /** Undefined: there are none, so that it can neither fall silent nor be restarted. `heal`: all run and answer. */
  servers: { readonly members: readonly Server[]; heal(): Promise<void> } | undefined;
  end(): Promise<void>;
}

export interface StoreKind {
  name: string;
  needs: Need[];
  start(): Promise<Store>;
}
