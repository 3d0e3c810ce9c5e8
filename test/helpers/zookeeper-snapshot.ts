import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Writes into the newest snapshot of a server that is not running how many znodes were created below this one, which is the next one's number.
 * Layout: FileSnap, DataTree.serialize and StatPersisted of ZooKeeper, each number big-endian.
 */
export function setChildCounter(dataFolder: string, path: string, counter: number): void {
  const folder = join(dataFolder, 'version-2');
  const zxid = (name: string) => Number.parseInt(name.slice('snapshot.'.length), 16);
  const [newest, ...older] = readdirSync(folder)
    .filter((name) => name.startsWith('snapshot.'))
    .sort((a, b) => zxid(b) - zxid(a));
  const file = join(folder, newest!);
  const snapshot = readFileSync(file);
  const key = Buffer.concat([int32(path.length), Buffer.from(path)]);
  const dataAt = snapshot.indexOf(key) + key.length;
  const statAt = dataAt + 4 + Math.max(0, snapshot.readInt32BE(dataAt)) + 8; // after the data and the number of its ACL
  snapshot.writeInt32BE(counter, statAt + 4 * 8 + 4); // after czxid, mzxid, ctime, mtime, version
  const before = readFileSync(file);
  for (let at = before.indexOf(SEAL_END); at !== -1; at = before.indexOf(SEAL_END, at + 1)) {
    const isSeal = at >= 8 && before.readBigInt64BE(at - 8) === BigInt(adler32(before.subarray(0, at - 8)));
    if (isSeal) snapshot.writeBigInt64BE(BigInt(adler32(snapshot.subarray(0, at - 8))), at - 8);
  }
  writeFileSync(file, snapshot);
  for (const name of older) rmSync(join(folder, name));
}

/** A checksum of all that comes before, and this. */
const SEAL_END = Buffer.concat([int32(1), Buffer.from('/')]);

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}

function adler32(bytes: Buffer): number {
  let a = 1;
  let b = 0;
  for (const byte of bytes) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  return b * 65536 + a;
}
