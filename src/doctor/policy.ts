import { Gone, Refused, Unusable } from '../backend.ts';
import type { EtcdHealth } from '../backends/etcd/health.ts';
import type { FileHealth } from '../backends/file/health.ts';
import type { KubernetesHealth, Verb } from '../backends/kubernetes/health.ts';
import type { RedisHealth } from '../backends/redis/health.ts';
import type { ZooKeeperHealth } from '../backends/zookeeper/health.ts';
import { formatDuration } from '../durations.ts';
import { EXIT } from '../outcome.ts';
import { printable } from '../text.ts';
import type { Timing } from '../timing.ts';
import { advise, describeRule, flagsOf, type Need, whatIsTooShort } from './advice.ts';
import type { Answer, Health } from './examiner.ts';
import { type Finding, ok, problem, warning } from './finding.ts';
import type { Host } from './host.ts';
import type { Expiry, RoundTrips } from './measure.ts';
import type { Pauses } from './pauses.ts';

/** What is well, what is a warning and what a problem: all of it is decided here, from facts that others have gathered. */

const SOON_MS = 14 * 86_400_000;
/** The default of --skew, within which starts may lie apart. */
const CLOCKS_APART_MS = 5000;
const STEP_MS = 1000;
const LATE_MS = 5000;
const STOLEN = 0.05;
const PAUSE_MS = 500;
const LAG_S = 10;
const FREE_BYTES = 16 << 20;
const OPEN_FILES = 256;
const PROCESSES = 64;
/** Half of etcd's default quota of 2 GiB (--quota-backend-bytes), at which it raises NOSPACE and refuses to write. */
const DATABASE_BYTES = 2 ** 30;

export function judgeHealth(health: Health): Finding[] {
  switch (health.kind) {
    case 'file':
      return judgeFile(health);
    case 'etcd':
      return judgeEtcd(health);
    case 'redis':
      return judgeRedis(health);
    case 'zookeeper':
      return judgeZooKeeper(health);
    case 'kubernetes':
      return judgeKubernetes(health);
  }
}

const milliseconds = (ms: number): string => (ms < 10 ? `${Math.round(ms * 10) / 10}ms` : formatDuration(ms));

const megabytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;

/** Each server of a cluster. Those that are down do not end elect-run as long as others serve; whether they do tells the connection. */
function judgeServers(check: string, answers: Answer[], tells: (index: number) => string, remedy: string): Finding[] {
  return answers.map(({ endpoint, tookMs, problem }, index) =>
    problem === undefined
      ? ok(check, `${endpoint} answers in ${milliseconds(tookMs!)}${tells(index)}`)
      : warning(check, `${endpoint} does not answer: ${problem.replace(`etcd at ${endpoint}: `, '')}`, remedy),
  );
}

