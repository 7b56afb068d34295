// A client made with the TypeScript SDK, for the integration tests:
//
//   node client.mjs JOB
//
// JOB is JSON: `sdk` (1 or 2), `era` (`legacy` or `modern`), where to go (`command` or `url` and
// `key`), and `steps`. Prints one line of JSON: what each step gave, and what the server asked.

const job = JSON.parse(process.argv[2]);
const asked = [];
const CAPABILITIES = { elicitation: {}, sampling: {}, roots: {} };
const INFO = { name: "holdpoint-tests", version: "1.0.0" };

/** What the server may ask, and what this client says. */
const ANSWERS = {
  "elicitation/create": () => ({ action: "accept", content: { name: "Ada" } }),
  "sampling/createMessage": () => ({
    role: "assistant",
    content: { type: "text", text: "sampled" },
    model: "none",
  }),
  "roots/list": () => ({ roots: [{ uri: "file:///root-of-the-client" }] }),
};

// The two SDKs differ in where things are, and in how a request is named to a client.
const SDKS = {
  1: async () => {
    const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
    const { StdioClientTransport } = await import("@modelcontextprotocol/sdk/client/stdio.js");
    const http = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
    const types = await import("@modelcontextprotocol/sdk/types.js");
    const schemas = {
      "elicitation/create": types.ElicitRequestSchema,
      "sampling/createMessage": types.CreateMessageRequestSchema,
      "roots/list": types.ListRootsRequestSchema,
    };
    const client = new Client(INFO, { capabilities: CAPABILITIES });
    const { StreamableHTTPClientTransport } = http;
    const call = (params, options) => client.callTool(params, undefined, options);
    return {
      client,
      call,
      name: (method) => schemas[method],
      StdioClientTransport,
      StreamableHTTPClientTransport,
    };
  },
  2: async () => {
    const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client");
    const { StdioClientTransport } = await import("@modelcontextprotocol/client/stdio");
    const mode = job.era === "modern" ? { pin: "2026-07-28" } : "legacy";
    const options = { capabilities: CAPABILITIES, versionNegotiation: { mode } };
    const client = new Client(INFO, options);
    const call = (params, options) => client.callTool(params, options);
    return {
      client,
      call,
      name: (method) => method,
      StdioClientTransport,
      StreamableHTTPClientTransport,
    };
  },
};

const sdk = await SDKS[job.sdk]();
const { client } = sdk;

function transport() {
  if (job.url === undefined) {
    const [command, ...args] = job.command;
    return new sdk.StdioClientTransport({ command, args, cwd: job.cwd, stderr: "ignore" });
  }
  const headers = { Authorization: `Bearer ${job.key}` };
  return new sdk.StreamableHTTPClientTransport(new URL(job.url), { requestInit: { headers } });
}

const texts = (contents) => contents.map(({ text }) => text ?? "").join("\n");

const STEPS = {
  tools: async () => (await client.listTools()).tools.map(({ name }) => name),
  call: async ({ name, arguments: given, progress }) => {
    let seen = 0;
    const onprogress = progress && (() => (seen += 1));
    const options = progress ? { onprogress } : {};
    const result = await sdk.call({ name, arguments: given }, options);
    const causes = result._meta?.["io.holdpoint/decision"]?.causes ?? [];
    return {
      text: texts(result.content),
      failed: result.isError === true,
      reasons: causes.map(({ reason }) => reason),
      progress: seen,
    };
  },
  resources: async () => (await client.listResources()).resources.map(({ uri }) => uri),
  read: async ({ uri }) => texts((await client.readResource({ uri })).contents),
  prompts: async () => (await client.listPrompts()).prompts.map(({ name }) => name),
  prompt: async ({ name, arguments: given }) => {
    const { messages } = await client.getPrompt({ name, arguments: given });
    return texts(messages.map(({ content }) => content));
  },
};

for (const [method, answer] of Object.entries(ANSWERS)) {
  client.setRequestHandler(sdk.name(method), (request) => {
    asked.push(method);
    return answer(request);
  });
}
await client.connect(transport());
const answers = [];
for (const step of job.steps) {
  try {
    answers.push(await STEPS[step.do](step));
  } catch (fault) {
    answers.push({ fault: fault.message, code: fault.code, reason: fault.data?.reason });
  }
}
await client.close();
console.log(JSON.stringify({ answers, asked }));
