import { closeSync, constants, existsSync, fdatasyncSync, readSync, writeSync } from 'node:fs';
import { isMarked, mark } from '../../native.ts';
import { isAlive, readProc } from '../../proc.ts';
import { printable } from '../../text.ts';
import { trouble } from './trouble.ts';

/** Undefined: nobody leads, or another program, which leaves no name. */
export interface Seen {
  leader: string | undefined;
  since: string | undefined;
  token: string | undefined;
  /** One of us leads, whatever is to be seen of the lock. */
  isLed: boolean;
}

/**
 * The fencing counter and who leads. It has one size for ever and is overwritten in place, so that a full disk cannot keep a token from being handed out. It is marked for as long as
 * whoever has written it last leads.
 */
export class TokenFile {
  readonly #file: string;
  readonly #open: (flags: number) => number;
  #fd: number | undefined;

  constructor(file: string, open: (flags: number) => number) {
    this.#file = file;
    this.#open = open;
  }

  /** Counts up, for who leads from now on. Only under the lock. */
  next(id: string): bigint {
    this.#fd ??= this.#open(constants.O_RDWR | constants.O_CREAT);
    const token = this.#read(this.#fd).token + 1n;
    const { pid, startedAt } = readProc(process.pid)!;
    writeRecord(this.#fd, { token, holder: { id, since: new Date().toISOString(), pid, startedAt } });
    fdatasyncSync(this.#fd);
    mark(this.#fd);
    return token;
  }

  /** We do not lead any more. */
  letGo(): void {
    if (this.#fd === undefined) return;
    closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** Also for whoever may only read. */
  look(): Seen {
    if (!existsSync(this.#file)) return { ...NOBODY, isLed: false };
    const fd = this.#open(constants.O_RDONLY);
    try {
      const isLed = isMarked(fd);
      const { holder, token } = this.#read(fd);
      // Whoever crashed is still on record while flock(1) has the lock.
      if (!holder || !(isLed || isAlive(holder))) return { ...NOBODY, isLed };
      return { leader: holder.id, since: holder.since, token: String(token), isLed };
    } finally {
      closeSync(fd);
    }
  }

  #read(fd: number): TokenRecord {
    try {
      return readRecord(fd);
    } catch (error) {
      throw trouble(error, `${this.#file} ${(error as Error).message}`);
    }
  }
}

const NOBODY = { leader: undefined, since: undefined, token: undefined };

interface TokenRecord {
  token: bigint;
  holder: { id: string; since: string; pid: number; startedAt: string } | undefined;
}

/** One sector: written whole or not at all. */
const RECORD_BYTES = 512;

/** Line one is the last token, line two the holder as JSON, then spaces. Throws when there is something else: a counter that started again would be worse. */
function readRecord(fd: number): TokenRecord {
  const buffer = Buffer.alloc(RECORD_BYTES);
  const text = buffer.toString('utf8', 0, readSync(fd, buffer, 0, RECORD_BYTES, 0));
  if (text === '') return { token: 0n, holder: undefined };
  const [token, holder] = text.split('\n');
  if (!/^\d+$/.test(token!)) throw new Error(`does not begin with a number: "${printable(token!.slice(0, 40))}"`);
  try {
    return { token: BigInt(token!), holder: holder?.trim() ? JSON.parse(holder) : undefined };
  } catch {
    return { token: BigInt(token!), holder: undefined };
  }
}

function writeRecord(fd: number, { token, holder }: TokenRecord): void {
  const text = `${token}\n${JSON.stringify(holder)}\n`;
  const buffer = Buffer.alloc(RECORD_BYTES, ' ');
  buffer.write(text);
  writeSync(fd, buffer, 0, RECORD_BYTES, 0);
}
