'use strict';
// What module.enableCompileCache does from Node 22.1 on, for Node 20: the compiled code of dist/ is kept, with all functions that a run has used.
const { readFileSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } = require('node:fs');
const Module = require('node:module');
const { basename, dirname, join } = require('node:path');
const { Script } = require('node:vm');

/** Every module below `folder` is compiled by way of `cache`, a directory that only we can write to. */
exports.enableCodeCache = (folder, cache) => {
  const compiledNow = [];
  process.once('exit', () => {
    for (const { kept, script } of compiledNow) keep(kept, script);
  });
  const plain = Module._extensions['.js'];
  Module._extensions['.js'] = (module, filename) => {
    if (dirname(filename) !== folder) return plain(module, filename);
    const { mtimeMs, size } = statSync(filename);
    // V8 itself refuses code of another version or other flags.
    const kept = join(cache, `${basename(filename)}-${process.version}-${Math.round(mtimeMs)}-${size}`);
    const script = new Script(Module.wrap(readFileSync(filename, 'utf8')), { filename, cachedData: read(kept) });
    if (script.cachedDataRejected !== false) compiledNow.push({ kept, script });
    const compiled = script.runInThisContext();
    compiled.call(module.exports, module.exports, (id) => module.require(id), module, filename, folder);
  };
};

function read(file) {
  try {
    return readFileSync(file);
  } catch {
    return undefined;
  }
}

/** Whole or not at all; and without it things go on, only slower. */
function keep(file, script) {
  try {
    const own = `${file}.${process.pid}`;
    writeFileSync(own, script.createCachedData());
    renameSync(own, file);
    const stem = basename(file).replace(/-v\d.*$/, '');
    for (const older of readdirSync(dirname(file))) {
      if (older.startsWith(`${stem}-v`) && older !== basename(file))
        rmSync(join(dirname(file), older), { force: true });
    }
  } catch {}
}