function judgeEtcd({ members, size }: EtcdHealth): Finding[] {
  const answered = members.flatMap(({ status, endpoint }) => (status ? [{ ...status, endpoint }] : []));
  const findings = judgeServers(
    'member',
    members,
    (index) => {
      const { version, databaseBytes, isLearner } = members[index]!.status!;
      return `, etcd ${version}, database ${megabytes(databaseBytes)}${isLearner ? ', a learner' : ''}`;
    },
    'start it again, or remove it from the cluster and from --backend; as long as it is away, one failure less can be borne',
  );
  const clusters = new Set(answered.map(({ cluster }) => cluster));
  if (clusters.size > 1)
    findings.push(
      problem(
        'cluster',
        EXIT.usage,
        `the endpoints belong to ${clusters.size} clusters: two would lead at once`,
        'name the members of one cluster in --backend (etcdctl endpoint status shows whose each is)',
      ),
    );
  if (answered.length > 0 && answered.every(({ leader }) => leader === '0'))
    findings.push(
      problem('cluster', EXIT.unavailable, 'no member knows a leader', 'bring a majority of the members back'),
    );
  else if (answered.some(({ leader }) => leader === '0')) {
    const lost = answered.filter(({ leader }) => leader === '0').map(({ endpoint }) => endpoint);
    findings.push(
      warning(
        'cluster',
        `${lost.join(', ')} knows no leader: it is cut off`,
        'look at the network between the members',
      ),
    );
  }
  const alarms = new Set(
    answered.flatMap(({ errors }) => errors.flatMap((error) => /alarm:(\w+)/.exec(error)?.[1] ?? [])),
  );
  for (const alarm of alarms)
    findings.push(
      problem(
        'alarm',
        EXIT.unavailable,
        `etcd has raised ${alarm}${alarm === 'NOSPACE' ? ': it is full, and takes no writes' : ''}`,
        'compact, etcdctl defrag, then etcdctl alarm disarm',
      ),
    );
  const large = answered.filter(({ databaseBytes }) => databaseBytes > DATABASE_BYTES);
  if (large.length > 0 && alarms.size === 0)
    findings.push(
      warning(
        'space',
        `the database of ${large[0]!.endpoint} has ${megabytes(large[0]!.databaseBytes)}: etcd takes no writes above its quota (2048 MiB by default)`,
        'compact and etcdctl defrag, or raise --quota-backend-bytes',
      ),
    );
  if (size !== undefined && size > members.length)
    findings.push(
      warning(
        'cluster',
        `--backend names ${members.length} of ${size} members`,
        'name them all: with those that are named every election is out of reach',
      ),
    );
  else if (size !== undefined && clusters.size === 1 && answered.some(({ leader }) => leader !== '0'))
    findings.push(ok('cluster', `${size === 1 ? 'one member' : `${size} members`}, with a leader`));
  return findings;
}

function judgeRedis({ server, isForbidden, sentinels, clock, waitReplicas }: RedisHealth): Finding[] {
  const findings: Finding[] = [];
  if (sentinels) {
    findings.push(
      ...judgeServers(
        'sentinel',
        sentinels,
        (index) => `: the master is ${sentinels[index]!.master ?? 'unknown to it'}`,
        'start it again, or take it out of --backend: a failover needs a majority of them',
      ),
    );
    const masters = new Set(sentinels.flatMap(({ problem, master }) => (problem === undefined ? [master] : [])));
    if (masters.size > 1)
      findings.push(
        problem(
          'sentinel',
          EXIT.unavailable,
          `the Sentinels name different masters: ${[...masters].map((one) => one ?? 'none').join(', ')}`,
          'wait for the end of a failover; if it lasts, look at the network between them (SENTINEL masters)',
        ),
      );
  }
  if (!server) {
    if (isForbidden)
      findings.push(
        warning(
          'server',
          'we may not ask how it is (INFO): role, persistence and eviction are not known',
          'grant +info to see them; to run, elect-run does not need it',
        ),
      );
  } else {
    const { version, role, isAppendOnly, evictionPolicy, memoryLimit, replicas } = server;
    findings.push(
      role === 'master'
        ? ok('server', `Redis ${printable(version)}, the master`)
        : problem(
            'server',
            EXIT.unavailable,
            `this Redis is a ${role === 'slave' ? 'replica' : printable(role)}: it takes no writes`,
            'name the master, or the Sentinels: redis+sentinel://host:port,…/MASTER',
          ),
    );
    findings.push(
      isAppendOnly
        ? ok('persistence', 'appendonly yes')
        : warning(
            'persistence',
            'appendonly no: a restart of Redis forgets who leads, and elects a second one while the first one is at work, until its next renewal',
            'CONFIG SET appendonly yes (and in redis.conf), or an etcd or ZooKeeper',
          ),
    );
    // Locks have a ttl, so they are what the volatile-* policies pick from; the last token has none (Redis, "Key eviction").
    findings.push(
      evictionPolicy === 'noeviction'
        ? ok('memory', 'noeviction: no lock is thrown away')
        : warning(
            'memory',
            `maxmemory-policy ${printable(evictionPolicy)}${memoryLimit === 0 ? ' (no maxmemory is set, so not yet)' : ` above ${megabytes(memoryLimit)}`}: locks may be thrown away, and a second one be elected`,
            'CONFIG SET maxmemory-policy noeviction, or a Redis for locks alone',
          ),
    );
    const late = replicas.filter(({ isOnline, lagSeconds }) => !isOnline || lagSeconds > LAG_S);
    if (waitReplicas > replicas.length - late.length)
      findings.push(
        problem(
          'replicas',
          EXIT.unavailable,
          `--redis-wait-replicas ${waitReplicas}, but ${replicas.length - late.length} follow`,
          'bring the replicas back (INFO replication), or lower --redis-wait-replicas',
        ),
      );
    else if (late.length > 0)
      findings.push(
        warning(
          'replicas',
          `${late.map(({ address }) => printable(address)).join(', ')} lags behind`,
          'look at it (INFO replication): a failover to it forgets who leads',
        ),
      );
    else if (replicas.length > 0)
      findings.push(
        waitReplicas > 0
          ? ok('replicas', `${replicas.length} follow, ${waitReplicas} confirm each renewal`)
          : warning(
              'replicas',
              `${replicas.length} follow, and none has to confirm: a failover may forget who leads`,
              `--redis-wait-replicas ${replicas.length}`,
            ),
      );
    else if (sentinels)
      findings.push(warning('replicas', 'none: there is nothing to fail over to', 'add a replica to the master'));
  }
  findings.push(...judgeClock(clock));
  return findings;
}

