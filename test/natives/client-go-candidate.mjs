// A candidate as client-go's tools/leaderelection/leaderelection.go with a LeaseLock and ReleaseOnCancel is one, function by function, and with nothing
// of elect-run in it: the election that elect-run has to be the same as. It runs a command while it leads.
// usage: client-go-candidate.mjs KUBECONFIG(JSON) NAMESPACE NAME IDENTITY LEASE_SECONDS RETRY_SECONDS COMMAND [ARG…]
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';

const [kubeconfig, namespace, name, identity, leaseSeconds, retrySeconds, command, ...args] = process.argv.slice(2);
const { clusters, users } = JSON.parse(readFileSync(kubeconfig, 'utf8'));
const { server, 'certificate-authority': ca } = clusters[0].cluster;
const agent = new Agent({ keepAlive: true, ca: readFileSync(ca) });
const LEASE_DURATION_MS = Number(leaseSeconds) * 1000;
const RETRY_PERIOD_MS = Number(retrySeconds) * 1000;
const RENEW_DEADLINE_MS = LEASE_DURATION_MS * (2 / 3);
const JITTER_FACTOR = 1.2;

let observedRecord = {};
let observedRawRecord = '';
let observedAt = 0;
/** LeaseLock.lease */
let lease;
let isCancelled = false;

function call(method, path, body) {
  return new Promise((resolve, reject) => {
    const url = `${server}/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases${path}`;
    const headers = { Authorization: `Bearer ${users[0].user.token}`, 'Content-Type': 'application/json' };
    const asked = request(url, { method, agent, headers, timeout: RENEW_DEADLINE_MS / 2 }, (answer) => {
      const chunks = [];
      answer.on('data', (chunk) => chunks.push(chunk));
      answer.on('error', reject);
      answer.on('end', () => resolve({ code: answer.statusCode, body: JSON.parse(Buffer.concat(chunks).toString()) }));
    });
    asked.on('error', reject);
    asked.on('timeout', () => asked.destroy(new Error('timeout')));
    asked.end(body && JSON.stringify(body));
  });
}

// LeaseSpecToLeaderElectionRecord: its times are metav1.Time, of whole seconds in JSON.
const seconds = (time) => (time ? `${time.slice(0, 19)}Z` : null);
const toRecord = ({ spec = {} }) => ({
  holderIdentity: spec.holderIdentity ?? '',
  leaseDurationSeconds: spec.leaseDurationSeconds ?? 0,
  acquireTime: seconds(spec.acquireTime),
  renewTime: seconds(spec.renewTime),
  leaderTransitions: spec.leaseTransitions ?? 0,
});

const microTime = (time) => time.replace('Z', '.000000Z');
const toSpec = (record) => ({
  holderIdentity: record.holderIdentity,
  leaseDurationSeconds: record.leaseDurationSeconds,
  acquireTime: microTime(record.acquireTime),
  renewTime: microTime(record.renewTime),
  leaseTransitions: record.leaderTransitions,
});

const isLeader = () => observedRecord.holderIdentity === identity;
const isLeaseValid = (at) => observedAt + observedRecord.leaseDurationSeconds * 1000 > at;

function setObservedRecord(record) {
  observedRecord = record;
  observedAt = performance.now();
}

async function update(record) {
  if (!lease) throw new Error('endpoint not initialized, call get or create first');
  lease.spec = { ...lease.spec, ...toSpec(record) };
  const { code, body } = await call('PUT', `/${name}`, lease);
  if (code !== 200) throw new Error(body.message);
  lease = body;
}

async function tryAcquireOrRenew() {
  const at = performance.now();
  const now = seconds(new Date().toISOString());
  const leaseDurationSeconds = LEASE_DURATION_MS / 1000;
  const record = {
    holderIdentity: identity,
    leaseDurationSeconds,
    renewTime: now,
    acquireTime: now,
    leaderTransitions: 0,
  };
  // 1. The leader updates optimistically.
  if (isLeader() && isLeaseValid(at)) {
    record.acquireTime = observedRecord.acquireTime;
    record.leaderTransitions = observedRecord.leaderTransitions;
    try {
      await update(record);
      setObservedRecord(record);
      return true;
    } catch {}
  }
  // 2. Get, or create.
  const got = await call('GET', `/${name}`);
  if (got.code === 404) {
    const created = await call('POST', '', {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { name, namespace },
      spec: toSpec(record),
    });
    if (created.code !== 201) return false;
    lease = created.body;
    setObservedRecord(record);
    return true;
  }
  if (got.code !== 200) return false;
  lease = got.body;
  const oldRecord = toRecord(lease);
  // 3. Look at the identity and the time.
  const rawRecord = JSON.stringify(oldRecord);
  if (observedRawRecord !== rawRecord) {
    setObservedRecord(oldRecord);
    observedRawRecord = rawRecord;
  }
  if (oldRecord.holderIdentity.length > 0 && isLeaseValid(at) && !isLeader()) return false;
  // 4. Try to update.
  if (isLeader()) {
    record.acquireTime = oldRecord.acquireTime;
    record.leaderTransitions = oldRecord.leaderTransitions;
  } else record.leaderTransitions = oldRecord.leaderTransitions + 1;
  await update(record);
  setObservedRecord(record);
  return true;
}

async function release() {
  if (!isLeader()) return;
  const now = seconds(new Date().toISOString());
  const { leaderTransitions } = observedRecord;
  await update({ holderIdentity: '', leaseDurationSeconds: 1, renewTime: now, acquireTime: now, leaderTransitions });
}

const attempt = () => tryAcquireOrRenew().catch(() => false);

process.on('SIGTERM', () => {
  isCancelled = true;
});

while (!(await attempt())) {
  if (isCancelled) process.exit(0);
  await sleep(RETRY_PERIOD_MS * (1 + JITTER_FACTOR * Math.random()));
}
const job = spawn(command, args, { stdio: 'inherit' });
const ended = once(job, 'exit').then(() => {
  isCancelled = true;
});
let renewedAt = performance.now();
while (!isCancelled && performance.now() - renewedAt < RENEW_DEADLINE_MS) {
  await Promise.race([sleep(RETRY_PERIOD_MS), ended]);
  if (isCancelled) break;
  const startedAt = performance.now();
  if (await attempt()) renewedAt = startedAt;
  else if (!isLeader()) break;
}
job.kill('SIGKILL');
await ended;
await release().catch(() => {});
process.exit(0);
