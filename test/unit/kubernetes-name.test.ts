import { expect, test } from 'vitest';
import { kubernetesReader } from '../../src/backends/kubernetes/spec.ts';

const check = (name: string) => kubernetesReader.checkElection(name, name);

test.each(['a', 'a.b-c', 'x'.repeat(238)])('%s is taken', (name) => {
  expect(() => check(name)).not.toThrow();
});

test.each(['Nightly_Report', '-a-', 'x'.repeat(239), `${'x'.repeat(237)}-yy`, 'a.elect-run-runs'])(
  '%s is refused, and what is proposed in its place is taken',
  (name) => {
    const [, proposed] = /--name ([^"]+)$/.exec(whyNot(name))!;
    expect(() => check(proposed!)).not.toThrow();
  },
);

function whyNot(name: string): string {
  try {
    check(name);
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error(`${name} was taken`);
}
