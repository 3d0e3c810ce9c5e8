'use strict';
const { readdirSync, renameSync, rmSync, statSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');

/** What lies there for longer is of another installation, and may be in use: whoever misses it keeps it anew. */
const DAY_MS = 86_400_000;
/** Less is not worth a write. */
const GROWTH = 1.01;

/** Keeps what was compiled in this run, at the names' last number for good: whole or not at all. Without it things go on, only slower. */
exports.keep = (cache, compiled, lastTime) => {
  try {
    for (const { script, stem, kept, size } of compiled) {
      const time = kept === undefined ? 0 : Number(kept.slice(stem.length)) + 1;
      if (time > lastTime) continue;
      const data = script.createCachedData();
      const draft = join(cache, kept === undefined || data.length > size * GROWTH ? `${stem}${process.pid}.new` : kept);
      if (draft.endsWith('.new')) writeFileSync(draft, data);
      renameSync(draft, join(cache, `${stem}${time}`));
      for (let other = 0; other <= lastTime; other++)
        if (other !== time) rmSync(join(cache, `${stem}${other}`), { force: true });
    }
    const now = Date.now();
    for (const name of readdirSync(cache)) {
      const file = join(cache, name);
      if (!compiled.some(({ stem }) => name.startsWith(stem)) && now - statSync(file).mtimeMs > DAY_MS)
        rmSync(file, { recursive: true });
    }
  } catch {}
};
