import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { newFolder } from './folders.ts';

const SOURCE = fileURLToPath(new URL('../natives/CuratorCandidate.java', import.meta.url));
const JARS = ['curator-recipes', 'curator-framework', 'curator-client', 'guava', 'zookeeper', 'slf4j-nop']
  .map((name) => `/usr/share/java/${name}.jar`)
  .join(':');

let classes: string | undefined;

/** The command line to which test/natives/CuratorCandidate.java, compiled once, takes its arguments. */
export function curatorCandidate(): string[] {
  if (!classes) {
    classes = newFolder('curator');
    execFileSync('javac', ['-d', classes, '-cp', JARS, SOURCE]);
  }
  const quick = ['-Xmx64m', '-XX:TieredStopAtLevel=1', '-XX:+UseSerialGC'];
  return ['java', ...quick, '-cp', `${classes}:${JARS}`, 'CuratorCandidate'];
}
