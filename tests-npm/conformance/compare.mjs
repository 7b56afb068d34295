// Runs the official MCP conformance suite against a server twice, directly and through Holdpoint,
// and compares: what passes directly must pass through Holdpoint.
//
//   node compare.mjs --upstream URL [--holdpoint PROGRAM] [--markdown]
//
// URL is a server that implements the suite's scenarios (docs/conformance.md says how to start the
// reference one). Fails if a check passes directly and not through Holdpoint.
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = dirname(fileURLToPath(import.meta.url));
const modules = join(here, "node_modules");
const RUNS = [
  { suite: "conformance-0.1", revision: "2025-06-18", args: [] },
  { suite: "conformance-0.1", revision: "2025-11-25", args: [] },
  { suite: "conformance-0.2", revision: "2026-07-28", args: ["--suite", "all"] },
];
const PATIENCE_MS = 300_000;

const { values } = parseArgs({
  options: {
    upstream: { type: "string" },
    holdpoint: { type: "string", default: join(here, "../../target/debug/holdpoint") },
    markdown: { type: "boolean", default: false },
  },
});
if (values.upstream === undefined) {
  console.error("usage: node compare.mjs --upstream URL [--holdpoint PROGRAM] [--markdown]");
  process.exit(2);
}

/** Starts Holdpoint in front of the server; gives its endpoint and how to end it. */
async function serve() {
  const folder = mkdtempSync(join(tmpdir(), "holdpoint-conformance-"));
  const file = join(folder, "holdpoint.toml");
  const port = 20_000 + (process.pid % 20_000);
  writeFileSync(
    file,
    `[listen]
http = "127.0.0.1:${port}"
hosts = ["127.0.0.1:${port}", "localhost:${port}"]
anonymous_agent = "conformance"

[team.conformance]
on_call = "nobody"

[agent.conformance]
owner = "conformance"
grants = [{ class = "read", tools = ["*"] }, { class = "write", tools = ["*"] }]

[server.upstream]
url = ${JSON.stringify(values.upstream)}
environment = "dev"
read = ["*"]
`,
  );
  const options = { stdio: ["ignore", "pipe", "ignore"], cwd: folder };
  const child = spawn(values.holdpoint, ["--config", file, "--format", "json", "serve"], options);
  const line = await new Promise((resolve, reject) => {
    child.stdout.once("data", resolve);
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`holdpoint ended with ${code}`)));
  });
  const { url } = JSON.parse(line);
  const end = () => {
    child.kill("SIGTERM");
    child.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  };
  return { url: `${url.replace("127.0.0.1", "localhost")}/upstream`, end };
}

/** Runs a suite: the passed and failed checks of each scenario. */
function run({ suite, revision, args }, url) {
  const program = join(modules, "node/bin/node");
  const script = join(modules, suite, "dist/index.js");
  const all = [script, "server", "--url", url, "--spec-version", revision, ...args];
  const ran = spawnSync(program, all, { encoding: "utf8", timeout: PATIENCE_MS, maxBuffer: 1 << 28 });
  const found = new Map();
  const summary = ran.stdout.slice(ran.stdout.lastIndexOf("=== SUMMARY ==="));
  for (const [, name, passed, failed] of summary.matchAll(/^[✓✗] (\S+): (\d+) passed, (\d+) failed/gm)) {
    found.set(name, { passed: Number(passed), failed: Number(failed) });
  }
  if (found.size === 0) throw new Error(`${suite} ran no scenario:\n${ran.stderr.slice(-2000)}`);
  return found;
}

const words = (found) => (found ? `${found.passed} / ${found.passed + found.failed}` : "not run");

let lost = 0;
const door = await serve();
try {
  for (const each of RUNS) {
    const direct = run(each, values.upstream);
    const through = run(each, door.url);
    const sum = (all, key) => [...all.values()].reduce((sum, one) => sum + one[key], 0);
    const total = (all) => words({ passed: sum(all, "passed"), failed: sum(all, "failed") });
    if (values.markdown) {
      console.log(`\n### ${each.revision} (${each.suite})\n`);
      console.log("| scenario | direct | through Holdpoint |\n|---|---|---|");
    } else {
      console.log(`${each.revision}: direct ${total(direct)}, through ${total(through)}`);
    }
    for (const [name, found] of direct) {
      const other = through.get(name);
      const worse = other === undefined || other.failed > found.failed;
      if (worse) lost += 1;
      if (values.markdown) console.log(`| ${name} | ${words(found)} | ${words(other)} |`);
      else if (worse) console.log(`  lost: ${name}: ${words(found)} → ${words(other)}`);
    }
    if (values.markdown) console.log(`| **all** | **${total(direct)}** | **${total(through)}** |`);
  }
} finally {
  door.end();
}
process.exitCode = lost === 0 ? 0 : 1;
