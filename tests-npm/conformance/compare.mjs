// Runs the official MCP conformance suites against the reference server, directly and through
// Holdpoint, and compares: every check that passes directly must pass through Holdpoint.
//
//   node compare.mjs [--write] [--holdpoint PROGRAM] [--only REVISION]
//
// Fails if a check is lost, or if the tables of docs/conformance.md say something else. `--write`
// writes the tables. `--only` runs one revision and looks at no table.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { once } from "node:events";
import { parseArgs } from "node:util";
import { end, here, holdpoint, plainNames, reference } from "./ends.mjs";
import { show, shown } from "./page.mjs";

const { values } = parseArgs({
  options: {
    holdpoint: { type: "string", default: join(here, "../../target/debug/holdpoint") },
    only: { type: "string" },
    write: { type: "boolean", default: false },
  },
});

const PATIENCE_MS = 120_000;
/** How many checks fewer may pass to a server of the other era than the page says. */
const SLACK = 3;

const RUNS = [
  { suite: "conformance-0.1", revision: "2025-06-18" },
  { suite: "conformance-0.1", revision: "2025-11-25" },
  { suite: "conformance-0.2", revision: "2025-06-18" },
  { suite: "conformance-0.2", revision: "2025-11-25" },
  { suite: "conformance-0.2", revision: "2026-07-28" },
].filter(({ revision }) => [undefined, revision].includes(values.only));

/**
 * What passes directly and does not pass through Holdpoint, by way and scenario, each with why. An
 * entry that no run needs any more has to go.
 */
const KNOWN = [
  {
    why: "answers JSON unless something comes before the answer, so there is no stream to read",
    ways: ["named", "shared"],
    checks: ["server-sse-multiple-streams:server-sse-streams-functional", "server-sse-polling:*"],
  },
  {
    why: "passes on what servers of this revision change on their own, and does not announce it",
    ways: ["named", "shared"],
    checks: [
      "server-stateless:sep-2575-server-sends-prompts-list-changed-on-subscription",
      "server-stateless:sep-2575-server-sends-tools-list-changed-on-subscription",
    ],
  },
];

// === the four ways to a server ===

const isModern = ({ revision }) => revision === "2026-07-28";

/** Each way has a server of its own, so that what one run changes no other run sees. */
const WAYS = {
  direct: async () => {
    const url = await reference("both");
    return () => url;
  },
  named: async () => {
    const url = await holdpoint(values.holdpoint, { upstream: await reference("both") });
    return () => `${url}/upstream`;
  },
  shared: async () => {
    const url = await holdpoint(values.holdpoint, { upstream: await reference("both") });
    const plain = await plainNames(url, "upstream");
    return () => plain;
  },
  other: async () => {
    const servers = { legacy: await reference("legacy"), modern: await reference("modern") };
    const url = await holdpoint(values.holdpoint, servers);
    return (run) => `${url}/${isModern(run) ? "legacy" : "modern"}`;
  },
};

/** Runs a suite; gives what became of every check of every scenario. */
async function checks({ suite, revision }, url) {
  const results = mkdtempSync(join(tmpdir(), "holdpoint-conformance-"));
  const script = join(here, "node_modules", suite, "dist/index.js");
  const suites = suite === "conformance-0.2" ? ["--suite", "all"] : [];
  const what = ["--url", url, "--spec-version", revision, ...suites];
  const args = [script, "server", ...what, "-o", results];
  const child = spawn(join(here, "node_modules/node/bin/node"), args, {
    stdio: "ignore",
    timeout: PATIENCE_MS,
  });
  const [code, signal] = await once(child, "exit");
  if (signal !== null) throw new Error(`${suite} ${revision} at ${url}: ended by ${signal}`);
  const scenarios = new Map();
  for (const folder of readdirSync(results)) {
    const scenario = folder.match(/^server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z$/)?.[1];
    const found = JSON.parse(readFileSync(join(results, folder, "checks.json"), "utf8"));
    scenarios.set(scenario, ordered(found));
  }
  rmSync(results, { recursive: true });
  if (scenarios.size === 0) throw new Error(`${suite} ${revision} ran nothing: code ${code}`);
  return scenarios;
}

/** Checks by name; the same name may come more than once. */
function ordered(found) {
  const all = new Map();
  for (const { id, name, status, errorMessage } of found) {
    if (status === "INFO" || status === "SKIPPED") continue;
    let key = `${id} ${name}`;
    for (let n = 2; all.has(key); n += 1) key = `${id} ${name} ${n}`;
    all.set(key, { id, passed: status === "SUCCESS", errorMessage });
  }
  return all;
}

// === what is compared ===

