import { accessSync, constants } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { usage } from '../../outcome.ts';
import { printable } from '../../text.ts';
import { mustBeUrl } from '../connection.ts';
import type { SpecReader } from '../spec.ts';

/** Where the cluster is described, without what is secret in it: whoever opens the store reads the files again. */
export interface KubernetesSpec {
  kind: 'kubernetes';
  /** Undefined: that of the kubeconfig's context, or of our pod. */
  namespace: string | undefined;
  /** Kubeconfig files, as KUBECONFIG lists them. Empty: the service account of our pod. */
  kubeconfig: string[];
}

/** Where the kubelet puts it in every pod, unless `automountServiceAccountToken` is false. */
const SERVICE_ACCOUNT_TOKEN = '/var/run/secrets/kubernetes.io/serviceaccount/token';

/** The name of the Lease with an election's run records ends so. */
export const BOOK_SUFFIX = '.elect-run-runs';

/** An object's name has 253 characters at the most. */
const LONGEST_NAME = 253 - BOOK_SUFFIX.length;

export const kubernetesReader: SpecReader<KubernetesSpec> = {
  schemes: ['kubernetes', 'k8s'],
  form: 'kubernetes[://namespace]',
  options: [],

  read(url, _options, env) {
    mustBeUrl(url, 'kubernetes or kubernetes://namespace');
    const namespace = url.rest === '' ? undefined : url.rest.slice('://'.length);
    if (namespace !== undefined) mustBeNamespace(namespace, '--backend kubernetes');
    return { kind: 'kubernetes', namespace, kubeconfig: findCluster(env) };
  },

  checkElection(election, shown) {
    const problem = whyNoName(election);
    if (problem === undefined) return;
    const better = suggestion(election);
    const hint = better === '' ? '' : `; for example --name ${better}`;
    throw usage(`--name "${shown}" cannot be the name of a Kubernetes Lease: ${problem}${hint}`);
  },
};

/** A namespace is a DNS label (RFC 1123). `where`: what gave it. */
export function mustBeNamespace(namespace: string, where: string): void {
  if (/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(namespace)) return;
  throw usage(
    `${where}: "${printable(namespace).slice(0, 80)}" is not a namespace: up to 63 of a-z, 0-9 and "-", with a letter or digit at both ends`,
  );
}

/** As kubectl looks for it: KUBECONFIG, then ~/.kube/config, then the pod's service account. */
function findCluster(env: NodeJS.ProcessEnv): string[] {
  const listed = (env.KUBECONFIG ?? '').split(delimiter).filter(Boolean);
  const files = (listed.length > 0 ? listed : [join(env.HOME ?? '/', '.kube', 'config')]).map((file) => resolve(file));
  const there = files.filter(isThere);
  if (there.length > 0) return there;
  if (listed.length > 0)
    throw usage(`--backend kubernetes: KUBECONFIG=${printable(listed.join(delimiter))} does not exist`);
  if (env.KUBERNETES_SERVICE_HOST && isThere(SERVICE_ACCOUNT_TOKEN)) return [];
  throw usage(
    `--backend kubernetes: no cluster is known: set KUBECONFIG, or run in a pod whose service account token is mounted (there is no ${printable(files[0]!)})`,
  );
}

function isThere(file: string): boolean {
  try {
    accessSync(file, constants.F_OK);
    return true;
  } catch {
    return false;
  }
}

/** The name of an object is a DNS subdomain (RFC 1123). */
function whyNoName(name: string): string | undefined {
  if (name.length > LONGEST_NAME) return `it is longer than ${LONGEST_NAME} characters`;
  if (name.endsWith(BOOK_SUFFIX)) return `"${BOOK_SUFFIX}" is where elect-run keeps its run records`;
  if (/[^a-z0-9.-]/.test(name)) return 'only a-z, 0-9, "-" and "." are allowed';
  if (!name.split('.').every((label) => /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/.test(label)))
    return 'it and each part between dots has to begin and end with a letter or digit';
  return undefined;
}

const suggestion = (name: string): string =>
  name
    .toLowerCase()
    .replace(/[^a-z0-9.]+/g, '-')
    .split('.')
    .map((label) => label.replace(/^-+|-+$/g, ''))
    .filter(Boolean)
    .join('.')
    .slice(0, LONGEST_NAME)
    .replaceAll(BOOK_SUFFIX, '')
    .replace(/[-.]+$/, '');
