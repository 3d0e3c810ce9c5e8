/**
 * The record of client-go's leader election in a Lease (coordination.k8s.io/v1), and its rules
 * (k8s.io/client-go/tools/leaderelection/leaderelection.go). Plain JSON as the API server sent it: fields that are not ours stay.
 */
export interface Lease {
  metadata: { name: string; uid?: string; resourceVersion?: string; [field: string]: unknown };
  spec?: LeaseSpec;
  [field: string]: unknown;
}

export interface LeaseSpec {
  holderIdentity?: string | null;
  leaseDurationSeconds?: number | null;
  acquireTime?: string | null;
  renewTime?: string | null;
  leaseTransitions?: number | null;
  [field: string]: unknown;
}

/** What was seen last, and until when its holder may believe to lead. */
export interface Observation {
  record: string;
  /** A `now()`. */
  runsOutAt: number;
}

/** '' : nobody leads. */
export const holderOf = (lease: Lease | undefined): string => lease?.spec?.holderIdentity ?? '';

/** How long the record has to stand unchanged before others may take over: its own word, not ours. */
export const durationMsOf = (lease: Lease): number => (lease.spec?.leaseDurationSeconds ?? 0) * 1000;

/**
 * Notes what was seen (undefined: no Lease) at a `now()`. A changed record starts its time anew; only a leader that gave the Lease back ends it early. One that an operator
 * deleted or emptied was not given back: the leader that we saw may just be ending its job, so its time runs on.
 */
export function observed(before: Observation | undefined, lease: Lease | undefined, at: number): Observation {
  const record = lease ? recordOf(lease) : 'none';
  if (before?.record === record) return before;
  if (lease && isReleased(lease)) return { record, runsOutAt: at };
  const heldMs = lease && holderOf(lease) !== '' ? durationMsOf(lease) : 0;
  return { record, runsOutAt: Math.max(before?.runsOutAt ?? at, at + heldMs) };
}

/** Others may write to the object without renewing: only these fields are the record. */
export function recordOf({ spec = {} }: Lease): string {
  const { holderIdentity, leaseDurationSeconds, acquireTime, renewTime, leaseTransitions } = spec;
  return JSON.stringify([holderIdentity, leaseDurationSeconds, acquireTime, renewTime, leaseTransitions]);
}

/** The lease as its new holder writes it, or as its holder writes it again after its answer was lost. */
export function acquired(lease: Lease, holder: string, seconds: number): Lease {
  const before = lease.spec ?? {};
  const transitions = before.leaseTransitions ?? 0;
  const isOurs = holderOf(lease) === holder;
  const renewTime = isOurs ? laterThan(before.renewTime) : microTime(Date.now());
  const isNew = lease.metadata.resourceVersion === undefined;
  return withSpec(lease, {
    holderIdentity: holder,
    leaseDurationSeconds: seconds,
    acquireTime: isOurs ? (before.acquireTime ?? renewTime) : renewTime,
    renewTime,
    leaseTransitions: isOurs || isNew ? transitions : transitions + 1,
  });
}

export const renewed = (lease: Lease, seconds: number): Lease =>
  withSpec(lease, { leaseDurationSeconds: seconds, renewTime: laterThan(lease.spec?.renewTime) });

const RELEASED_SECONDS = 1;

/** As client-go's ReleaseOnCancel leaves it. */
export function released(lease: Lease): Lease {
  const time = microTime(Date.now());
  return withSpec(lease, {
    holderIdentity: '',
    leaseDurationSeconds: RELEASED_SECONDS,
    acquireTime: time,
    renewTime: time,
  });
}

const isReleased = (lease: Lease): boolean =>
  holderOf(lease) === '' && lease.spec?.leaseDurationSeconds === RELEASED_SECONDS;

const withSpec = (lease: Lease, spec: LeaseSpec): Lease => ({ ...lease, spec: { ...lease.spec, ...spec } });

/** A MicroTime has exactly six decimals: the API server refuses three. */
export const microTime = (at: number): string => new Date(at).toISOString().replace('Z', '000Z');

/**
 * client-go compares records in whole seconds (its record holds a metav1.Time). A renewal within the second of the one before would be none to it,
 * and it would count from the earlier one: so this moves by a second at least, also where the wall clock was set back.
 */
function laterThan(before: string | null | undefined): string {
  const beforeAt = Math.floor(Date.parse(before ?? '') / 1000) * 1000;
  return microTime(Math.max(Date.now(), Number.isNaN(beforeAt) ? 0 : beforeAt + 1000));
}