const counts = (all) => {
  const every = [...(all?.values() ?? [])];
  return [every.filter(({ passed }) => passed).length, every.length];
};
const cell = ([passed, run]) => (run === 0 ? "–" : `${passed} / ${run}`);
const sum = (scenarios) =>
  [...scenarios.values()].map(counts).reduce(([a, b], [c, d]) => [a + c, b + d], [0, 0]);

/** The checks that pass directly and not this way, but for those that are known. */
function lost(direct, through, way) {
  const found = [];
  for (const [scenario, all] of direct) {
    for (const [key, { id, passed }] of all) {
      const other = through.get(scenario)?.get(key);
      if (!passed || other?.passed || isKnown(way, scenario, id)) continue;
      found.push(`${scenario}:${key}: ${other?.errorMessage ?? "not run"}`);
    }
  }
  return found;
}

const used = new Set();

function isKnown(way, scenario, id) {
  const names = [`${scenario}:*`, `${scenario}:${id}`];
  const matching = KNOWN.filter(({ ways }) => ways.includes(way))
    .flatMap(({ checks }) => checks)
    .filter((check) => names.includes(check));
  for (const check of matching) used.add(`${way} ${check}`);
  return matching.length > 0;
}

/** The entries of the list of known differences that nothing needed. */
const unused = () =>
  KNOWN.flatMap(({ ways, checks }) => ways.flatMap((way) => checks.map((of) => `${way} ${of}`)))
    .filter((entry) => !used.has(entry));

function table({ suite, revision }, by) {
  const other = isModern({ revision }) ? "2025-11-25" : "2026-07-28";
  const heads = ["direct", "`/mcp/NAME`", "`/mcp`", `server of ${other}`];
  const row = (name, cells) => `| ${[name, ...cells.map(cell)].join(" | ")} |`;
  const ways = Object.keys(WAYS).map((way) => by[way]);
  const names = [...new Set(ways.flatMap((scenarios) => [...scenarios.keys()]))].sort();
  return [
    `### ${revision}, ${suite.replace("conformance-", "suite ")}`,
    "",
    `| scenario | ${heads.join(" | ")} |`,
    `|---|${heads.map(() => "---|").join("")}`,
    ...names.map((name) => row(name, ways.map((scenarios) => counts(scenarios.get(name))))),
    row("**all**", ways.map(sum)),
    "",
  ].join("\n");
}

async function way(name) {
  const url = await WAYS[name]();
  const found = [];
  for (const run of RUNS) found.push(await checks(run, url(run)));
  return [name, found];
}

async function main() {
  const all = Object.fromEntries(await Promise.all(Object.keys(WAYS).map(way)));
  const tables = [];
  let fails = 0;
  for (const [number, run] of RUNS.entries()) {
    const by = Object.fromEntries(Object.entries(all).map(([way, found]) => [way, found[number]]));
    const totals = Object.entries(by).map(([way, scenarios]) => `${way} ${cell(sum(scenarios))}`);
    console.log(`${run.revision}, ${run.suite}: ${totals.join(", ")}`);
    for (const way of ["named", "shared"]) {
      for (const check of lost(by.direct, by[way], way)) {
        console.log(`  lost (${way}): ${check}`);
        fails += 1;
      }
    }
    tables.push(table(run, by));
  }
  if (values.only === undefined) {
    for (const entry of unused()) {
      console.log(`  known, but passes: ${entry}`);
      fails += 1;
    }
    if (!page(tables.join("\n"))) fails += 1;
  }
  return fails === 0 ? 0 : 1;
}

/**
 * Writes the tables into the page, or says whether it has them. The last column is not compared to
 * the letter: which of several calls a legacy server asks about is not said, so it varies a little.
 */
function page(tables) {
  const old = shown("tables");
  if (values.write) show("tables", tables);
  const had = new Set(steady(old));
  const news = steady(tables).filter((line) => !had.has(line));
  const missing = steady(old).length !== steady(tables).length || news.length > 0;
  const fewer = crossing(tables).some((passed, run) => passed < crossing(old)[run] - SLACK);
  if (values.write || (!missing && !fewer)) return true;
  console.log("docs/conformance.md is stale; `npm run compare -- --write` writes:");
  console.log(fewer ? `less crosses: ${crossing(tables)}, not ${crossing(old)}` : news.join("\n"));
  return false;
}

/** The lines of the tables without the last column. */
const steady = (tables) => tables.split("\n").map((line) => line.replace(/\|[^|]*\|$/, "|"));

/** How many checks pass to a server of the other era, in each run. */
const crossing = (tables) => {
  const sums = tables.matchAll(/^\| \*\*all\*\* .*\| (\d+) \/ \d+ \|$/gm);
  return [...sums].map(([, passed]) => Number(passed));
};

try {
  process.exitCode = await main();
} finally {
  end();
}
process.exit();
