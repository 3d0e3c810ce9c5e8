// A candidate by Apache Curator, which is Java: compiled from the tests' own.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';

const LIBRARIES = ['curator-recipes', 'curator-framework', 'curator-client', 'guava', 'zookeeper', 'slf4j-nop'];
const JARS = LIBRARIES.map((name) => `/usr/share/java/${name}.jar`);

/** The command line to which it takes HOSTS, latch|selector|mutex, PATH and a command; undefined where there is no Curator (libcurator-recipes-java) or no source. */
export function curatorCandidate(root) {
  const source = join(root, 'test/natives/CuratorCandidate.java');
  if (![source, ...JARS].every((file) => existsSync(file))) return undefined;
  const classes = join(root, 'node_modules/.cache/bench/curator');
  mkdirSync(classes, { recursive: true });
  execFileSync('javac', ['-d', classes, '-cp', JARS.join(':'), source], { stdio: ['ignore', 2, 2] });
  return ['java', '-Xmx64m', '-XX:+UseSerialGC', '-cp', [classes, ...JARS].join(':'), 'CuratorCandidate'];
}
