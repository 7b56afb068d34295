// A real authorization server (oidc-provider) and an MCP server that wants its tokens, on loopback.
// Prints one line of JSON with their URLs. Arguments: the modules' folder, and how long tokens live
// in seconds. `POST /control` on the MCP server's port changes what it does; `GET /control` tells
// what it saw, and which tokens were issued, so that a test can look for them.
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, seconds] = process.argv.slice(2);
const require = createRequire(join(modules, "here.js"));
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { Provider } = await import(pathToFileURL(join(modules, "oidc-provider/lib/index.js")));
const { Server } = await load("@modelcontextprotocol/sdk/server/index.js");
const { StreamableHTTPServerTransport } = await load(
  "@modelcontextprotocol/sdk/server/streamableHttp.js",
);
const types = await load("@modelcontextprotocol/sdk/types.js");

const listen = (server) =>
  new Promise((done) => server.listen(0, "127.0.0.1", () => done(server.address().port)));
const hash = (text) => createHash("sha256").update(text).digest("hex");
// What a library prints must not end the line that the test reads.
console.warn = console.info = () => {};

const seen = { mcp: [], tokens: [], issued: [] };
const rules = { scope: null, other: false, refuse: 0, hang: false };
let mcp;

async function provider() {
  const server = createServer((request, response) => handle(request, response));
  const port = await listen(server);
  const issuer = `http://127.0.0.1:${port}`;
  const made = new Provider(issuer, {
    clients: [
      {
        client_id: "holdpoint",
        token_endpoint_auth_method: "none",
        application_type: "native",
        grant_types: ["authorization_code", "refresh_token"],
        redirect_uris: ["http://127.0.0.1/callback"],
      },
      {
        client_id: "machine",
        client_secret: process.env.MACHINE_SECRET ?? "machine-secret",
        grant_types: ["client_credentials"],
        response_types: [],
        redirect_uris: [],
      },
    ],
    claims: { openid: ["sub"] },
    scopes: ["openid", "offline_access", "notes:read", "notes:write"],
    features: {
      clientCredentials: { enabled: true },
      registration: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_, resource) => {
          if (resource !== mcp) throw new Error(`unknown resource ${resource}`);
          return {
            scope: "notes:read notes:write",
            audience: resource,
            accessTokenTTL: Number(seconds),
            accessTokenFormat: "opaque",
          };
        },
        useGrantedResource: () => true,
      },
    },
    issueRefreshToken: () => true,
    rotateRefreshToken: true,
    pkce: { required: () => true },
    ttl: { AccessToken: Number(seconds), ClientCredentials: Number(seconds) },
  });
  made.on("grant.success", ({ body }) => {
    seen.issued.push(body.access_token, ...(body.refresh_token ? [body.refresh_token] : []));
  });
  const callback = made.callback();
  async function handle(request, response) {
    if (request.url.startsWith("/token")) {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      const body = Buffer.concat(chunks).toString();
      const form = new URLSearchParams(body);
      seen.tokens.push({ grant: form.get("grant_type"), resource: form.get("resource") });
      request.body = Object.fromEntries(form);
      if (rules.hang) return response.destroy();
    }
    callback(request, response);
  }
  return { made, issuer, port };
}

function mcpServer(who) {
  const server = new Server({ name: "notes", version: "1" }, { capabilities: { tools: {} } });
  const schema = { type: "object" };
  server.setRequestHandler(types.ListToolsRequestSchema, () => ({
    tools: [
      { name: "whoami", inputSchema: schema },
      { name: "write", inputSchema: schema },
      // Each account has a tool of its own.
      { name: `only_${who.account}`, inputSchema: schema },
    ],
  }));
  server.setRequestHandler(types.CallToolRequestSchema, () => ({
    content: [{ type: "text", text: JSON.stringify(who) }],
  }));
  return server;
}

async function whoIs(request) {
  const [, token] = (request.headers.authorization ?? "").match(/^Bearer (\S+)$/) ?? [];
  if (token === undefined) return null;
  for (const { made } of [first, second]) {
    const found = (await made.AccessToken.find(token)) ?? (await made.ClientCredentials.find(token));
    if (found?.isValid && [found.aud].flat().includes(mcp)) {
      const account = found.accountId ?? found.clientId;
      return { account, scope: found.scope ?? "", token: hash(token) };
    }
  }
  return null;
}

async function control(request, response) {
  if (request.method === "POST") {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const asked = JSON.parse(Buffer.concat(chunks).toString());
    Object.assign(rules, asked);
  }
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify(seen));
}

async function serve(request, response) {
  if (request.url === "/control") return control(request, response);
  if (request.url.startsWith("/.well-known/oauth-protected-resource")) {
    const issuer = rules.other ? second.issuer : first.issuer;
    response.writeHead(200, { "content-type": "application/json" });
    const scopes = ["notes:read"];
    return response.end(
      JSON.stringify({ resource: mcp, authorization_servers: [issuer], scopes_supported: scopes }),
    );
  }
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString();
  const message = text === "" ? {} : JSON.parse(text);
  const who = await whoIs(request);
  const noted = { method: message.method, tool: message.params?.name, ...(who ?? {}) };
  if (request.url === "/mcp") seen.mcp.push(noted);
  const place = new URL("/.well-known/oauth-protected-resource/mcp", mcp);
  const calls = message.method === "tools/call";
  if (who === null || (calls && rules.refuse > 0)) {
    if (who !== null) rules.refuse -= 1;
    noted.answered = 401;
    const challenge = `Bearer error="invalid_token", resource_metadata="${place}"`;
    response.writeHead(401, { "www-authenticate": challenge });
    return response.end();
  }
  if (calls && message.params.name === "write" && !who.scope.includes("notes:write")) {
    noted.answered = 403;
    const challenge = `Bearer error="insufficient_scope", scope="notes:write"`;
    response.writeHead(403, { "www-authenticate": challenge });
    return response.end();
  }
  const server = mcpServer(who);
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
  response.on("close", () => void server.close());
  await server.connect(transport);
  await transport.handleRequest(request, response, message);
}

const front = createServer((request, response) => void serve(request, response));
const port = await listen(front);
mcp = `http://127.0.0.1:${port}/mcp`;
const first = await provider();
const second = await provider();
console.log(JSON.stringify({ mcp, issuer: first.issuer, other: second.issuer }));
