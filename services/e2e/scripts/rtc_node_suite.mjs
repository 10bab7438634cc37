// Runs the end-to-end suite that @livekit/rtc-node ships in its package,
// unmodified, and checks that every one of its cases ran and passed.

import { spawnSync } from "node:child_process";
import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { assert } from "./settings.mjs";

const CASES = 29;
const require = createRequire(import.meta.url);
const here = dirname(dirname(fileURLToPath(import.meta.url)));
const folder = join(here, ".work", `rtc-node-${process.pid}`);
const suite = join(dirname(dirname(require.resolve("@livekit/rtc-node"))), "src");

await mkdir(folder, { recursive: true });
try {
  await cp(suite, join(folder, "src"), { recursive: true });
  await writeFile(join(folder, "package.json"), '{"name":"suite","private":true,"type":"module"}');
  await writeFile(join(folder, "vitest.config.mjs"), "export default { test: { include: ['src/tests/e2e*.test.ts'], fileParallelism: false } };\n");
  const report = join(folder, "report.json");
  const run = spawnSync(
    process.execPath,
    [join(here, "node_modules/vitest/vitest.mjs"), "run", "--root", folder, "--reporter=verbose", "--reporter=json", `--outputFile.json=${report}`],
    { stdio: ["ignore", "inherit", "inherit"], cwd: folder },
  );
  const result = JSON.parse(await readFile(report, "utf8"));
  console.log(`rtc-node suite: ${result.numPassedTests} of ${result.numTotalTests} passed`);
  assert(run.status === 0 && result.numFailedTests === 0, `${result.numFailedTests} cases failed`);
  assert(result.numPassedTests === CASES, `${result.numPassedTests} cases passed, not ${CASES}`);
} finally {
  await rm(folder, { recursive: true, force: true });
}
