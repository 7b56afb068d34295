// Drives the CLI of the MCP Inspector, for the integration tests:
//
//   node inspector.mjs JOB
//
// JOB and what is printed are those of client.mjs. The CLI takes one step at a time, so every step
// opens and closes a connection of its own. It cannot answer questions nor show progress.
import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const job = JSON.parse(process.argv[2]);
const modules = join(dirname(fileURLToPath(import.meta.url)), "node_modules");
// It needs a newer Node.js than the servers do.
const node = join(modules, "node/bin/node");
const script = join(modules, "@modelcontextprotocol/inspector/clients/launcher/build/index.js");

const texts = (contents) => contents.map(({ text }) => text ?? "").join("\n");

const STEPS = {
  tools: () => ["tools/list"],
  call: ({ name, arguments: given }) => [
    "tools/call",
    "--tool-name",
    name,
    "--tool-args-json",
    JSON.stringify(given),
  ],
  resources: () => ["resources/list"],
  read: ({ uri }) => ["resources/read", "--uri", uri],
  prompts: () => ["prompts/list"],
  prompt: ({ name, arguments: given }) => [
    "prompts/get",
    "--prompt-name",
    name,
    ...Object.entries(given).flatMap(([key, value]) => ["--prompt-args", `${key}=${value}`]),
  ],
};

const RESULTS = {
  tools: ({ tools }) => tools.map(({ name }) => name),
  call: ({ content, isError, _meta }) => ({
    text: texts(content),
    failed: isError === true,
    reasons: (_meta?.["io.holdpoint/decision"]?.causes ?? []).map(({ reason }) => reason),
    progress: 0,
  }),
  resources: ({ resources }) => resources.map(({ uri }) => uri),
  read: ({ contents }) => texts(contents),
  prompts: ({ prompts }) => prompts.map(({ name }) => name),
  prompt: ({ messages }) => texts(messages.map(({ content }) => content)),
};

const authorization = `Authorization: Bearer ${job.key}`;
const there =
  job.url === undefined
    ? ["--transport", "stdio", "--", ...job.command]
    : ["--transport", "http", "--server-url", job.url, "--header", authorization];

function take(step) {
  const method = STEPS[step.do](step);
  const how = ["--quiet", "--format", "json", "--protocol-era", job.era];
  const args = [script, "--cli", "--method", ...method, ...how, ...there];
  // It keeps a folder in the user's home.
  const options = { cwd: job.cwd, env: { ...process.env, HOME: job.cwd } };
  return new Promise((resolve) => {
    execFile(node, args, options, (_, stdout, stderr) => {
      let result;
      try {
        result = JSON.parse(stdout);
      } catch {
        return resolve({ fault: stderr || stdout });
      }
      resolve(RESULTS[step.do](result.result ?? result));
    });
  });
}

const answers = [];
for (const step of job.steps) answers.push(await take(step));
console.log(JSON.stringify({ answers, asked: [] }));