function judgeZooKeeper({ servers, longestMs }: ZooKeeperHealth): Finding[] {
  const findings = judgeServers(
    'server',
    servers,
    (index) => {
      const { mode, version } = servers[index]!;
      return mode === undefined ? ' (4lw.commands.whitelist hides its mode)' : `, ${mode}, ZooKeeper ${version}`;
    },
    'start it again, or remove it from the ensemble and from --backend; as long as it is away, one failure less can be borne',
  );
  const modes = servers.flatMap(({ mode }) => mode ?? []);
  if (modes.includes('standalone') && servers.length > 1)
    findings.push(
      problem(
        'ensemble',
        EXIT.usage,
        'a server of those in --backend stands alone: two would lead at once',
        'name the servers of one ensemble',
      ),
    );
  else if (modes.length === servers.length && !modes.includes('leader') && !modes.includes('standalone'))
    findings.push(
      warning(
        'ensemble',
        'none of the servers in --backend is the leader: the list is not complete',
        'name all servers of the ensemble',
      ),
    );
  if (longestMs !== undefined)
    findings.push(ok('session', `granted up to ${formatDuration(longestMs)} (maxSessionTimeout)`));
  return findings;
}

const NEEDED: Verb[] = ['get', 'create', 'update'];

function judgeKubernetes(health: KubernetesHealth): Finding[] {
  const { server, version, tookMs, namespace, denied, deniedBook, clock } = health;
  if (health.problem !== undefined)
    return [
      warning('server', `${server} does not answer: ${health.problem}`, 'look at the API server and the way to it'),
    ];
  const findings: Finding[] = [
    ok('server', `${server} answers in ${milliseconds(tookMs!)}, Kubernetes ${version ?? 'of unknown version'}`),
  ];
  const grant = (verbs: Verb[]) =>
    `kubectl create role elect-run -n ${namespace} --verb=${verbs.join(',')} --resource=leases.coordination.k8s.io, and a rolebinding to it`;
  const missing = NEEDED.filter((verb) => denied?.includes(verb));
  if (denied === undefined)
    findings.push(warning('rights', 'the API server does not tell', 'kubectl auth can-i --list shows them'));
  else if (missing.length > 0)
    findings.push(
      problem(
        'rights',
        EXIT.refused,
        `we may not ${missing.join(', ')} leases in namespace ${namespace}`,
        grant([...NEEDED, 'watch']),
      ),
    );
  else findings.push(ok('rights', `${NEEDED.join(', ')} leases in namespace ${namespace}`));
  if (denied?.includes('watch'))
    findings.push(
      warning('rights', 'we may not watch leases: changes are looked for once a second', grant([...NEEDED, 'watch'])),
    );
  const missingBook = NEEDED.filter((verb) => deniedBook?.includes(verb));
  if (missing.length === 0 && missingBook.length > 0)
    findings.push(judgeBook(`we may not ${missingBook.join(', ')} the Lease with the run records`));
  findings.push(...judgeClock(clock));
  return findings;
}

