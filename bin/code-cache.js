'use strict';
const { readdirSync, renameSync, rmSync, statSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');

/** What has lain there for longer is of another installation, and may be in use: whoever misses it keeps it anew. */
const DAY_MS = 86_400_000;
/** What is not whole yet, and nobody takes for kept. A pid alone is no name where containers share a home. */
const DRAFT = 'draft-';
/** The folder may be somebody's for more than this, like a CacheDirectory= of systemd's: nothing else is touched. */
const OURS = /^draft-\d+-\d+$|\.js-v\d+\.\d+\.\d+\S*-(run|look)-\d+$/;
/** Less is not worth a write. */
const GROWTH = 1.01;

/** Keeps what was compiled in this run, at the names' last number for good: whole or not at all. Without it things go on, only slower. */
exports.keep = (cache, compiled, lastTime) => {
  try {
    for (const { script, stem, kept, size } of compiled) {
      const time = kept === undefined ? 0 : Number(kept.slice(stem.length)) + 1;
      if (time > lastTime) continue;
      const data = script.createCachedData();
      const isNew = kept === undefined || data.length > size * GROWTH;
      const from = join(cache, isNew ? `${DRAFT}${process.pid}-${process.hrtime.bigint()}` : kept);
      if (isNew) write(from, data);
      renameSync(from, join(cache, `${stem}${time}`));
      for (let other = 0; other <= lastTime; other++)
        if (other !== time) rmSync(join(cache, `${stem}${other}`), { force: true });
    }
    const now = Date.now();
    for (const name of readdirSync(cache)) {
      if (!OURS.test(name) || compiled.some(({ stem }) => name.startsWith(stem))) continue;
      const file = join(cache, name);
      if (now - statSync(file).mtimeMs > DAY_MS) rmSync(file);
    }
  } catch {}
};

/** On a full disk nothing is left. */
function write(file, data) {
  try {
    writeFileSync(file, data, { flag: 'wx', mode: 0o600 });
  } catch (error) {
    rmSync(file, { force: true });
    throw error;
  }
}
