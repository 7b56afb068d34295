// An MCP server whose tools do what they are told with real programs: a shell, git, sqlite3, psql,
// terraform, HTTP and files. Works in the folder where it is started.
import { spawnSync } from "node:child_process";
import { createInterface } from "node:readline";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";

const program = (file, args, input) => {
  const run = spawnSync(file, args, { encoding: "utf8", input });
  if (run.error || run.status !== 0) throw new Error(run.error?.message ?? run.stderr);
  return run.stdout;
};

const tools = {
  run: ({ command }) => program("bash", ["-c", command]),
  git: ({ args }) => program("git", args),
  sqlite: ({ sql }) => program("sqlite3", ["shop.db"], sql),
  postgres: ({ sql }) => program("psql", ["-XqAt", "-v", "ON_ERROR_STOP=1", "shop"], sql),
  http: async ({ method, url, body }) =>
    (await fetch(url, { method: method ?? "GET", body })).text(),
  write_file: ({ path, content }) => {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
    return "written";
  },
  edit_file: ({ path, edits }) => {
    const edited = edits.reduce((text, { oldText, newText }) => {
      if (!text.includes(oldText)) throw new Error("not there: " + oldText);
      return text.replace(oldText, () => newText);
    }, readFileSync(path, "utf8"));
    writeFileSync(path, edited);
    return "edited";
  },
  apply_patch: ({ patch }) => program("git", ["apply", "-"], patch) + "patched",
  delete_files: ({ paths }) => paths.map((path) => rmSync(path)).length + " deleted",
  // The plan is what is judged; what is applied is the file that it was shown from.
  terraform_apply: () => program("terraform", ["apply", "-no-color", "plan.out"]),
  kubernetes_apply: ({ manifest }) => "would apply " + manifest.length,
  put_policy: ({ document }) => "would put " + document.length,
  graphql: ({ query }) => "would send " + query.length,
};

const say = (id, body) => process.stdout.write(JSON.stringify({ jsonrpc: "2.0", id, ...body }) + "\n");
const definitions = Object.keys(tools).map((name) => ({ name, inputSchema: { type: "object" } }));

createInterface({ input: process.stdin }).on("line", async (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  if (method === "initialize") {
    const serverInfo = { name: "tools", version: "1" };
    const result = { protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo };
    return say(id, { result });
  }
  if (method === "tools/list") return say(id, { result: { tools: definitions } });
  if (method !== "tools/call") return say(id, { error: { code: -32601, message: "unknown" } });
  try {
    const text = String(await tools[params.name](params.arguments));
    say(id, { result: { content: [{ type: "text", text }] } });
  } catch (error) {
    say(id, { result: { content: [{ type: "text", text: error.message }], isError: true } });
  }
});