function judgeClock(clock: { aheadMs: number; withinMs: number } | undefined): Finding[] {
  if (!clock) return [];
  const { aheadMs, withinMs } = clock;
  const apart = `${formatDuration(Math.abs(aheadMs))} ${aheadMs < 0 ? 'ahead of' : 'behind'} that of the store`;
  if (Math.abs(aheadMs) - withinMs <= CLOCKS_APART_MS)
    return [ok('clocks', `ours and that of the store agree to within ${formatDuration(Math.abs(aheadMs) + withinMs)}`)];
  return [
    warning(
      'clocks',
      `our wall clock is ${apart}`,
      'set both by NTP (timedatectl, chronyc tracking): schedules go by the clock of the host, and a lost token of Redis by that of the store',
    ),
  ];
}

/** Types of statfs(2) on which a lock is not what it is on a local disk. */
const REMOTE: Record<number, string> = {
  26985: 'NFS',
  4283649346: 'CIFS',
  4266872130: 'SMB',
  20859: 'SMB',
  1702057286: 'FUSE',
  16914839: '9p',
  12805120: 'Ceph',
  198183888: 'Lustre',
  1397113167: 'AFS',
};
const IN_MEMORY: Record<number, string> = { 16914836: 'tmpfs', 2240043254: 'ramfs' };
const OVERLAY = 0x794c7630;

function judgeFile({ dir, isThere, fileSystem, freeBytes, hasFlock }: FileHealth): Finding[] {
  const findings: Finding[] = [];
  const [remote, inMemory] = [REMOTE[fileSystem], IN_MEMORY[fileSystem]];
  const elsewhere = 'name a directory on a local disk (-b file:DIR)';
  if (remote !== undefined)
    findings.push(
      warning(
        'directory',
        `${dir} is on ${remote}: whether its locks hold between hosts is up to the server and the mount`,
        `${elsewhere}; for several hosts use a store with a network (etcd, Redis, ZooKeeper, Kubernetes)`,
      ),
    );
  else if (inMemory !== undefined)
    findings.push(
      warning(
        'directory',
        `${dir} is on ${inMemory}: its tokens start again at 1 after a restart of the machine, and run records are lost`,
        elsewhere,
      ),
    );
  else if (fileSystem === OVERLAY)
    findings.push(
      warning(
        'directory',
        `${dir} is on the overlay of a container: nobody outside of it shares the lock, and its tokens go with it`,
        'mount a volume there that all the containers share',
      ),
    );
  else findings.push(ok('directory', `${dir}${isThere ? '' : ' (made when it is needed)'}, on a local disk`));
  findings.push(
    freeBytes >= FREE_BYTES
      ? ok('space', `${megabytes(freeBytes)} free`)
      : warning('space', `${megabytes(freeBytes)} free in ${dir}`, 'make room: a new token file may not find a block'),
  );
  if (!hasFlock)
    findings.push(warning('flock', 'there is no flock(1): a standby looks ten times a second', 'install util-linux'));
  return findings;
}

export function judgeValidity(whose: string, validUntil: number | undefined): Finding[] {
  if (validUntil === undefined) return [];
  const until = new Date(validUntil).toISOString().slice(0, 10);
  if (validUntil - Date.now() > SOON_MS) return [ok('tls', `${whose} is valid until ${until}`)];
  return [
    warning(
      'tls',
      `${whose} ${validUntil < Date.now() ? 'ran out on' : 'runs out on'} ${until}`,
      'renew it; elect-run reads its own at the start only',
    ),
  ];
}

