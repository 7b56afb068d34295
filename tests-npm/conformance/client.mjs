// Runs the client scenarios of the official MCP conformance suite with a Holdpoint in the client's
// place: how it behaves towards upstream servers, OAuth included.
//
//   node client.mjs [--write] [--holdpoint PROGRAM] [--only PART]
//
// Prints a table. Fails if a scenario fails that is not in EXPECTED, or one in EXPECTED passes, or if
// docs/conformance.md says something else. `--write` writes it there; `--only` looks at no page.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { EXPECTED } from "./client-expected.mjs";
import { here } from "./ends.mjs";
import { show, shown } from "./page.mjs";

const modules = join(here, "node_modules");
const node = join(modules, "node/bin/node");
const SUITES = ["conformance-0.1", "conformance-0.2"];
const REVISIONS = ["2025-06-18", "2025-11-25", "2026-07-28"];
const AT_ONCE = 4;

const { values } = parseArgs({
  options: {
    holdpoint: { type: "string", default: join(here, "../../target/debug/holdpoint") },
    only: { type: "string", default: "" },
    write: { type: "boolean", default: false },
  },
});

function run(suite, args) {
  return new Promise((done) => {
    const env = { ...process.env, HOLDPOINT: values.holdpoint };
    const script = join(modules, suite, "dist/index.js");
    const child = spawn(node, [script, ...args], { env, stdio: ["ignore", "pipe", "pipe"] });
    let [out, err] = ["", ""];
    child.stdout.on("data", (data) => (out += data));
    child.stderr.on("data", (data) => (err += data));
    child.once("exit", (code) => done({ code, out, err }));
  });
}

/** What a suite can check of a client: scenario and revision. */
async function scenarios(suite) {
  const { out } = await run(suite, ["list", "--client"]);
  const found = [...out.matchAll(/^ {2}- (\S+) \[([^\]]*)\]/gm)];
  return found.flatMap(([, name, revisions]) => {
    const known = revisions.split(",").filter((one) => REVISIONS.includes(one));
    return (known.length > 0 ? known : [""]).map((revision) => ({ suite, name, revision }));
  });
}

/** The checks of one scenario, as the suite wrote them down. */
async function check({ suite, name, revision }) {
  const folder = mkdtempSync(join(tmpdir(), "holdpoint-suite-"));
  try {
    const command = `${node} ${join(here, "behind.mjs")}`;
    // The first suite runs each scenario in the one way that it knows.
    const version = revision !== "" && suite !== "conformance-0.1" ? ["--spec-version", revision] : [];
    const all = ["client", "--command", command, "--scenario", name, "-o", folder, ...version];
    const { code, out, err } = await run(suite, all);
    const place = readdirSync(folder, { recursive: true }).find((file) => file.endsWith("checks.json"));
    const checks = place ? JSON.parse(readFileSync(join(folder, place), "utf8")) : [];
    const of = (status) => checks.filter((one) => one.status === status);
    const bad = of("FAILURE");
    const words = bad.map((one) => `${one.id}: ${one.errorMessage ?? one.details?.message ?? ""}`);
    const good = code === 0 && place !== undefined;
    if (!good && words.length === 0) words.push((out + err).trim().split("\n").at(-1) ?? "");
    return { passed: of("SUCCESS").length, failed: bad.length, warned: of("WARNING").length, good, words };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const all = (await Promise.all(SUITES.map(scenarios))).flat();
const chosen = all.filter(({ name }) => name.includes(values.only));
// The first suite's revisions are one and the same run.
const seen = new Set();
const work = chosen.filter(({ suite, name, revision }) => {
  const key = suite === "conformance-0.1" ? `${suite} ${name}` : `${suite} ${name} ${revision}`;
  return !seen.has(key) && seen.add(key);
});
const found = [];
await Promise.all(
  Array.from({ length: AT_ONCE }, async () => {
    for (let one = work.shift(); one !== undefined; one = work.shift()) {
      found.push({ ...one, ...(await check(one)) });
    }
  }),
);
found.sort((a, b) => `${a.suite} ${a.revision} ${a.name}`.localeCompare(`${b.suite} ${b.revision} ${b.name}`));

let surprises = 0;
const rows = found.map((one) => {
  const known = EXPECTED[`${one.suite} ${one.name}`] ?? EXPECTED[one.name];
  const surprise = one.good === (known !== undefined);
  if (surprise) surprises += 1;
  const state = one.good ? "passes" : known ? `fails: ${known}` : "FAILS";
  const note = surprise && one.good ? " (was expected to fail)" : "";
  const revision = one.suite === "conformance-0.1" ? "as the suite runs it" : one.revision;
  return { ...one, revision, state: `${state}${note}`, surprise };
});
const table = ["| suite | revision | scenario | checks | result |", "|---|---|---|---|---|"];
for (const { suite, revision, name, passed, failed, state, surprise, words } of rows) {
  const checks = `${passed} / ${passed + failed}`;
  const version = suite.replace("conformance-", "");
  table.push(`| ${version} | ${revision} | ${name} | ${checks} | ${state} |`);
  console.log(`${version} ${revision.padEnd(20)} ${name.padEnd(44)} ${checks.padStart(7)}  ${state}`);
  if (surprise) for (const word of words) console.log(`      ${word.slice(0, 300)}`);
}
console.log(`\n${rows.filter((row) => row.good).length} of ${rows.length} scenarios pass`);
/** How many checks a scenario makes may vary with what the client did first; its result may not. */
const steady = (text) => text.replaceAll(/\d+ \/ \d+/g, "");
const page = `${table.join("\n")}\n`;
if (values.write) show("clients", page);
const stale = values.only === "" && steady(shown("clients")) !== steady(page);
if (stale) console.log("docs/conformance.md is stale; `npm run clients -- --write` writes this");
process.exitCode = surprises === 0 && rows.length > 0 && !stale ? 0 : 1;
