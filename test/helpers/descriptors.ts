import { native } from '../../src/native.ts';

const RLIMIT_NOFILE = 7; // the same on x86-64 and arm64

/** Meanwhile this process can open nothing: EMFILE. */
export async function withoutDescriptors(act: () => void | Promise<void>): Promise<void> {
  const { program } = native();
  const getrlimit = program.func('int getrlimit(int, void *)');
  const setrlimit = program.func('int setrlimit(int, void *)');
  const limits = Buffer.alloc(16); // struct rlimit: soft and hard, 8 bytes each
  getrlimit(RLIMIT_NOFILE, limits);
  const none = Buffer.from(limits);
  none.writeBigUInt64LE(0n, 0);
  setrlimit(RLIMIT_NOFILE, none);
  try {
    await act();
  } finally {
    setrlimit(RLIMIT_NOFILE, limits);
  }
}