export function judgeRoundTrips({ took, unanswered, reason }: RoundTrips, what: string): Finding[] {
  const { count, p50Ms, p99Ms, maxMs } = took;
  const found = `p50 ${milliseconds(p50Ms)}, p99 ${milliseconds(p99Ms)}, max ${milliseconds(maxMs)} of ${count} ${what}`;
  if (count === 0)
    return [
      problem(
        'round trips',
        EXIT.unavailable,
        `none of ${unanswered} ${what} was answered: ${reason}`,
        'see the servers above',
      ),
    ];
  if (unanswered === 0) return [ok('round trips', found)];
  return [
    warning(
      'round trips',
      `${found}; ${unanswered} more had no answer (${reason})`,
      'look at the servers and the network: each of them is a renewal that would have been lost',
    ),
  ];
}

export const judgeBook = (why: string): Finding =>
  warning('schedules', why, 'only --once-per and --schedule need this right: grant it where you use them');

export function judgeGrant(askedMs: number, grantedMs: number | undefined): Finding {
  if (grantedMs === undefined) return ok('ttl', 'nothing runs out: the lock is the kernel’s');
  const longer = grantedMs > askedMs ? ': the store grants no shorter one' : '';
  return ok('ttl', `asked for ${formatDuration(askedMs)}, granted ${formatDuration(grantedMs)}${longer}`);
}

export function judgeExpiry(expiry: Expiry): Finding {
  if (!expiry.isSeen)
    return warning(
      'expiry',
      `a lease${expiry.shortestMs === undefined ? '' : ` of ${formatDuration(expiry.shortestMs)}`} that ran out was not seen: ${expiry.reason}`,
      'try again; if it stays so, a crash is not followed by a new leader in time',
    );
  const { shortestMs, lateMs } = expiry;
  if (lateMs < 0)
    return problem(
      'expiry',
      EXIT.usage,
      `a lease of ${formatDuration(shortestMs)} was given to the next candidate ${formatDuration(-lateMs)} too early`,
      'look at the clock of the store: until it keeps time, two may be at work at once',
    );
  const found = `a lease of ${formatDuration(shortestMs)} went to the next candidate ${formatDuration(lateMs)} after its end`;
  return lateMs <= LATE_MS
    ? ok('expiry', found)
    : warning('expiry', found, 'the store is slow to notice a crash: look at its load, and that of this host');
}

export function judgePauses({ late, stolen, throttled, stepMs }: Pauses): Finding[] {
  const found = `timers were late by ${milliseconds(late.p99Ms)} (p99), ${milliseconds(late.maxMs)} at the most`;
  const findings: Finding[] = [
    late.maxMs < PAUSE_MS
      ? ok('pauses', found)
      : warning(
          'pauses',
          found,
          'this host has too little processor time, or was paused: see load, limits and neighbours',
        ),
  ];
  if (stolen !== undefined && stolen >= STOLEN)
    findings.push(
      warning(
        'pauses',
        `the hypervisor gave ${Math.round(100 * stolen)}% of our processors to others (steal)`,
        'move the machine, or lengthen --ttl',
      ),
    );
  if (throttled)
    findings.push(
      warning(
        'pauses',
        `our cgroup was out of processor time ${throttled} times`,
        'raise its limit (cpu.max, resources.limits.cpu)',
      ),
    );
  findings.push(
    Math.abs(stepMs) < STEP_MS
      ? ok('wall clock', stepMs === 0 ? 'made no step' : `made a step of ${formatDuration(Math.abs(stepMs))}`)
      : warning(
          'wall clock',
          `was set ${stepMs > 0 ? 'forward' : 'back'} by ${formatDuration(Math.abs(stepMs))} while we measured`,
          'leases do not mind, but schedules do: let one NTP client alone set it, and slew',
        ),
  );
  return findings;
}

export function judgeHost(host: Host): Finding[] {
  const { kernel, node, isPidOne, isNotified, openFiles, processes } = host;
  const notes = [isPidOne && 'as pid 1', isNotified && 'under systemd (Type=notify)'].filter(Boolean);
  const findings: Finding[] = [ok('host', [`Linux ${kernel}, Node ${node}`, ...notes].join(', '))];
  const lack = (isThere: boolean, found: string, remedy: string) => {
    if (!isThere) findings.push(warning('host', found, remedy));
  };
  lack(
    host.hasShell,
    'there is no /bin/sh: the guard is a second Node, which takes more memory',
    'nothing, or an image with a shell',
  );
  lack(
    host.hasSetpriv,
    'there is no setpriv(1) of util-linux 2.33 or later: the kernel does not kill the command together with elect-run; the guard does, a moment later',
    'install util-linux',
  );
  lack(
    host.isSubreaper,
    'orphans do not come to us, or cannot be listed (CONFIG_PROC_CHILDREN): what daemonizes is looked for in all of /proc',
    'mount /proc, or use a kernel with CONFIG_PROC_CHILDREN',
  );
  lack(host.hasPidfd, 'there is no pidfd_open(2), or it is forbidden (seccomp)', 'Linux 5.3 or later');
  lack(openFiles >= OPEN_FILES, `no more than ${openFiles} open files are allowed`, 'ulimit -n, LimitNOFILE=');
  lack(processes >= PROCESSES, `no more than ${processes} processes are allowed`, 'ulimit -u, TasksMax=, LimitNPROC=');
  return findings;
}

/** Whether the timing that the options mean fits what was measured. */
export function judgeTiming(timing: Timing, need: Need): Finding {
  const advised = advise(need);
  const lack = whatIsTooShort(timing, need);
  if (advised === undefined)
    return problem(
      'timing',
      EXIT.unavailable,
      `no timing fits round trips of ${formatDuration(need.p99Ms)} (p99) and pauses of ${formatDuration(need.pauseMs)}`,
      'run elect-run nearer to the store, or the store on faster disks',
    );
  if (lack !== undefined) return problem('timing', EXIT.usage, lack, flagsOf(advised));
  const isShortest = advised.ttlMs >= timing.ttlMs;
  const shorter = isShortest ? '' : `; ${flagsOf(advised)} would do`;
  return ok('timing', `${flagsOf(timing)} fits (${describeRule(timing, need)})${shorter}`);
}

/** What a store answered, or did not. Its messages say the way out behind a semicolon. */
export function ofError(check: string, error: Error, url: string): Finding {
  if (error instanceof Refused || error instanceof Unusable) {
    const code = error instanceof Refused ? EXIT.refused : EXIT.usage;
    const [found, ...remedies] = error.message.split('; ');
    const remedy =
      remedies.join('; ') || 'give another --user, --password-file or certificate, or have the rights granted';
    return problem(check, code, found!, remedy);
  }
  if (error instanceof Gone)
    return problem(
      check,
      EXIT.unavailable,
      `a lease was lost while it was renewed: ${error.message}`,
      'look at the store: it forgets what it has granted, or somebody deletes it',
    );
  return problem(
    check,
    EXIT.unavailable,
    `${url} could not be reached in time: ${error.message}`,
    'see whether the servers run, whether --backend has their addresses, and whether a firewall lets us through',
  );
}

export const judgeUncleanable = (): Finding =>
  warning(
    'election',
    'we may not delete leases, so none was made for measuring: round trips are those of reads, and no lease was let run out',
    'to measure that as well, grant --verb=delete for the time being; to run, elect-run does not need it',
  );

export const judgeUnreachable = (election: string, scratch: string): Finding =>
  warning(
    'election',
    `the rights are for ${election} alone, so nothing was measured beside it: round trips are those of questions, and no lease was let run out`,
    `to measure that as well, grant the same rights for ${scratch.replace(/[0-9a-f]*$/, '*')} for the time being; to run, elect-run does not need it`,
  );

export const leftBehind = (scratch: string, error: Error): Finding =>
  warning(
    'traces',
    `what was made for measuring may be left in the store: ${error.message}`,
    `remove what is named ${scratch}; its leases run out by themselves`,
  );
